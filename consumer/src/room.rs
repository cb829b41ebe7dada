//! Who may run beside whom in this process: handlers run side by side, until one is to run alone. Whoever waits too long, or does not
//! leave in time because it blocks its thread, no longer keeps the others out.

use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The room. Who is in it is told to all who wait.
#[derive(Debug)]
pub(crate) struct Room {
    inside: watch::Sender<Inside>,
}

/// Who is in. Pure: the room brings the clock.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Inside {
    /// How many run side by side.
    beside: usize,
    /// One runs alone, at most until then.
    alone: Option<Instant>,
    /// One waits to run alone, and nobody else comes in until then.
    waits: Option<Instant>,
    /// Tells one that ran too long from the one that is alone now.
    turn: u64,
}

impl Inside {
    fn keeps_out(until: Option<Instant>, now: Instant) -> bool {
        until.is_some_and(|until| until > now)
    }

    fn enter_beside(&mut self, now: Instant) -> bool {
        let enters = !Self::keeps_out(self.alone, now) && !Self::keeps_out(self.waits, now);
        if enters {
            self.beside += 1;
        }
        enters
    }

    /// Asks others to let one run alone until `until`. One waits at a time.
    fn ask(&mut self, now: Instant, until: Instant) -> bool {
        let asks = !Self::keeps_out(self.waits, now);
        if asks {
            self.waits = Some(until);
        }
        asks
    }

    /// Lets the one in who has asked. Gives his turn.
    fn enter_alone(&mut self, now: Instant, until: Instant) -> Option<u64> {
        if self.beside > 0 || Self::keeps_out(self.alone, now) {
            return None;
        }
        self.waits = None;
        self.alone = Some(until);
        self.turn += 1;
        Some(self.turn)
    }

    fn leave_alone(&mut self, turn: u64) {
        if self.turn == turn {
            self.alone = None;
        }
    }
}

/// Being in. Dropped, one is out.
#[derive(Debug)]
pub(crate) struct Stay<'a> {
    room: &'a Room,
    /// The turn of one that is alone.
    alone: Option<u64>,
}

impl Drop for Stay<'_> {
    fn drop(&mut self) {
        self.room.inside.send_modify(|inside| match self.alone {
            Some(turn) => inside.leave_alone(turn),
            None => inside.beside -= 1,
        });
    }
}

impl Room {
    pub(crate) fn new() -> Self {
        Self {
            inside: watch::Sender::new(Inside::default()),
        }
    }

    /// Comes in beside others. None: `leave` came first.
    pub(crate) async fn beside(&self, leave: &CancellationToken) -> Option<Stay<'_>> {
        let entered = self.wait(leave, None, |inside, now| {
            inside.enter_beside(now).then_some(())
        });
        entered.await?;
        Some(Stay {
            room: self,
            alone: None,
        })
    }

    /// Comes in alone, for at most `stay`, after having waited at most `patience` for the others to leave. None: they did not, or
    /// `leave` came first.
    pub(crate) async fn alone(
        &self,
        leave: &CancellationToken,
        patience: Duration,
        stay: Duration,
    ) -> Option<Stay<'_>> {
        let until = Instant::now() + patience * 2;
        let asks = self.wait(leave, Some(until), |inside, now| {
            inside.ask(now, now + patience).then_some(now + patience)
        });
        let until = asks.await?;
        let enters = self.wait(leave, Some(until), |inside, now| {
            inside.enter_alone(now, now + stay)
        });
        let turn = enters.await;
        if turn.is_none() {
            self.inside.send_modify(|inside| {
                if inside.waits == Some(until) {
                    inside.waits = None;
                }
            });
        }
        Some(Stay {
            room: self,
            alone: Some(turn?),
        })
    }

    /// Waits until a change lets one do something.
    async fn wait<R>(
        &self,
        leave: &CancellationToken,
        until: Option<Instant>,
        mut change: impl FnMut(&mut Inside, Instant) -> Option<R>,
    ) -> Option<R> {
        let mut changes = self.inside.subscribe();
        loop {
            let now = Instant::now();
            let mut done = None;
            self.inside.send_if_modified(|inside| {
                done = change(inside, now);
                done.is_some()
            });
            if done.is_some() {
                return done;
            }
            if leave.is_cancelled() || until.is_some_and(|until| until <= now) {
                return None;
            }
            let inside = *changes.borrow_and_update();
            let wake = [inside.alone, inside.waits, until];
            let wake = wake.into_iter().flatten().filter(|at| *at > now).min();
            let timer = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = leave.cancelled() => {}
                // Fails only when the room is gone, which `self` is not.
                _ = changes.changed() => {}
                () = timer => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn never() -> CancellationToken {
        CancellationToken::new()
    }

    #[tokio::test]
    async fn one_that_is_alone_has_nobody_beside_it() {
        let room = Room::new();
        let beside = room.beside(&never()).await.unwrap();
        let leave = never();
        let mut alone = Box::pin(room.alone(&leave, LONG, LONG));
        assert!(futures_util::poll!(&mut alone).is_pending());
        let mut late = Box::pin(room.beside(&leave));
        assert!(
            futures_util::poll!(&mut late).is_pending(),
            "one waits to be alone"
        );

        drop(beside);
        let alone = alone.await.unwrap();
        assert!(futures_util::poll!(&mut late).is_pending());
        drop(alone);

        assert!(late.await.is_some());
    }

    #[tokio::test]
    async fn one_that_waits_in_vain_to_be_alone_lets_the_others_go_on() {
        let room = Room::new();
        let stuck = room.beside(&never()).await.unwrap();

        let alone = room.alone(&never(), Duration::from_millis(20), LONG).await;

        assert!(alone.is_none());
        assert!(room.beside(&never()).await.is_some());
        drop(stuck);
    }

    #[tokio::test]
    async fn one_that_is_alone_for_too_long_no_longer_keeps_others_out() {
        let room = Room::new();
        let short = Duration::from_millis(20);
        let stuck = room.alone(&never(), LONG, short).await.unwrap();

        assert!(room.beside(&never()).await.is_some());
        let next = room.alone(&never(), LONG, LONG).await.unwrap();
        drop(stuck);

        let inside = *room.inside.borrow();
        assert!(inside.alone.is_some(), "the next one is alone still");
        drop(next);
    }

    #[tokio::test]
    async fn nobody_waits_who_must_leave() {
        let room = Room::new();
        let alone = room.alone(&never(), LONG, LONG).await.unwrap();
        let leave = CancellationToken::new();
        leave.cancel();

        assert!(room.beside(&leave).await.is_none());
        assert!(room.alone(&leave, LONG, LONG).await.is_none());
        drop(alone);
        assert_eq!(room.inside.borrow().waits, None);
    }
}

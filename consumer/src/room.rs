//! Who may run beside whom in this process: handlers run side by side, until one is to run alone. Whoever does not leave in time,
//! because it blocks its thread, no longer keeps the others out.

use std::collections::BTreeSet;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// The room of all consumers of the process: each of their handlers may be what kills it.
static OF_PROCESS: LazyLock<Room> = LazyLock::new(Room::new);

/// For how long the room is kept shut for the next one that waits to be alone, once it is empty.
const HANDOVER: Duration = Duration::from_secs(1);

/// The room. Who has left it is told to all who wait.
#[derive(Debug)]
pub(crate) struct Room {
    inside: watch::Sender<Inside>,
}

/// For how long nobody comes in beside others, and for how long they do after that if it was in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shut {
    until: Instant,
    then_open: Duration,
}

/// Who is in. Pure: the room brings the clock.
#[derive(Debug, Default)]
struct Inside {
    /// Those that run side by side, each with the time until when it may keep one from being alone.
    beside: BTreeSet<(Instant, u64)>,
    /// One runs alone, and keeps others out until then.
    alone: Option<(Instant, u64)>,
    /// How many wait to run alone.
    waiting: usize,
    /// One waits to run alone, and nobody else comes in.
    shut: Option<Shut>,
    /// It was shut in vain: until then others go on.
    open: Option<Instant>,
    /// Tells those that come in from one another.
    last: u64,
}

impl Inside {
    /// Whether somebody is alone who has not been so for too long.
    fn is_alone(&self, now: Instant) -> bool {
        self.alone.is_some_and(|(until, _)| until > now)
    }

    /// Opens the room if it was shut in vain.
    fn lapse(&mut self, now: Instant) {
        if let Some(shut) = self.shut.filter(|shut| shut.until <= now) {
            self.shut = None;
            self.open = Some(shut.until + shut.then_open);
        }
    }

    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn enter_beside(&mut self, now: Instant, until: Instant) -> Option<Entry> {
        self.lapse(now);
        if self.is_alone(now) || self.shut.is_some() {
            return None;
        }
        let number = self.number();
        self.beside.insert((until, number));
        Some(Entry::Beside(until, number))
    }

    /// Lets one in, or shuts the room so that the others leave, for at most `patience`.
    fn enter_alone(&mut self, now: Instant, patience: Duration, until: Instant) -> Option<Entry> {
        self.lapse(now);
        if self.is_alone(now) {
            return None;
        }
        if self.beside.last().is_none_or(|(until, _)| *until <= now) {
            let number = self.number();
            self.shut = None;
            self.open = None;
            self.alone = Some((until, number));
            return Some(Entry::Alone(number));
        }
        if self.shut.is_none() && self.open.is_none_or(|until| until <= now) {
            self.shut = Some(Shut {
                until: now + patience,
                then_open: patience,
            });
        }
        None
    }

    /// True: somebody may come in because of that.
    fn leave(&mut self, entry: Entry, now: Instant) -> bool {
        match entry {
            Entry::Beside(until, number) => {
                self.beside.remove(&(until, number));
                self.waiting > 0
            }
            Entry::Alone(number) if self.alone.is_some_and(|(_, alone)| alone == number) => {
                self.alone = None;
                if self.waiting > 0 {
                    // The room need not be emptied once more for the next one.
                    self.shut = Some(Shut {
                        until: now + HANDOVER,
                        then_open: Duration::ZERO,
                    });
                }
                true
            }
            Entry::Alone(_) => false,
        }
    }

    /// One waits no more to be alone.
    fn stop_waiting(&mut self) -> bool {
        self.waiting -= 1;
        self.waiting == 0 && self.shut.take().is_some()
    }

    /// When somebody may come in without anybody leaving.
    fn wake(&self, now: Instant) -> Option<Instant> {
        let times = [
            self.alone.map(|(until, _)| until),
            self.shut.map(|shut| shut.until),
            self.open,
            self.beside.last().map(|(until, _)| *until),
        ];
        times.into_iter().flatten().filter(|at| *at > now).min()
    }
}

/// How somebody is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Beside(Instant, u64),
    Alone(u64),
}

/// Being in. Dropped, one is out.
#[derive(Debug)]
pub(crate) struct Stay<'a> {
    room: &'a Room,
    entry: Entry,
}

impl Drop for Stay<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        self.room
            .inside
            .send_if_modified(|inside| inside.leave(self.entry, now));
    }
}

/// Waiting to be alone. Dropped, one does not any more.
struct Waits<'a>(&'a Room);

impl<'a> Waits<'a> {
    fn in_front_of(room: &'a Room) -> Self {
        room.inside.send_if_modified(|inside| {
            inside.waiting += 1;
            false
        });
        Self(room)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.inside.send_if_modified(Inside::stop_waiting);
    }
}

impl Room {
    /// That of this process.
    pub(crate) fn of_process() -> &'static Self {
        &OF_PROCESS
    }

    fn new() -> Self {
        Self {
            inside: watch::Sender::new(Inside::default()),
        }
    }

    /// Comes in beside others, and keeps one from being alone for at most `stay`. None: `leave` came first.
    pub(crate) async fn beside(
        &self,
        leave: &CancellationToken,
        stay: Duration,
    ) -> Option<Stay<'_>> {
        self.enter(leave, |inside, now| inside.enter_beside(now, now + stay))
            .await
    }

    /// Comes in alone, and keeps others out for at most `stay`. They are let in for a while again and again if those who are in do not
    /// leave within `patience`. None: `leave` came first.
    pub(crate) async fn alone(
        &self,
        leave: &CancellationToken,
        patience: Duration,
        stay: Duration,
    ) -> Option<Stay<'_>> {
        let _waits = Waits::in_front_of(self);
        self.enter(leave, |inside, now| {
            inside.enter_alone(now, patience, now + stay)
        })
        .await
    }

    /// Waits until one may come in.
    async fn enter(
        &self,
        leave: &CancellationToken,
        mut enter: impl FnMut(&mut Inside, Instant) -> Option<Entry>,
    ) -> Option<Stay<'_>> {
        let mut changes = self.inside.subscribe();
        loop {
            // First, so that no change is missed that comes after this look.
            drop(changes.borrow_and_update());
            let now = Instant::now();
            let (mut entry, mut wake, mut in_vain) = (None, None, false);
            self.inside.send_if_modified(|inside| {
                let open = inside.open;
                entry = enter(inside, now);
                wake = inside.wake(now);
                in_vain = inside.open != open && inside.open > Some(now);
                // Nobody may come in because one has.
                false
            });
            if in_vain {
                warn!("a message that is to be handled alone waits for handlers that do not end");
            }
            if let Some(entry) = entry {
                return Some(Stay { room: self, entry });
            }
            if leave.is_cancelled() {
                return None;
            }
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
#[path = "room_tests.rs"]
mod tests;

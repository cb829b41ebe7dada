//! The task that asks the database which types are paused, takes turns to try one of them, and lets what has waited for a type go
//! on. On its own time, whatever the loop is at: a full consumer must find out too that a type is handled again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Event;
use crate::plan::failing::{TURN, goes_on};
use crate::transaction::{PausedType, Turn};
use crate::trial::{Ended, Trial};
use crate::trouble::{chain, is_outage};
use crate::work::Workshop;

/// Between two looks, unless types are tried more often.
const EVERY: Duration = Duration::from_secs(1);

/// Between two looks while what has waited for a type is made due, a part at a time.
const WHILE_RESUMED: Duration = Duration::from_millis(200);

/// Between two looks while what is tried tells nothing: the next one is tried at once.
const AT_ONCE: Duration = Duration::from_millis(20);

/// Counting what waits may take a while: at most one part in so many of the time goes into it.
const COUNT_ONE_IN: u32 = 20;

/// How long the turns that end with the member may take to be ended in the database.
const CLOSE: Duration = Duration::from_secs(2);

/// Looks again and again until it is told to end. At most `places` types are tried at a time.
pub(super) async fn run<T>(
    shop: Arc<Workshop>,
    places: usize,
    events: UnboundedSender<Event<T>>,
    ended: CancellationToken,
) {
    let (trials, ends) = unbounded_channel();
    let mut watch = Watch {
        shop: &shop,
        places,
        events: &events,
        trials,
        in_hand: HashMap::new(),
        count_at: Instant::now(),
    };
    // A look that is dropped has done what it has done; the next one goes on from there.
    tokio::select! {
        () = ended.cancelled() => {}
        () = watch.look_for_ever(ends) => {}
    }
    // Nothing runs any more. What is not told now, others find out a while later.
    drop(tokio::time::timeout(CLOSE, watch.end_all()).await);
}

struct Watch<'a, T> {
    shop: &'a Workshop,
    places: usize,
    events: &'a UnboundedSender<Event<T>>,
    trials: UnboundedSender<Ended>,
    /// The types of which this member tries one.
    in_hand: HashMap<String, InHand>,
    count_at: Instant,
}

#[derive(Debug, Clone, Copy)]
struct InHand {
    /// Until when the database keeps the turn for us.
    until: OffsetDateTime,
    began: Instant,
    renew_at: Instant,
    /// Whether its message has told how its type does.
    told: bool,
}

impl InHand {
    fn new(until: OffsetDateTime) -> Self {
        let began = Instant::now();
        Self {
            until,
            began,
            renew_at: began + TURN / 4,
            told: false,
        }
    }
}

impl<T> Watch<'_, T> {
    async fn look_for_ever(&mut self, mut ends: UnboundedReceiver<Ended>) {
        let every = self.shop.types.settings().probe_every.min(EVERY);
        loop {
            self.shop.health.wait_until_up().await;
            let pause = match self.look().await {
                Ok(true) => every.min(WHILE_RESUMED),
                Ok(false) => every,
                Err(error) => {
                    self.tell(&error);
                    every
                }
            };
            let next = tokio::time::sleep(pause);
            tokio::pin!(next);
            loop {
                tokio::select! {
                    () = &mut next => break,
                    Some(end) = ends.recv() => {
                        self.on_ended(&end).await;
                        if !end.told {
                            let at_once = tokio::time::Instant::now() + AT_ONCE;
                            let at = next.deadline().min(at_once);
                            next.as_mut().reset(at);
                        }
                    }
                }
            }
        }
    }

    fn tell(&self, error: &sqlx::Error) {
        let text = chain(error);
        if is_outage(error) {
            self.shop.health.outage(&text);
        } else {
            warn!(error = %text, "paused types could not be looked after; will retry");
        }
    }

    /// True: more is to be made due.
    async fn look(&mut self) -> Result<bool, sqlx::Error> {
        // First of all, whatever becomes of the rest of this look.
        let types = self.shop.ask_for_paused_types().await?;
        let (resumed, paused): (Vec<_>, Vec<_>) = types.into_iter().partition(|one| one.resumed);
        let looked = self.look_after(&resumed, &paused).await;
        // Those that are held may go on.
        drop(self.events.send(Event::Types));
        looked.map(|()| !resumed.is_empty())
    }

    async fn look_after(
        &mut self,
        resumed: &[PausedType],
        paused: &[PausedType],
    ) -> Result<(), sqlx::Error> {
        // One that fails must not keep the others from their turn.
        let mut first_error = self.renew_turns().await;
        for one in paused.iter().filter(|one| one.turn) {
            if self.may_try(&one.kind) {
                first_error = first_error.and(self.turn(&one.kind).await);
            }
        }
        for one in resumed {
            first_error = first_error.and(self.let_go(&one.kind).await);
        }
        if !paused.is_empty() && Instant::now() >= self.count_at {
            let began = Instant::now();
            first_error = first_error.and(self.count().await);
            self.count_at = Instant::now() + began.elapsed() * COUNT_ONE_IN;
        }
        first_error
    }

    /// Whether this member can try a message of a type now: it has a handler for it and a place, and tries none of it yet. If not, the
    /// turn is left to others.
    fn may_try(&self, kind: &str) -> bool {
        self.shop.handles(kind)
            && self.in_hand.len() < self.places
            && !self.in_hand.contains_key(kind)
    }

    async fn turn(&mut self, kind: &str) -> Result<(), sqlx::Error> {
        let turn = self.shop.database.turn(kind).await?;
        self.shop
            .types
            .told_hungry(kind, matches!(turn, Turn::NoneWaits));
        if let Turn::Ours(line, until) = turn {
            self.in_hand.insert(kind.to_owned(), InHand::new(until));
            let trial = Trial::new(kind, self.trials.clone());
            drop(self.events.send(Event::Probe(line, trial)));
        }
        Ok(())
    }

    /// Says of the turns that go on that they do. One whose handler blocks its thread does not: others are to have their turn, but not
    /// this member, whose threads would all be blocked in the end.
    async fn renew_turns(&mut self) -> Result<(), sqlx::Error> {
        let now = Instant::now();
        for (kind, turn) in &mut self.in_hand {
            let route = self.shop.route_of(kind);
            let deadline = self.shop.settings(route).deadline;
            if turn.renew_at <= now && goes_on(now - turn.began, deadline) {
                let moved = self.shop.database.move_turn(kind, turn.until, TURN).await?;
                // One that is no longer ours has ended for the others, and ends here when its message does.
                turn.until = moved.unwrap_or(turn.until);
                turn.renew_at = now + TURN / 4;
            }
        }
        Ok(())
    }

    /// A turn has ended, however. It is in hand until that is written, so that it is written also if this is dropped.
    async fn on_ended(&mut self, end: &Ended) {
        if let Some(turn) = self.in_hand.get_mut(&end.kind) {
            turn.told = end.told;
            let turn = *turn;
            self.end(&end.kind, turn).await;
            self.in_hand.remove(&end.kind);
        }
    }

    async fn end_all(&self) {
        for (kind, turn) in &self.in_hand {
            self.end(kind, *turn).await;
        }
    }

    /// If this cannot be written, the next turn comes later.
    async fn end(&self, kind: &str, turn: InHand) {
        let after = if turn.told {
            self.shop.types.settings().probe_every
        } else {
            Duration::ZERO
        };
        let database = &self.shop.database;
        if let Err(error) = database.move_turn(kind, turn.until, after).await {
            let error = chain(&error);
            warn!(kind, %error, "the end of a try could not be written; the next one comes later");
        }
    }

    async fn let_go(&self, kind: &str) -> Result<(), sqlx::Error> {
        let database = &self.shop.database;
        if !database.make_due(kind).await? && database.forget_type(kind).await? {
            info!(kind, "what has waited for a type is due");
        }
        Ok(())
    }

    async fn count(&self) -> Result<(), sqlx::Error> {
        let limit = self.shop.types.settings().deferred;
        let count = self.shop.database.count_waiting(limit).await?;
        if count.is_none() {
            warn!(
                "the messages that wait could not be counted in time; no more are deferred for their type"
            );
        }
        self.shop.types.told_waiting(count);
        Ok(())
    }
}

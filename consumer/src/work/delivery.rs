//! One delivery, from its turn until it is settled.

use std::sync::Arc;
use std::time::{Duration, Instant};

use onceward_core::Message;
use tracing::error;

use super::told::{log_end, log_run};
use super::{Body, Job, Past, Report, SHORT, Then, Workshop, has_expired, is_doubtful, wait};
use crate::dead_letter::Letter;
use crate::handler::AnyHandler;
use crate::history::History;
use crate::line::line_of;
use crate::plan::failing::while_paused;
use crate::plan::{self, Came, DeadReason, Next, Outcome, Run, Settling, Until};
use crate::stored::Stored;
use crate::transaction::{Guard, ID_CONFLICT, Order, Place, Ran, SettleAs, ToSettle, Waiting};
use crate::trouble::{chain, is_outage};

/// When to look whether a message is due that was deferred for a type which may have been resumed meanwhile.
const IN_CASE: Duration = Duration::from_millis(500);

/// The mark is there, and is that of another message.
struct IdConflict;

/// How a delivery is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Its handler runs, beside others.
    Beside,
    /// Its handler runs, and nothing beside it.
    Alone,
    /// Its type is paused: it waits, unless it was settled before or cannot be told from one that was.
    Waits,
}

impl Workshop {
    /// Works on a delivery until it is settled, or must be left.
    pub(crate) async fn work(self: Arc<Self>, job: Job) -> Report {
        let mut then = Then::Nothing;
        let outcome = match &job.body {
            Body::Undecodable(delivery) => {
                let content = Stored::of_undecodable(delivery, &job.origin);
                let (why, reason) = (chain(&**delivery), DeadReason::Undecodable);
                self.without_handler(&job, &content, reason, &why).await
            }
            Body::Message(message) => self.message(&job, message, &mut then).await,
        };
        if let Some(outcome) = outcome {
            self.meters.settled(outcome);
        }
        Report {
            number: job.number,
            outcome,
            then,
        }
    }

    async fn message(&self, job: &Job, message: &Arc<Message>, then: &mut Then) -> Option<Outcome> {
        match self.handler(job.route) {
            Some(Some(_)) if has_expired(message, self.clock.now()) => {
                self.settle(job, SettleAs::Expired, None).await
            }
            Some(Some(handler)) => self.handle(job, message, handler, then).await,
            Some(None) => self.settle(job, SettleAs::Ignored, None).await,
            None => {
                let content = Stored::of_message(message, &job.origin);
                let why = format!("no handler for type {:?}", message.kind.as_str());
                let reason = DeadReason::NoHandler;
                self.without_handler(job, &content, reason, &why).await
            }
        }
    }

    async fn without_handler(
        &self,
        job: &Job,
        content: &Stored,
        reason: DeadReason,
        error: &str,
    ) -> Option<Outcome> {
        let letter = Letter {
            content,
            reason,
            error,
            history: &History::default(),
        };
        self.settle(job, SettleAs::Dead(letter), None).await
    }

    /// Runs the handler until the plan says what becomes of the delivery.
    async fn handle(
        &self,
        job: &Job,
        message: &Arc<Message>,
        handler: &dyn AnyHandler,
        then: &mut Then,
    ) -> Option<Outcome> {
        let settings = self.settings(job.route);
        let kind = message.kind.as_str();
        let mut past = Past::default();
        let mut turn = Turn::Beside;
        loop {
            if self.types.is_paused(kind) {
                turn = Turn::Waits;
                *then = Then::Due(IN_CASE);
            }
            let ran = self.try_once(job, message, handler, &mut past, turn).await;
            let chance = fastrand::f64();
            let mut next = plan::after_run(ran.run, past.tally, settings, Came::FromBroker, chance);
            self.learn(kind, job.mark.id, &ran).await;
            if turn != Turn::Waits && self.types.is_paused(kind) {
                next = while_paused(next);
            }
            log_run(message, &ran, past.tally, next);
            turn = if next == Next::Alone {
                Turn::Alone
            } else {
                Turn::Beside
            };
            match next {
                Next::Settled(outcome) => return Some(outcome),
                Next::Leave => return None,
                Next::Again(delay) => wait(delay, &job.leave).await?,
                Next::Pause(delay) => self.pause(&ran.error, delay, &job.leave).await?,
                Next::Defer(delay) => {
                    *then = Then::Due(delay);
                    let until = Until::After(delay);
                    return self.defer(job, message, &past, &ran.error, until).await;
                }
                // The next turn of the loop sees to it.
                Next::Alone | Next::WaitForType => {}
                Next::Expire => return self.settle(job, SettleAs::Expired, None).await,
                Next::GiveUp(reason) => {
                    return self.give_up(job, message, &past, &ran, reason).await;
                }
            }
        }
    }

    async fn try_once(
        &self,
        job: &Job,
        message: &Arc<Message>,
        handler: &dyn AnyHandler,
        past: &mut Past,
        turn: Turn,
    ) -> Ran {
        let deadline = self.settings(job.route).deadline;
        let (alone, waits) = (turn == Turn::Alone, turn == Turn::Waits);
        let _stay = if waits {
            None
        } else {
            let Some(stay) = self.come_in(alone, deadline, &job.leave).await else {
                return Ran::new(Run::Stopped, "");
            };
            Some(stay)
        };
        let order = Order {
            handler,
            message,
            mark: &job.mark,
            attempt: past.tally.attempts + 1,
            deadline,
            kill: &self.kill,
            alarm: &job.alarm,
            guard: (job.suspect && !waits).then_some(Guard {
                keeper: &self.keeper,
                alone,
                leave: &job.leave,
            }),
        };
        let keyed = message.key.is_some();
        let place = Place {
            line: keyed.then(|| line_of(message, job.mark.id)),
            in_doubt: is_doubtful(message, &job.origin, self.clock.now()),
            waits_for: waits.then(|| message.kind.as_str()),
            origin: &job.origin,
            history: &past.history,
        };
        let began = (self.clock.now(), Instant::now());
        let ran = self.database.attempt(&order, &place).await;
        self.count(past, &ran, began);
        ran
    }

    async fn defer(
        &self,
        job: &Job,
        message: &Message,
        past: &Past,
        error: &str,
        until: Until<'_>,
    ) -> Option<Outcome> {
        let waiting = Waiting {
            mark: &job.mark,
            line: line_of(message, job.mark.id),
            content: &Stored::of_message(message, &job.origin),
            attempts: past.tally.attempts,
            history: &past.history,
            error,
            until,
        };
        self.settle(job, SettleAs::Deferred(waiting), None).await
    }

    async fn give_up(
        &self,
        job: &Job,
        message: &Message,
        past: &Past,
        ran: &Ran,
        reason: DeadReason,
    ) -> Option<Outcome> {
        let content = &Stored::of_message(message, &job.origin);
        if reason == DeadReason::IdConflict {
            return self.conflict(job, content).await;
        }
        let letter = Letter {
            content,
            reason,
            error: &ran.error,
            history: &past.history,
        };
        let ended = ran.ended.as_deref();
        self.settle(job, SettleAs::Dead(letter), ended).await
    }

    /// Gives up a delivery whose id another message has, under a mark of its own.
    async fn conflict(&self, job: &Job, content: &Stored) -> Option<Outcome> {
        let settle = ToSettle {
            mark: &job.mark.of_conflict(),
            message: job.message(),
            what: SettleAs::Dead(Letter {
                content,
                reason: DeadReason::IdConflict,
                error: ID_CONFLICT,
                history: &History::default(),
            }),
            ended: None,
        };
        self.write(job, &settle).await.ok()?
    }

    /// Writes the mark without a handler, however long that takes. None: the delivery must be left.
    pub(super) async fn settle(
        &self,
        job: &Job,
        what: SettleAs<'_>,
        ended: Option<&str>,
    ) -> Option<Outcome> {
        let settle = ToSettle {
            mark: &job.mark,
            message: job.message(),
            what,
            ended,
        };
        match self.write(job, &settle).await {
            Ok(settled) => settled,
            Err(IdConflict) => match &settle.what {
                SettleAs::Dead(letter) => self.conflict(job, letter.content).await,
                SettleAs::Deferred(waiting) => self.conflict(job, waiting.content).await,
                // Nobody would have handled either of them.
                SettleAs::Ignored | SettleAs::Expired => Some(Outcome::Duplicate),
            },
        }
    }

    async fn write(&self, job: &Job, settle: &ToSettle<'_>) -> Result<Option<Outcome>, IdConflict> {
        let outcome = match &settle.what {
            SettleAs::Dead(_) => Outcome::Dead,
            SettleAs::Ignored => Outcome::Ignored,
            SettleAs::Expired => Outcome::Expired,
            SettleAs::Deferred(_) => Outcome::Deferred,
        };
        let mut failures = 0;
        loop {
            let (settling, why) = match self.database.settle(settle).await {
                Ok(settling) => (settling, String::new()),
                Err(error) if is_outage(&error) => (Settling::Outage, chain(&error)),
                Err(error) => (Settling::Failed, chain(&error)),
            };
            failures += 1;
            if failures > SHORT && !why.is_empty() {
                error!(mark = %job.mark.id, failures, error = %why, "a delivery cannot be settled; its key waits");
            }
            let goes_on = match plan::after_settling(settling, outcome, failures, fastrand::f64()) {
                Next::Settled(settled) => {
                    log_end(job, &settle.what, settled);
                    return Ok(Some(settled));
                }
                Next::Pause(delay) => self.pause(&why, delay, &job.leave).await,
                Next::Again(delay) | Next::Defer(delay) => wait(delay, &job.leave).await,
                Next::GiveUp(_) => return Err(IdConflict),
                Next::Leave | Next::Expire | Next::Alone | Next::WaitForType => {
                    return Ok(None);
                }
            };
            if goes_on.is_none() {
                return Ok(None);
            }
        }
    }
}

#[cfg(test)]
#[path = "delivery_tests.rs"]
mod tests;

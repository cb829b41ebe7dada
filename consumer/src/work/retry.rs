//! One message that has waited, from its turn until it has left its line or waits again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tracing::{debug, error, warn};
use uuid::Uuid;

use super::guard::Guarded;
use super::pause;
use super::told::log_run;
use super::{CRASHED, Errand, Past, Report, Workshop, has_expired, wait};
use crate::dead_letter::Letter;
use crate::handler::AnyHandler;
use crate::history::History;
use crate::plan::{self, Came, DeadReason, Next, Outcome, Run, Settling, Tally};
use crate::transaction::{Claimed, Order, Ran, Verdict};
use crate::trouble::chain;

/// How long a message may be looked at on the server.
const LOOK: Duration = Duration::from_secs(5);

/// When to look again after a line that somebody else works on, or that could not be worked on.
const LATER: Duration = Duration::from_millis(500);

/// What a run at a message in its line came to.
struct Attempted {
    claimed: Claimed,
    ran: Ran,
}

impl Workshop {
    /// Works on the first message of a line, once it is ours, until it has left the line or waits again.
    pub(crate) async fn retry(self: Arc<Self>, errand: Errand) -> Report {
        let mut due = Some(LATER);
        let outcome = self.first_of_line(&errand, &mut due).await;
        if let Some(outcome) = outcome {
            self.meters.settled(outcome);
        }
        Report {
            number: errand.number,
            outcome,
            due,
        }
    }

    async fn first_of_line(&self, errand: &Errand, due: &mut Option<Duration>) -> Option<Outcome> {
        let route = self.route_of(&errand.due.kind);
        let verdict = match self.handler(route) {
            Some(Some(handler)) => {
                let probe = self.types.take_probe(errand.due.line);
                if !probe && self.is_paused(&errand.due.kind).await {
                    let claimed = self.look(errand).await?;
                    return self.end(&claimed, &wait_for_type(&claimed), due).await;
                }
                let handling = self.handle_waiting(errand, handler, probe, due);
                return handling.await;
            }
            Some(None) => None,
            None => Some(format!("no handler for type {:?}", errand.due.kind)),
        };
        let claimed = self.look(errand).await?;
        let verdict = match &verdict {
            None => Verdict::Ignored,
            Some(why) => Verdict::Dead {
                letter: letter(&claimed, DeadReason::NoHandler, why, &claimed.history),
                ended: None,
            },
        };
        self.end(&claimed, &verdict, due).await
    }

    /// Runs the handler until the plan says what becomes of the message. `probe`: it is tried for all of its type.
    async fn handle_waiting(
        &self,
        errand: &Errand,
        handler: &dyn AnyHandler,
        probe: bool,
        due: &mut Option<Duration>,
    ) -> Option<Outcome> {
        let kind = errand.due.kind.as_str();
        let settings = self.settings(self.route_of(kind));
        let mut tally = Tally::default();
        loop {
            let began = (OffsetDateTime::now_utc(), Instant::now());
            let attempted = self.claim_and_try(errand, handler, settings.deadline);
            let Attempted { claimed, ran } = attempted.await?;
            let mut past = past_of(&claimed, tally);
            self.count(&mut past, &ran, began);
            tally = past.tally;
            let chance = fastrand::f64();
            let next = plan::after_run(ran.run, tally, settings, Came::FromRetries, chance);
            log_run(&claimed.message, &ran, tally, next);
            self.learn(kind, claimed.mark.id, &ran).await;
            if probe && ran.run == Run::Handled {
                self.resume(kind).await;
            }
            let verdict = match next {
                // It was tried for all of its type: that is no attempt of its own.
                Next::Defer(_) | Next::GiveUp(DeadReason::Attempts) if probe => {
                    wait_for_type(&claimed)
                }
                Next::Settled(outcome) => {
                    *due = ran.next;
                    return Some(outcome);
                }
                Next::Leave => return None,
                Next::Again(delay) => {
                    wait(delay, &errand.leave).await?;
                    continue;
                }
                Next::Pause(_) => {
                    // It is in the database, and found there when that answers.
                    self.health.outage(&ran.error);
                    return None;
                }
                Next::Defer(delay) => Verdict::PutOff {
                    delay,
                    attempts: tally.attempts,
                    history: &past.history,
                    error: &ran.error,
                    paused: None,
                },
                Next::Expire => Verdict::Expired,
                Next::GiveUp(reason) => Verdict::Dead {
                    letter: letter(&claimed, reason, &ran.error, &past.history),
                    ended: ran.ended.as_deref(),
                },
            };
            let ended = self.end(&claimed, &verdict, due).await;
            if ran.run == Run::Crashed {
                self.unguard(&claimed.mark, Some(self.member)).await;
            }
            return ended;
        }
    }

    /// Claims the message and runs its handler. None: it is not there for us, or its type is not what was said.
    async fn claim_and_try(
        &self,
        errand: &Errand,
        handler: &dyn AnyHandler,
        deadline: Duration,
    ) -> Option<Attempted> {
        // Nobody knows what came of earlier attempts: each is a suspect.
        let mark = errand.due.mark();
        let guarded = match self.guard(&mark, true, &errand.leave).await {
            Guarded::Run(guarded) => guarded,
            Guarded::Crashed => {
                let claimed = self.look(errand).await?;
                let ran = Ran::new(Run::Crashed, CRASHED);
                return Some(Attempted { claimed, ran });
            }
            Guarded::Left => return None,
            Guarded::Outage(error) => {
                self.health.outage(&error);
                return None;
            }
        };
        let attempted = self.attempt_claimed(errand, handler, deadline, guarded.started);
        let attempted = attempted.await;
        let handled = attempted
            .as_ref()
            .is_some_and(|one| one.ran.run == Run::Handled);
        if !handled {
            self.unguard(&mark, guarded.started).await;
        }
        attempted
    }

    async fn attempt_claimed(
        &self,
        errand: &Errand,
        handler: &dyn AnyHandler,
        deadline: Duration,
        started: Option<Uuid>,
    ) -> Option<Attempted> {
        let claimed = self.database.claim(errand.due.line, deadline).await;
        let (session, claimed) = self.claimed(errand, claimed)?;
        if has_expired(&claimed.message) {
            drop(session.roll_back(Duration::from_secs(1)).await);
            let ran = Ran::new(Run::Expired, "");
            return Some(Attempted { claimed, ran });
        }
        let order = Order {
            handler,
            message: &claimed.message,
            mark: &claimed.mark,
            attempt: claimed.attempts + 1,
            deadline,
            kill: &self.kill,
            alarm: &errand.alarm,
            started,
        };
        let ran = self.database.retry(&order, session, &claimed).await;
        Some(Attempted { claimed, ran })
    }

    /// Claims the message and lets it go again, to settle it without a handler.
    async fn look(&self, errand: &Errand) -> Option<Claimed> {
        let claimed = self.database.claim(errand.due.line, LOOK).await;
        let (session, claimed) = self.claimed(errand, claimed)?;
        drop(session.roll_back(Duration::from_secs(1)).await);
        Some(claimed)
    }

    fn claimed<T>(
        &self,
        errand: &Errand,
        claimed: Result<Option<(T, Claimed)>, sqlx::Error>,
    ) -> Option<(T, Claimed)> {
        match claimed {
            Ok(Some((session, claimed))) => {
                let same = claimed.mark.id == errand.due.message_id
                    && claimed.message.kind.as_str() == errand.due.kind;
                // Dropped, the session ends the transaction.
                same.then_some((session, claimed))
            }
            Ok(None) => None,
            Err(error) => {
                self.health.outage(&chain(&error));
                None
            }
        }
    }

    /// Writes what becomes of a message without its handler. None: it waits as before.
    async fn end(
        &self,
        claimed: &Claimed,
        verdict: &Verdict<'_>,
        due: &mut Option<Duration>,
    ) -> Option<Outcome> {
        let outcome = match verdict {
            Verdict::Dead { .. } => Some(Outcome::Dead),
            Verdict::Ignored => Some(Outcome::Ignored),
            Verdict::Expired => Some(Outcome::Expired),
            // It was deferred before, and still is.
            Verdict::PutOff { .. } => None,
        };
        let mark = claimed.mark.id;
        match self.database.settle_claimed(claimed, verdict).await {
            Ok((Settling::Written, next)) => {
                *due = next;
                match verdict {
                    Verdict::Dead { letter, .. } => {
                        warn!(%mark, reason = letter.reason.code(), "dead letter");
                    }
                    Verdict::Ignored | Verdict::Expired | Verdict::PutOff { .. } => {
                        debug!(%mark, ?outcome, "settled without a handler");
                    }
                }
                outcome
            }
            Ok((Settling::Duplicate, next)) => {
                *due = next;
                Some(Outcome::Duplicate)
            }
            Ok((Settling::IdConflict | Settling::Elsewhere | Settling::Failed, _)) => None,
            Err(error) => {
                let error = chain(&error);
                error!(%mark, %error, "a message that waits cannot be settled; its key waits");
                self.health.outage(&error);
                None
            }
        }
    }
}

/// Its attempts as they were counted in the database, and what `tally` knows of this turn.
fn past_of(claimed: &Claimed, tally: Tally) -> Past {
    Past {
        tally: Tally {
            attempts: claimed.attempts,
            forgiven: claimed.forgiven,
            ..tally
        },
        history: claimed.history.clone(),
    }
}

/// It waits with all of its type, without an attempt.
fn wait_for_type(claimed: &Claimed) -> Verdict<'_> {
    Verdict::PutOff {
        delay: pause::WAIT,
        attempts: claimed.attempts,
        history: &claimed.history,
        error: pause::PAUSED,
        paused: Some(claimed.message.kind.as_str()),
    }
}

fn letter<'a>(
    claimed: &'a Claimed,
    reason: DeadReason,
    error: &'a str,
    history: &'a History,
) -> Letter<'a> {
    Letter {
        content: &claimed.content,
        reason,
        error,
        history,
    }
}

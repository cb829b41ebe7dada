//! One message that has waited, from its turn until it has left its line or waits again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{debug, error, warn};

use super::told::log_run;
use super::{DueJob, Past, Report, SHORT, Then, Workshop, has_expired, wait};
use crate::HandlerSettings;
use crate::dead_letter::Letter;
use crate::handler::AnyHandler;
use crate::history::History;
use crate::plan::failing::{after_probe, while_paused};
use crate::plan::{self, Came, DeadReason, LEASE, Next, OUTAGE, Outcome, Run, Settling, Tally};
use crate::room::Stay;
use crate::session::Session;
use crate::transaction::{Claimed, DueLine, Follower, Guard, Order, Ran, Verdict};
use crate::trouble::{chain, is_outage};

/// How long a message may be looked at on the server.
const LOOK: Duration = Duration::from_secs(5);

/// When to look again after a line that somebody else works on, or that could not be worked on.
const LATER: Duration = Duration::from_millis(500);

/// How long a message waits for its next run if the database refuses to take what became of it.
const REFUSED: Duration = Duration::from_secs(10);

/// What a run at a message in its line came to.
struct Attempted {
    claimed: Claimed,
    ran: Ran,
}

impl Then {
    /// The first of the line is due after this long; none: the line has ended.
    fn due(due: Option<Duration>) -> Self {
        due.map_or(Self::Nothing, Self::Due)
    }

    /// A message has left the line.
    fn follows(line: &DueLine, follower: Option<Follower>) -> Self {
        match follower {
            Some(Follower {
                kind, ours: true, ..
            }) => Self::GoesOn(line.again(kind)),
            follower => Self::due(follower.map(|follower| follower.due)),
        }
    }
}

impl Workshop {
    /// Works on the first message of a line, once it is ours, until it has left the line or waits again.
    pub(crate) async fn retry(self: Arc<Self>, job: DueJob) -> Report {
        let mut then = Then::Due(LATER);
        let outcome = self.first_of_line(&job, &mut then).await;
        if let Some(outcome) = outcome {
            self.meters.settled(outcome);
        }
        Report {
            number: job.number,
            outcome,
            then,
        }
    }

    async fn first_of_line(&self, job: &DueJob, then: &mut Then) -> Option<Outcome> {
        let route = self.route_of(&job.due.kind);
        let verdict = match self.handler(route) {
            Some(Some(handler)) => {
                let kind = job.due.kind.as_str();
                if job.trial.is_none() && self.types.is_paused(kind) {
                    let claimed = self.look(job).await?;
                    let verdict = if has_expired(&claimed.message, self.clock.now()) {
                        Verdict::Expired
                    } else {
                        Verdict::WaitForType { kind, tried: false }
                    };
                    return self.end(job, &claimed, &verdict, then).await;
                }
                return self.handle_waiting(job, route, handler, then).await;
            }
            Some(None) => None,
            None => Some(format!("no handler for type {:?}", job.due.kind)),
        };
        let claimed = self.look(job).await?;
        let verdict = match &verdict {
            None => Verdict::Ignored,
            Some(why) => Verdict::Dead {
                letter: letter(&claimed, DeadReason::NoHandler, why, &claimed.history),
                ended: None,
            },
        };
        self.end(job, &claimed, &verdict, then).await
    }

    /// Runs the handler until the plan says what becomes of the message.
    async fn handle_waiting(
        &self,
        job: &DueJob,
        route: Option<usize>,
        handler: &dyn AnyHandler,
        then: &mut Then,
    ) -> Option<Outcome> {
        let settings = self.settings(route);
        let mut tally = Tally::default();
        let mut alone = false;
        loop {
            let began = (self.clock.now(), Instant::now());
            let attempted = self.claim_and_try(job, handler, settings.deadline, alone);
            let Attempted { claimed, ran } = attempted.await?;
            let mut past = Past {
                tally: Tally {
                    attempts: claimed.attempts,
                    forgiven: claimed.forgiven,
                    ..tally
                },
                history: claimed.history.clone(),
            };
            self.count(&mut past, &ran, began);
            tally = past.tally;
            self.learn_from(job, &claimed, &ran).await;
            let next = self.next(job, settings, ran.run, tally);
            log_run(&claimed.message, &ran, tally, next);
            alone = next == Next::Alone;
            let verdict = match next {
                Next::Settled(outcome) => {
                    *then = Then::follows(&job.due, ran.next);
                    return Some(outcome);
                }
                Next::Leave => return None,
                Next::Again(delay) => {
                    wait(delay, &job.leave).await?;
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
                },
                Next::Alone => continue,
                Next::WaitForType => Verdict::WaitForType {
                    kind: &job.due.kind,
                    tried: job.trial.is_some(),
                },
                Next::Expire => Verdict::Expired,
                Next::GiveUp(reason) => Verdict::Dead {
                    letter: letter(&claimed, reason, &ran.error, &past.history),
                    ended: ran.ended.as_deref(),
                },
            };
            return self.end(job, &claimed, &verdict, then).await;
        }
    }

    /// What becomes of the message after a run.
    fn next(&self, job: &DueJob, settings: &HandlerSettings, run: Run, tally: Tally) -> Next {
        let next = plan::after_run(run, tally, settings, Came::FromRetries, fastrand::f64());
        if job.trial.is_some() {
            after_probe(run, next)
        } else if self.types.is_paused(&job.due.kind) {
            while_paused(next)
        } else {
            next
        }
    }

    async fn learn_from(&self, job: &DueJob, claimed: &Claimed, ran: &Ran) {
        let kind = &job.due.kind;
        match &job.trial {
            Some(trial) => self.learn_from_probe(kind, trial, ran).await,
            None => self.learn(kind, claimed.mark.id, ran).await,
        }
    }

    /// Claims the message and runs its handler. None: it is not there for us, or its type is not what was said.
    async fn claim_and_try(
        &self,
        job: &DueJob,
        handler: &dyn AnyHandler,
        deadline: Duration,
        alone: bool,
    ) -> Option<Attempted> {
        // If that is in vain, the line is found again when it is due again.
        let _stay = self.come_in_for(job, deadline, alone).await?;
        let claimed = self.database.claim(&job.due, deadline).await;
        let (session, claimed) = self.claimed(job, claimed).await?;
        if has_expired(&claimed.message, self.clock.now()) {
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
            alarm: &job.alarm,
            // Nobody knows what came of earlier attempts.
            guard: Some(Guard {
                keeper: &self.keeper,
                alone,
                leave: &job.leave,
            }),
        };
        let ran = self.database.retry(&order, session, &claimed).await;
        Some(Attempted { claimed, ran })
    }

    /// Claims the message and lets it go again, to settle it without a handler.
    async fn look(&self, job: &DueJob) -> Option<Claimed> {
        let claimed = self.database.claim(&job.due, LOOK).await;
        let (session, claimed) = self.claimed(job, claimed).await?;
        drop(session.roll_back(Duration::from_secs(1)).await);
        Some(claimed)
    }

    /// Waits for leave to run, as a delivery does. The line stays ours meanwhile: each member that took it would keep its other
    /// handlers out for it as well.
    async fn come_in_for(&self, job: &DueJob, deadline: Duration, alone: bool) -> Option<Stay<'_>> {
        let come_in = self.come_in(alone, deadline, &job.leave);
        if !alone {
            return come_in.await;
        }
        tokio::select! {
            biased;
            stay = come_in => stay,
            () = self.keep_lease(job) => None,
        }
    }

    /// Never ends.
    async fn keep_lease(&self, job: &DueJob) {
        let mut renew = tokio::time::interval(LEASE / 3);
        loop {
            renew.tick().await;
            self.lease(job, LEASE).await;
        }
    }

    /// If this cannot be written, others find the line later, or sooner.
    async fn lease(&self, job: &DueJob, lasts: Duration) {
        let line = job.due.line;
        if let Err(error) = self.database.lease(line, lasts).await {
            debug!(%line, error = %chain(&error), "the lease of a line could not be moved");
        }
    }

    async fn claimed(
        &self,
        job: &DueJob,
        claimed: Result<Option<(Session, Claimed)>, sqlx::Error>,
    ) -> Option<(Session, Claimed)> {
        match claimed {
            Ok(Some((session, claimed))) => {
                if claimed.message.kind.as_str() == job.due.kind {
                    return Some((session, claimed));
                }
                drop(session.roll_back(Duration::from_secs(1)).await);
                // It is taken up again as what it is.
                self.lease(job, Duration::ZERO).await;
                None
            }
            Ok(None) => None,
            // All of them are in use: that is no outage, and the line is due again soon.
            Err(sqlx::Error::PoolTimedOut) => None,
            Err(error) if is_outage(&error) => {
                self.health.outage(&chain(&error));
                None
            }
            Err(error) => {
                let (line, error) = (job.due.line, chain(&error));
                error!(%line, %error, "a message that waits cannot be claimed; its key waits");
                None
            }
        }
    }

    /// Writes what becomes of a message without its handler. None: it waits as before.
    ///
    /// What the database refuses is tried again a few times. Then it gives up its place for a while, as it would keep others from theirs:
    /// after that the handler may run once more.
    async fn end(
        &self,
        job: &DueJob,
        claimed: &Claimed,
        verdict: &Verdict<'_>,
        then: &mut Then,
    ) -> Option<Outcome> {
        let mark = claimed.mark.id;
        let mut failures = 0;
        let (settling, next) = loop {
            let error = match self.database.settle_claimed(claimed, verdict).await {
                Ok(settled) => break settled,
                Err(error) if is_outage(&error) => {
                    // It is in the database, and found there when that answers.
                    self.health.outage(&chain(&error));
                    return None;
                }
                Err(error) => chain(&error),
            };
            failures += 1;
            if failures > SHORT {
                error!(%mark, failures, %error, "a message that waits cannot be settled; its key waits");
                self.lease(job, REFUSED).await;
                *then = Then::Due(REFUSED);
                return None;
            }
            self.wait_in_line(job, OUTAGE.delay(failures, fastrand::f64()))
                .await?;
        };
        match settling {
            Settling::Written => {
                *then = Then::due(next);
                self.on_written(claimed, verdict, next)
            }
            Settling::Duplicate => {
                *then = Then::due(next);
                Some(Outcome::Duplicate)
            }
            Settling::IdConflict | Settling::Elsewhere | Settling::Outage | Settling::Failed => {
                None
            }
        }
    }

    /// Waits while the line stays ours, as far as the database takes that: others would run the handler once more. None: it must be left.
    async fn wait_in_line(&self, job: &DueJob, delay: Duration) -> Option<()> {
        let until = Instant::now() + delay;
        let stay = async {
            while Instant::now() < until {
                self.lease(job, LEASE).await;
                let left = until.saturating_duration_since(Instant::now());
                tokio::time::sleep(left.min(LEASE / 3)).await;
            }
        };
        tokio::select! {
            biased;
            () = job.leave.cancelled() => None,
            () = stay => Some(()),
        }
    }

    /// A verdict is written; `next`: when the first of the line is due. Gives how the message was settled.
    fn on_written(
        &self,
        claimed: &Claimed,
        verdict: &Verdict<'_>,
        next: Option<Duration>,
    ) -> Option<Outcome> {
        let mark = claimed.mark.id;
        let outcome = match verdict {
            Verdict::Dead { letter, .. } => {
                warn!(%mark, reason = letter.reason.code(), "dead letter");
                return Some(Outcome::Dead);
            }
            // Its line waits for nothing: its type is handled again, and this member has not heard of it yet.
            Verdict::WaitForType { kind, .. } if next == Some(Duration::ZERO) => {
                self.types.resumed(kind);
                return None;
            }
            Verdict::Ignored => Some(Outcome::Ignored),
            Verdict::Expired => Some(Outcome::Expired),
            // It was deferred before, and still is.
            Verdict::PutOff { .. } | Verdict::WaitForType { .. } => None,
        };
        debug!(%mark, ?outcome, "settled without a handler");
        outcome
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

#[cfg(test)]
#[path = "retry_tests.rs"]
mod tests;

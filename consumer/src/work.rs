//! One delivery, from its turn until it is settled: runs, waits, and runs again, as the plan says.

use std::sync::Arc;
use std::time::{Duration, Instant};

use onceward_core::{Message, Origin, Undecodable};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::HandlerSettings;
use crate::alarm::Alarm;
use crate::dead_letter::{Content, Letter};
use crate::handler::AnyHandler;
use crate::health::Health;
use crate::history::History;
use crate::mark::Mark;
use crate::meters::Meters;
use crate::plan::{self, DeadReason, Next, Outcome, Run, Settling, Tally};
use crate::router::{Route, choose};
use crate::transaction::{Database, Order, Ran, ToSettle};
use crate::trouble::chain;

/// What all deliveries share.
#[derive(Debug)]
pub(crate) struct Workshop {
    pub(crate) database: Database,
    pub(crate) routes: Vec<Route>,
    pub(crate) defaults: HandlerSettings,
    pub(crate) health: Health,
    pub(crate) meters: Meters,
    /// Ends handlers at the end of the grace.
    pub(crate) kill: CancellationToken,
}

/// What was delivered.
#[derive(Debug)]
pub(crate) enum Body {
    Message(Arc<Message>),
    Undecodable(Box<Undecodable>),
}

/// A delivery whose turn has come.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) number: u64,
    pub(crate) body: Body,
    pub(crate) mark: Mark,
    pub(crate) origin: Origin,
    pub(crate) route: Option<usize>,
    /// Ends its waits: nothing new is started of it.
    pub(crate) leave: CancellationToken,
    /// Rings when an attempt does not end at its deadline.
    pub(crate) alarm: Alarm,
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) number: u64,
    /// None: it is not settled and comes again.
    pub(crate) outcome: Option<Outcome>,
}

/// How settling without a handler is to end.
struct Ending<'a> {
    letter: Option<Letter<'a>>,
    /// The transaction that the handler ended by itself.
    ended: Option<String>,
}

impl Workshop {
    pub(crate) fn route_of(&self, message: &Message) -> Option<usize> {
        choose(&self.routes, message.kind.as_str())
    }

    pub(crate) fn settings(&self, route: Option<usize>) -> &HandlerSettings {
        route
            .and_then(|place| self.routes.get(place))
            .and_then(|route| route.settings.as_ref())
            .unwrap_or(&self.defaults)
    }

    /// Works on a delivery until it is settled, or must be left.
    pub(crate) async fn work(self: Arc<Self>, job: Job) -> Report {
        let outcome = match &job.body {
            Body::Undecodable(delivery) => {
                let history = History::default();
                let content = Content::Undecodable(delivery);
                let why = chain(&**delivery);
                let letter = letter(&job, content, DeadReason::Undecodable, why, &history);
                self.settle(&job, letter).await
            }
            Body::Message(message) => self.message(&job, message).await,
        };
        if let Some(outcome) = outcome {
            self.meters.settled(outcome);
        }
        Report {
            number: job.number,
            outcome,
        }
    }

    async fn message(&self, job: &Job, message: &Arc<Message>) -> Option<Outcome> {
        let route = job.route.and_then(|place| self.routes.get(place));
        match route.map(|route| &route.handler) {
            Some(Some(handler)) => self.handle(job, message, &**handler).await,
            Some(None) => {
                let ignored = Ending {
                    letter: None,
                    ended: None,
                };
                self.settle(job, ignored).await
            }
            None => {
                let history = History::default();
                let why = format!("no handler for type {:?}", message.kind.as_str());
                let content = Content::Message(message);
                let letter = letter(job, content, DeadReason::NoHandler, why, &history);
                self.settle(job, letter).await
            }
        }
    }

    /// Runs the handler until the plan says what becomes of the delivery.
    async fn handle(
        &self,
        job: &Job,
        message: &Arc<Message>,
        handler: &dyn AnyHandler,
    ) -> Option<Outcome> {
        let settings = self.settings(job.route);
        let mut tally = Tally::default();
        let mut history = History::default();
        loop {
            let order = Order {
                handler,
                message,
                mark: &job.mark,
                attempt: tally.attempts + 1,
                deadline: settings.deadline,
                kill: &self.kill,
                alarm: &job.alarm,
            };
            let at = OffsetDateTime::now_utc();
            let began = Instant::now();
            let ran = self.database.attempt(&order).await;
            let took = began.elapsed();
            self.meters.ran(took);
            let before = tally.attempts;
            tally = tally.count(ran.run);
            if tally.attempts > before {
                self.meters.failed();
                history.add(tally.attempts, at, took, ran.error.clone());
            }
            let next = plan::after_run(ran.run, tally, settings, fastrand::f64());
            log_run(message, &ran, tally, next);
            match next {
                Next::Settled(outcome) => return Some(outcome),
                Next::Leave => return None,
                Next::Again(delay) => wait(delay, &job.leave).await?,
                Next::Pause(delay) => self.pause(&ran.error, delay, &job.leave).await?,
                Next::GiveUp(reason) => {
                    let content = Content::Message(message);
                    let mut ending = letter(job, content, reason, ran.error, &history);
                    ending.ended = ran.ended;
                    return self.settle(job, ending).await;
                }
            }
        }
    }

    /// Writes the mark without a handler, however long that takes. None: the delivery must be left.
    async fn settle(&self, job: &Job, ending: Ending<'_>) -> Option<Outcome> {
        let outcome = match &ending.letter {
            Some(_) => Outcome::Dead,
            None => Outcome::Ignored,
        };
        let what = ToSettle {
            mark: &job.mark,
            letter: ending.letter.as_ref(),
            ended: ending.ended.as_deref(),
        };
        let mut failures = 0;
        loop {
            let (settling, why) = match self.database.settle(&what).await {
                Ok(settling) => (settling, String::new()),
                Err(error) => (Settling::Failed, chain(&error)),
            };
            failures += 1;
            match plan::after_settling(settling, outcome, failures, fastrand::f64()) {
                Next::Settled(settled) => {
                    log_end(job, &ending, settled);
                    return Some(settled);
                }
                Next::Pause(delay) | Next::Again(delay) => {
                    if failures > 3 {
                        error!(mark = %job.mark.id, failures, error = %why, "a delivery cannot be settled; its key waits");
                    }
                    self.pause(&why, delay, &job.leave).await?;
                }
                Next::Leave | Next::GiveUp(_) => return None,
            }
        }
    }

    /// Waits out an outage. None: the delivery must be left.
    async fn pause(&self, error: &str, delay: Duration, leave: &CancellationToken) -> Option<()> {
        self.health.outage(error);
        wait(delay, leave).await?;
        tokio::select! {
            biased;
            () = leave.cancelled() => None,
            () = self.health.wait_until_up() => Some(()),
        }
    }
}

/// Waits. None: the delivery must be left.
async fn wait(delay: Duration, leave: &CancellationToken) -> Option<()> {
    tokio::select! {
        biased;
        () = leave.cancelled() => None,
        () = tokio::time::sleep(delay) => Some(()),
    }
}

fn letter<'a>(
    job: &'a Job,
    content: Content<'a>,
    reason: DeadReason,
    error: String,
    history: &'a History,
) -> Ending<'a> {
    Ending {
        letter: Some(Letter {
            content,
            origin: &job.origin,
            reason,
            error,
            history,
        }),
        ended: None,
    }
}

fn log_run(message: &Message, ran: &Ran, tally: Tally, next: Next) {
    let id = &message.id;
    match ran.run {
        Run::Handled | Run::Duplicate => debug!(%id, run = ?ran.run, "settled"),
        // The error may tell of the payload: it stands in the dead letter, not here.
        Run::Failed(crate::handler::Verdict::Payload) => {
            warn!(%id, kind = %message.kind, "the payload is not what the handler expects");
        }
        Run::Failed(_) | Run::Ended => {
            warn!(%id, kind = %message.kind, attempt = tally.attempts, ?next, error = %ran.error, "the handler failed");
        }
        Run::Conflict | Run::Elsewhere | Run::Outage | Run::Stopped => {
            info!(%id, run = ?ran.run, ?next, error = %ran.error, "not settled yet");
        }
    }
}

fn log_end(job: &Job, ending: &Ending<'_>, settled: Outcome) {
    let reason = ending.letter.as_ref().map(|letter| letter.reason.code());
    match settled {
        Outcome::Dead => {
            warn!(mark = %job.mark.id, partition = %job.origin.partition, position = job.origin.position, reason, "dead letter");
        }
        Outcome::Handled | Outcome::Duplicate | Outcome::Ignored => {
            debug!(mark = %job.mark.id, ?settled, "settled without a handler");
        }
    }
}

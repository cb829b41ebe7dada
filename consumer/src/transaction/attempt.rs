//! One attempt: mark, handler, proof, commit.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use onceward_core::Message;
use tokio_util::sync::CancellationToken;

use super::mark::Proof;
use super::{COMMIT, Database, Marked, within};
use crate::alarm::Alarm;
use crate::faults::{Failpoint, Fault, pass, planted};
use crate::handler::{AnyHandler, HandlerError, Verdict};
use crate::mark::Mark;
use crate::plan::Run;
use crate::session::Session;
use crate::trouble::{Trouble, chain, classify, database_error};
use crate::tx::Tx;

/// How much longer than its deadline a handler may take before it is said to block its thread.
const OVERDUE: Duration = Duration::from_secs(5);

/// How long a rollback may take; after that the connection is closed.
const ROLL_BACK: Duration = Duration::from_secs(1);

/// The outcome of a mark whose handler has returned.
pub(super) const HANDLED: i16 = 0;

/// What is to be run.
pub(crate) struct Order<'a> {
    pub(crate) handler: &'a dyn AnyHandler,
    pub(crate) message: &'a Arc<Message>,
    pub(crate) mark: &'a Mark,
    /// Counted from 1.
    pub(crate) attempt: u32,
    pub(crate) deadline: Duration,
    /// Ends the handler as its deadline would, without an attempt.
    pub(crate) kill: &'a CancellationToken,
    /// Rings when the handler does not end at its deadline.
    pub(crate) alarm: &'a Alarm,
}

/// What an attempt came to, with its error for people.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) run: Run,
    pub(crate) error: String,
    /// The transaction that the handler ended by itself.
    pub(crate) ended: Option<String>,
}

impl Ran {
    fn new(run: Run, error: impl Into<String>) -> Self {
        Self {
            run,
            error: error.into(),
            ended: None,
        }
    }
}

/// How the handler's future ended.
#[derive(Debug)]
pub(super) enum Ended {
    Done,
    Failed(HandlerError),
    Panicked(String),
    Deadline,
    Killed,
}

impl Ended {
    /// A handler that blocks its thread finds its connection gone when it goes on at last: the server has ended it for
    /// being idle. That was its deadline and no outage; it would never cost an attempt.
    fn in_time(self, deadline: Instant) -> Self {
        if self.trouble() == Some(Trouble::Outage) && Instant::now() >= deadline {
            Self::Deadline
        } else {
            self
        }
    }

    /// What the database said, if the handler failed by that.
    fn trouble(&self) -> Option<Trouble> {
        match self {
            Self::Failed(error) => database_error(&*error.error).map(classify),
            Self::Done | Self::Panicked(_) | Self::Deadline | Self::Killed => None,
        }
    }
}

impl Database {
    /// Runs the handler once, in the transaction of the mark.
    pub(crate) async fn attempt(&self, order: &Order<'_>) -> Ran {
        #[cfg(feature = "faults")]
        if planted(Fault::DedupeOutside) {
            return self.attempt_with_dedupe_outside(order).await;
        }
        let mut session = match self.begin(order.deadline).await {
            Ok(session) => session,
            Err(error) => return Ran::new(Run::Outage, chain(&error)),
        };
        pass(Failpoint::BeforeMark);
        let inserted = self
            .insert_mark(session.connection(), order.mark, HANDLED, order.deadline)
            .await;
        let marked = match inserted {
            Ok(Some(marked)) => marked,
            Ok(None) => {
                session.roll_back(ROLL_BACK).await;
                return Ran::new(Run::Duplicate, "");
            }
            Err(error) => {
                session.roll_back(ROLL_BACK).await;
                return Ran::new(without_mark(classify(&error)), chain(&error));
            }
        };
        let deadline = Instant::now() + order.deadline;
        let (session, ended) = handle(order, session, deadline).await;
        pass(Failpoint::AfterHandler);
        let (session, ended) = match ended {
            Ended::Done => match self.finish(order, session, &marked).await {
                Ok(ran) => return ran,
                Err((session, error)) => (session, Ended::Failed(error)),
            },
            Ended::Failed(_) | Ended::Panicked(_) | Ended::Deadline | Ended::Killed => {
                (session, ended)
            }
        };
        self.undo(order, session, &marked, ended.in_time(deadline))
            .await
    }

    /// Proves the mark and commits. An error is to be undone.
    async fn finish(
        &self,
        order: &Order<'_>,
        mut session: Session,
        marked: &Marked,
    ) -> Result<Ran, (Session, HandlerError)> {
        if session.has_savepoint() {
            let error = HandlerError::from("the handler has left a savepoint open");
            return Err((session, error));
        }
        if !planted(Fault::CommitWithoutProof) {
            let proof = self
                .prove(session.connection(), order.mark, marked, order.deadline)
                .await;
            let error = match proof {
                Ok(Proof::Ours) => None,
                Ok(Proof::NotOurs) => {
                    session.roll_back(ROLL_BACK).await;
                    return Ok(ended_by_handler(marked));
                }
                Err(error) if classify(&error) == Trouble::Aborted => Some(HandlerError::from(
                    "a statement failed and the handler went on",
                )),
                Err(error) => Some(HandlerError::from(error)),
            };
            if let Some(error) = error {
                return Err((session, error));
            }
        }
        pass(Failpoint::BeforeCommit);
        Ok(match within(COMMIT, session.commit()).await {
            Ok(()) => Ran::new(Run::Handled, ""),
            Err(error) => Ran::new(after_commit(classify(&error)), chain(&error)),
        })
    }

    /// Ends the transaction on the server, and tells what the attempt came to.
    async fn undo(
        &self,
        order: &Order<'_>,
        session: Session,
        marked: &Marked,
        ended: Ended,
    ) -> Ran {
        let mut reached = None;
        if matches!(ended, Ended::Deadline | Ended::Killed) {
            reached = Some(self.cancel(marked).await.is_ok());
        }
        let rolled_back = session.roll_back(ROLL_BACK).await;
        let clean = rolled_back.is_some();
        if let Some(mut session) = rolled_back {
            let connection = session.connection();
            // Only one who is asked can know; if the answer is lost, the next attempt's conflict decides.
            if let Ok(true) = self.left_its_mark(connection, order.mark, marked).await {
                return ended_by_handler(marked);
            }
        } else if reached.is_none() {
            // A query that the handler has dropped may still run and hold the mark.
            reached = Some(self.cancel(marked).await.is_ok());
        }
        let error = describe(&ended, order.deadline);
        Ran::new(after_undo(&ended, clean, reached != Some(false)), error)
    }
}

fn ended_by_handler(marked: &Marked) -> Ran {
    Ran {
        ended: Some(marked.xid.clone()),
        ..Ran::new(
            Run::Ended,
            "the handler has ended the transaction by itself (SQL commit or rollback)",
        )
    }
}

/// Runs the handler until it ends, its deadline comes, or the consumer cannot wait any longer.
pub(super) async fn handle(
    order: &Order<'_>,
    session: Session,
    deadline: Instant,
) -> (Session, Ended) {
    let mut tx = Tx {
        session,
        message: order.message.clone(),
        mark: order.mark.id,
        attempt: order.attempt,
        deadline,
    };
    let call = async { order.handler.call(order.message, &mut tx).await };
    let caught = AssertUnwindSafe(call).catch_unwind();
    order.alarm.set(order.deadline + OVERDUE);
    let ended = tokio::select! {
        biased;
        ended = tokio::time::timeout_at(deadline.into(), caught) => match ended {
            Ok(Ok(Ok(()))) => Ended::Done,
            Ok(Ok(Err(error))) => Ended::Failed(error),
            Ok(Err(panic)) => Ended::Panicked(panic_text(&*panic)),
            Err(_) => Ended::Deadline,
        },
        () = order.kill.cancelled() => Ended::Killed,
    };
    order.alarm.clear();
    (tx.session, ended)
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    let text = text.unwrap_or_else(|| "a panic without a text".to_owned());
    crate::trouble::clean(&format!("the handler panicked: {text}"))
}

fn describe(ended: &Ended, deadline: Duration) -> String {
    match ended {
        Ended::Done => String::new(),
        Ended::Failed(error) => chain(&*error.error),
        Ended::Panicked(text) => text.clone(),
        Ended::Deadline => format!("the handler did not end within its deadline of {deadline:?}"),
        Ended::Killed => "the consumer stopped while the handler ran".to_owned(),
    }
}

/// What an error before the handler means. The message has no part in it, so it never costs an attempt.
pub(super) fn without_mark(trouble: Trouble) -> Run {
    match trouble {
        Trouble::TimedOut => Run::Elsewhere,
        Trouble::Conflict => Run::Conflict,
        Trouble::Outage | Trouble::Aborted | Trouble::Other => Run::Outage,
    }
}

/// What an error of COMMIT means. Without the server's word nobody knows whether it was committed: the mark tells.
fn after_commit(trouble: Trouble) -> Run {
    match trouble {
        Trouble::Conflict => Run::Conflict,
        Trouble::Outage => Run::Outage,
        // A deferred constraint, most likely: the server has rolled back and says why.
        Trouble::TimedOut | Trouble::Aborted | Trouble::Other => Run::Failed(Verdict::Retry),
    }
}

/// What the attempt came to. `clean`: our own connection has rolled back, so an outage that the handler speaks of was
/// that of something else. `reached`: the database answers, as far as anybody asked.
fn after_undo(ended: &Ended, clean: bool, reached: bool) -> Run {
    let trouble = ended.trouble();
    match ended {
        Ended::Killed => Run::Stopped,
        Ended::Failed(_) if trouble == Some(Trouble::Conflict) => Run::Conflict,
        Ended::Failed(_) if !clean && trouble == Some(Trouble::Outage) => Run::Outage,
        Ended::Failed(_) | Ended::Panicked(_) | Ended::Deadline if !clean && !reached => {
            Run::Outage
        }
        Ended::Failed(error) => Run::Failed(error.verdict),
        Ended::Done | Ended::Panicked(_) | Ended::Deadline => Run::Failed(Verdict::Retry),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(error: sqlx::Error) -> Ended {
        Ended::Failed(HandlerError::from(error))
    }

    #[test]
    fn an_outage_of_our_own_connection_costs_no_attempt() {
        let lost = || failed(sqlx::Error::PoolClosed);

        assert_eq!(after_undo(&lost(), false, true), Run::Outage);
        assert_eq!(after_undo(&Ended::Deadline, false, false), Run::Outage);
        assert_eq!(
            after_undo(&Ended::Panicked(String::new()), false, false),
            Run::Outage
        );
    }

    #[test]
    fn an_outage_elsewhere_is_an_attempt_that_failed() {
        let lost = failed(sqlx::Error::PoolClosed);

        assert_eq!(after_undo(&lost, true, true), Run::Failed(Verdict::Retry));
    }

    #[test]
    fn a_deadline_counts_whether_or_not_the_connection_could_be_kept() {
        for clean in [true, false] {
            assert_eq!(
                after_undo(&Ended::Deadline, clean, true),
                Run::Failed(Verdict::Retry)
            );
        }
    }

    #[test]
    fn a_connection_that_is_gone_after_the_deadline_was_the_deadline() {
        let now = Instant::now();
        let lost = || failed(sqlx::Error::PoolClosed);

        let late = lost().in_time(now);
        let in_time = lost().in_time(now + Duration::from_secs(60));

        assert!(matches!(late, Ended::Deadline));
        assert!(matches!(in_time, Ended::Failed(_)));
    }

    #[test]
    fn a_rejection_stays_one() {
        let ended = Ended::Failed(HandlerError::reject("no"));

        assert_eq!(after_undo(&ended, true, true), Run::Failed(Verdict::Reject));
    }

    #[test]
    fn a_lost_answer_to_commit_is_unknown_and_a_refusal_is_not() {
        assert_eq!(after_commit(Trouble::Outage), Run::Outage);
        assert_eq!(after_commit(Trouble::Other), Run::Failed(Verdict::Retry));
        assert_eq!(after_commit(Trouble::Conflict), Run::Conflict);
    }

    #[test]
    fn waiting_for_a_mark_in_vain_means_that_somebody_else_works_on_it() {
        assert_eq!(without_mark(Trouble::TimedOut), Run::Elsewhere);
        assert_eq!(without_mark(Trouble::Other), Run::Outage);
    }
}

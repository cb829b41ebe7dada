//! How a handler ends, and what that means for its attempt.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use onceward_core::Message;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{BatchOrder, Order};
use crate::alarm::Alarm;
use crate::handler::{HandlerError, Verdict};
use crate::plan::Run;
use crate::session::Session;
use crate::trouble::{Trouble, chain, classify, database_error};
use crate::{BatchTx, Tx};

/// How much longer than its deadline a handler may take before it is said to block its thread.
const OVERDUE: Duration = Duration::from_secs(5);

/// Why an attempt fails whose handler has not closed what it opened.
pub(super) const SAVEPOINT: &str = "the handler has left a savepoint open";

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
    pub(super) fn in_time(self, deadline: Instant) -> Self {
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

/// Runs the handler until it ends, its deadline comes, or the consumer cannot wait any longer.
pub(super) async fn handle(
    order: &Order<'_>,
    session: Session,
    deadline: Instant,
) -> (Session, Ended) {
    let mut tx = Tx {
        batch: BatchTx {
            session,
            messages: Arc::new([order.message.clone()]),
            marks: Arc::new([order.mark.id]),
            attempt: order.attempt,
            deadline,
        },
        message: order.message.clone(),
        mark: order.mark.id,
    };
    let call = async { order.handler.call(order.message, &mut tx).await };
    let ended = watch(call, deadline, order.kill, order.alarm).await;
    (tx.batch.session, ended)
}

/// As [`handle`], for the messages of a batch that are to be handled.
pub(super) async fn handle_batch(
    order: &BatchOrder<'_>,
    (messages, marks): (Arc<[Arc<Message>]>, Arc<[Uuid]>),
    session: Session,
    deadline: Instant,
) -> (Session, Ended) {
    let mut tx = BatchTx {
        session,
        messages,
        marks,
        attempt: 1,
        deadline,
    };
    let call = async { order.handler.call(&mut tx).await };
    let ended = watch(call, deadline, order.kill, order.alarm).await;
    (tx.session, ended)
}

async fn watch(
    call: impl Future<Output = Result<(), HandlerError>>,
    deadline: Instant,
    kill: &CancellationToken,
    alarm: &Alarm,
) -> Ended {
    let caught = AssertUnwindSafe(call).catch_unwind();
    alarm.set(deadline.saturating_duration_since(Instant::now()) + OVERDUE);
    let ended = tokio::select! {
        biased;
        ended = tokio::time::timeout_at(deadline.into(), caught) => match ended {
            Ok(Ok(Ok(()))) => Ended::Done,
            Ok(Ok(Err(error))) => Ended::Failed(error),
            Ok(Err(panic)) => Ended::Panicked(panic_text(&*panic)),
            Err(_) => Ended::Deadline,
        },
        () = kill.cancelled() => Ended::Killed,
    };
    alarm.clear();
    ended
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    let text = text.unwrap_or_else(|| "a panic without a text".to_owned());
    crate::trouble::clean(&format!("the handler panicked: {text}"))
}

pub(super) fn describe(ended: &Ended, deadline: Duration) -> String {
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

/// What the handler is to blame for when its marks cannot be proven.
pub(super) fn unproven(error: sqlx::Error) -> HandlerError {
    match classify(&error) {
        Trouble::Aborted => "a statement failed and the handler went on".into(),
        Trouble::TimedOut | Trouble::Conflict | Trouble::Outage | Trouble::Other => error.into(),
    }
}

/// What an error of COMMIT means. Without the server's word nobody knows whether it was committed: the mark tells.
pub(super) fn after_commit(trouble: Trouble) -> Run {
    match trouble {
        Trouble::Conflict => Run::Conflict,
        Trouble::Outage => Run::Outage,
        // A deferred constraint, most likely: the server has rolled back and says why.
        Trouble::TimedOut | Trouble::Aborted | Trouble::Other => Run::Failed(Verdict::Retry),
    }
}

/// What the attempt came to. `clean`: our own connection has rolled back, so an outage that the handler speaks of was
/// that of something else. `reached`: the database answers, as far as anybody asked.
pub(super) fn after_undo(ended: &Ended, clean: bool, reached: bool) -> Run {
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

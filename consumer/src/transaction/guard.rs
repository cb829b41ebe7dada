//! The crash guard of an attempt: what may kill its process is written down before its handler runs.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Database, Order, Ran};
use crate::faults::{Failpoint, pass};
use crate::keeper::Keeper;
use crate::plan::Run;
use crate::plan::guard::Start;

/// The error of a message that must run alone.
const UNFINISHED: &str = "it was in work when a process died";

/// For how much longer a start is waited for once its message is to be left: what runs already may end, and it nearly does.
const LEAVE: Duration = Duration::from_secs(2);

/// What keeps the start of a handler.
pub(crate) struct Guard<'a> {
    pub(crate) keeper: &'a Keeper,
    /// Whether there is nothing beside it.
    pub(crate) alone: bool,
    /// Ends the wait until its start is written, soon.
    pub(crate) leave: &'a CancellationToken,
}

impl Database {
    /// Says that the handler starts, while its mark keeps everybody else from the message. The run, if it may not.
    pub(super) async fn may_start(order: &Order<'_>) -> Result<(), Ran> {
        let Some(guard) = &order.guard else {
            return Ok(());
        };
        let start = guard
            .keeper
            .start(order.mark.id, guard.alone, order.deadline);
        let left = async {
            tokio::select! {
                () = order.kill.cancelled() => {}
                () = async {
                    guard.leave.cancelled().await;
                    tokio::time::sleep(LEAVE).await;
                } => {}
            }
        };
        let started = tokio::select! {
            biased;
            () = left => {
                // As below.
                Self::has_ended(order).await;
                return Err(Ran::new(Run::Stopped, ""));
            }
            started = start => started,
        };
        match started {
            Ok(Start::Beside | Start::Alone(_)) => {
                pass(Failpoint::AfterStart);
                Ok(())
            }
            Ok(Start::NotBeside) => Err(Ran::new(Run::Unfinished, UNFINISHED)),
            Ok(Start::Never(crashes)) => {
                let error = format!("the process died {crashes} times while the handler ran alone");
                Err(Ran::new(Run::Crashed, error))
            }
            Err(error) => {
                // It may have been written all the same.
                Self::has_ended(order).await;
                Err(Ran::new(Run::Outage, error))
            }
        }
    }

    /// The handler has ended otherwise than by a commit that took its start away.
    pub(super) async fn has_ended(order: &Order<'_>) {
        if let Some(guard) = &order.guard {
            guard.keeper.end(order.mark.id).await;
        }
    }
}

//! The crash guard: a message that kills its process each time must not do so for ever, and its neighbours are not to blame.
//!
//! Before the handler of a suspect runs, its start is written; it is taken away when the handler has ended, however. Whoever
//! finds the start of another life runs that message with nothing beside it, and only such runs count against it.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Workshop;
use crate::plan::Run;
use crate::room::Stay;

/// How much longer than its deadline a handler may keep one from being alone: after that it blocks its thread.
const OVERDUE: Duration = Duration::from_secs(5);

/// What an attempt may take beside its handler: to wait for its mark, and to commit.
const AROUND: Duration = Duration::from_secs(15);

/// How long others go on before one that has waited in vain to be alone tries again.
const BETWEEN: Duration = Duration::from_secs(5);

impl Workshop {
    /// Waits for leave to run: beside others, or once they have ended. None: the message must be left, or others do not end.
    pub(super) async fn come_in(
        &self,
        alone: bool,
        deadline: Duration,
        leave: &CancellationToken,
    ) -> Option<Stay<'_>> {
        if !alone {
            return self.room.beside(leave).await;
        }
        let stay = self
            .room
            .alone(leave, self.longest() + OVERDUE, deadline * 2 + AROUND);
        let stay = stay.await;
        if stay.is_none() && !leave.is_cancelled() {
            warn!("a message that is to be handled alone waits for handlers that do not end");
            super::wait(BETWEEN, leave).await;
        }
        stay
    }

    /// The longest deadline of a handler.
    fn longest(&self) -> Duration {
        let settings = self
            .routes
            .iter()
            .filter_map(|route| route.settings.as_ref());
        settings
            .map(|settings| settings.deadline)
            .fold(self.defaults.deadline, Duration::max)
    }
}

/// What it means that a delivery could not come in.
pub(super) fn not_in(alone: bool, leave: &CancellationToken) -> Run {
    if alone && !leave.is_cancelled() {
        Run::Unfinished
    } else {
        Run::Stopped
    }
}

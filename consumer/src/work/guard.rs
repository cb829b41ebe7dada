//! The crash guard: a message that kills its process each time must not do so for ever, and its neighbours are not to blame.
//!
//! Before the handler of a suspect runs, its start is written; it is taken away when the handler has ended, however. Whoever
//! finds the start of another life runs that message with nothing beside it, and only such runs count against it.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Workshop;
use crate::Limits;
use crate::plan::guard::most_at_a_time;
use crate::room::Stay;

/// How much longer than its deadline a handler may keep one from being alone: after that it blocks its thread.
const OVERDUE: Duration = Duration::from_secs(5);

/// What an attempt may take beside its handler: to wait for its mark, and to commit.
const AROUND: Duration = Duration::from_secs(15);

impl Workshop {
    /// Waits for leave to run: beside others, or once they have ended. None: the message must be left.
    pub(super) async fn come_in(
        &self,
        alone: bool,
        deadline: Duration,
        leave: &CancellationToken,
    ) -> Option<Stay<'_>> {
        let stay = deadline * 2 + AROUND;
        if alone {
            let patience = self.longest() + OVERDUE;
            self.room.alone(leave, patience, stay).await
        } else {
            self.room.beside(leave, stay).await
        }
    }

    /// How many messages of a class may be in work together, in one place.
    pub(crate) fn together(&self, class: usize) -> usize {
        let batch = self
            .routes
            .get(class)
            .and_then(|route| route.batch.as_ref());
        batch.map_or(1, |_| self.settings(Some(class)).batch.messages)
    }

    /// How many messages may be in work at a time, at most.
    pub(crate) fn at_a_time(&self, limits: &Limits) -> usize {
        let classes = (0..self.routes.len()).map(|class| {
            let limit = self.settings(Some(class)).concurrency;
            (limit.unwrap_or(usize::MAX), self.together(class))
        });
        most_at_a_time(classes.collect(), limits.concurrency).min(limits.messages)
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

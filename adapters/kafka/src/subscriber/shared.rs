//! What a member's tasks and its thread share.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, watch};

use super::table::Table;

/// What a member's tasks and its thread share.
pub(super) struct Shared {
    // Acks come from any task, arrivals go to one, and the thread changes what is owned; nobody waits while holding it.
    table: Mutex<Table>,
    /// Told when there may be something to take.
    pub(super) moved: Arc<Notify>,
    /// Set once the member is told to leave: until then its last positions may take to be committed.
    leaves_by: OnceLock<Instant>,
    pub(super) ended: watch::Sender<bool>,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            table: Mutex::default(),
            moved: Arc::new(Notify::new()),
            leaves_by: OnceLock::new(),
            ended: watch::Sender::new(false),
        }
    }

    pub(super) fn locked(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the member to leave, giving its last positions until `by`. The first word counts.
    pub(super) fn leave(&self, by: Instant) {
        self.leaves_by.get_or_init(|| by);
    }

    pub(super) fn leaves_by(&self) -> Option<Instant> {
        self.leaves_by.get().copied()
    }

    pub(super) fn is_closing(&self) -> bool {
        self.leaves_by().is_some()
    }

    /// Waits until the member has left its group.
    pub(super) async fn ended(&self) {
        let mut ended = self.ended.subscribe();
        // The sender lives as long as `self`, so that this cannot fail.
        drop(ended.wait_for(|ended| *ended).await);
    }
}

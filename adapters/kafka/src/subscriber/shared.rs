//! What a member's tasks and its thread share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use super::table::Table;

/// What a member's tasks and its thread share.
pub(super) struct Shared {
    // Acks come from any task, arrivals go to one, and the thread changes what is owned; nobody waits while holding it.
    table: Mutex<Table>,
    /// Told when there may be something to take.
    pub(super) moved: Arc<Notify>,
    closing: AtomicBool,
    pub(super) ended: watch::Sender<bool>,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            table: Mutex::default(),
            moved: Arc::new(Notify::new()),
            closing: AtomicBool::new(false),
            ended: watch::Sender::new(false),
        }
    }

    pub(super) fn locked(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the member to leave.
    pub(super) fn leave(&self) {
        self.closing.store(true, Ordering::Release);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Waits until the member has left its group.
    pub(super) async fn ended(&self) {
        let mut ended = self.ended.subscribe();
        // The sender lives as long as `self`, so that this cannot fail.
        drop(ended.wait_for(|ended| *ended).await);
    }
}

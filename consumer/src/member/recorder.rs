//! The task that writes how far the member has come, so that a slow database never keeps the loop from working.

use std::sync::Arc;

use onceward_core::Partition;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tracing::{debug, warn};

use super::Event;
use crate::trouble::chain;
use crate::work::Workshop;

/// Serves the loop until it is gone and the last one is written. Reports once for each.
pub(super) async fn run<T>(
    shop: Arc<Workshop>,
    mut wanted: UnboundedReceiver<Vec<(Partition, u64)>>,
    events: UnboundedSender<Event<T>>,
) {
    let mut failures: u32 = 0;
    while let Some(positions) = wanted.recv().await {
        let written = match shop.database.note_positions(&positions).await {
            Ok(()) => {
                failures = 0;
                Some(positions)
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                let error = chain(&error);
                // To lag behind is safe: it is no reason to pause.
                if failures % 60 == 10 {
                    warn!(failures, %error, "how far the consumer has come cannot be written; will retry");
                } else {
                    debug!(failures, %error, "how far the consumer has come was not written");
                }
                None
            }
        };
        drop(events.send(Event::Written(written)));
    }
}

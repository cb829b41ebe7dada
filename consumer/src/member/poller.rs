//! The task that looks into the database for what is due, so that a slow database never keeps the loop from working.

use std::sync::Arc;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tracing::warn;

use super::Event;
use crate::trouble::{chain, is_outage};
use crate::work::Workshop;

/// Serves the loop until it is gone. Reports once for each look.
pub(super) async fn run<T>(
    shop: Arc<Workshop>,
    mut wanted: UnboundedReceiver<usize>,
    events: UnboundedSender<Event<T>>,
) {
    while let Some(room) = wanted.recv().await {
        let due = match shop.database.due(room).await {
            Ok((now, due)) => {
                shop.clock.set(now);
                Some(due)
            }
            Err(error) => {
                let text = chain(&error);
                if is_outage(&error) {
                    shop.health.outage(&text);
                } else {
                    warn!(error = %text, "what is due could not be looked up; will retry");
                }
                None
            }
        };
        drop(events.send(Event::Due(due)));
    }
}

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
                if is_worth_a_warning(failures) {
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

/// Failures before the first warning, and between two: positions are written once a second.
const FIRST_WARNING: u32 = 10;
const BETWEEN_WARNINGS: u32 = 60;

/// Whether the last of so many failures in a row is told as a warning: after ten seconds, then each minute.
fn is_worth_a_warning(failures: u32) -> bool {
    failures % BETWEEN_WARNINGS == FIRST_WARNING
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_trouble_is_told_after_ten_seconds_and_then_each_minute() {
        let told: Vec<u32> = (1..200).filter(|n| is_worth_a_warning(*n)).collect();

        assert_eq!(told, [10, 70, 130, 190]);
    }
}

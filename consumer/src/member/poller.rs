//! The task that looks into the database for what is due, so that a slow database never keeps the loop from working.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tracing::warn;

use super::Event;
use crate::trouble::{Trouble, chain, classify};
use crate::work::Workshop;

/// How often the types are looked at that are paused.
const PAUSES_EVERY: Duration = Duration::from_secs(1);

/// The most that may wait while a type is paused: beyond that its deliveries are held, and their partition is not read.
const MOST: usize = 100_000;

/// Serves the loop until it is gone. Reports once for each look.
pub(super) async fn run<T>(
    shop: Arc<Workshop>,
    mut wanted: UnboundedReceiver<usize>,
    events: UnboundedSender<Event<T>>,
) {
    let mut pauses = Instant::now();
    while let Some(room) = wanted.recv().await {
        if Instant::now() >= pauses {
            pauses = Instant::now() + PAUSES_EVERY;
            if let Err(error) = look_for_pauses(&shop).await {
                warn!(error = %chain(&error), "what is paused could not be looked up; will retry");
            }
        }
        let due = match shop.database.due(room).await {
            Ok(due) => Some(due),
            Err(error) => {
                let text = chain(&error);
                if classify(&error) == Trouble::Outage {
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

async fn look_for_pauses(shop: &Workshop) -> Result<(), sqlx::Error> {
    let pauses = shop.database.pauses(MOST).await?;
    let full = pauses.waiting >= MOST;
    shop.types.told(pauses.types, pauses.probes, full);
    Ok(())
}

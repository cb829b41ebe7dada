//! Keeps deliveries that wait in this member from running out; those that were handed out are the caller's to extend.

use std::sync::Arc;
use std::time::{Duration, Instant};

use onceward_core::Acker as _;
use tracing::info;

use super::acker::SqsAcker;
use super::held::Held;
use super::shelf::Shelf;

/// Runs until it is dropped.
pub(super) async fn run(shelf: Arc<Shelf>, held: Held, acker: SqsAcker, visibility: Duration) {
    let mut tick = tokio::time::interval(visibility / 3);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        held.forget_expired(Instant::now());
        let tokens = shelf.tokens();
        if tokens.is_empty() {
            continue;
        }
        match acker.extend(tokens.clone()).await {
            Ok(deadlines) => {
                let deadlines: Vec<_> = tokens.into_iter().zip(deadlines).collect();
                shelf.extended(&deadlines, Instant::now());
            }
            Err(error) => {
                // What runs out meanwhile comes again, and its mark drops whatever was handled by then.
                info!(error = %error, "deliveries that wait could not be extended");
                shelf.extended(&[], Instant::now());
            }
        }
    }
}

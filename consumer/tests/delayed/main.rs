//! Long waits are in the database: durable, in order, and without holding the broker.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../common/mod.rs"]
mod common;
mod lines;
mod waits;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::{Order, Stage, effect, quick};
use onceward_consumer::{ConsumerBuilder, HandlerError, HandlerSettings, Tx};

/// Every wait is in the database.
fn deferring(attempts: u32) -> HandlerSettings {
    HandlerSettings {
        defer_after: Duration::ZERO,
        ..quick(attempts)
    }
}

/// What a handler does with the orders of a test: how often each fails, and for how long it then asks to wait.
#[derive(Clone, Default)]
struct Failures {
    left: Arc<HashMap<i64, AtomicU32>>,
    wait: Duration,
}

impl Failures {
    fn of(orders: &[(i64, u32)], wait: Duration) -> Self {
        let left = orders.iter().map(|(order, n)| (*order, AtomicU32::new(*n)));
        Self {
            left: Arc::new(left.collect()),
            wait,
        }
    }
}

async fn fails(failures: Failures, event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
    effect(event.order, tx).await?;
    let left = failures.left.get(&event.order);
    let fails = left.is_some_and(|left| {
        left.try_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
            .is_ok()
    });
    if fails {
        return Err(HandlerError::retry_after(failures.wait));
    }
    Ok(())
}

fn builder(stage: &Stage, failures: &Failures) -> ConsumerBuilder {
    stage
        .builder()
        .defaults(deferring(10))
        .on_with("*", failures.clone(), fails)
}

const SHORT: Duration = Duration::from_millis(30);
const LONG: Duration = Duration::from_secs(3600);

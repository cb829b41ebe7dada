//! Reads what a gate has recorded of queues, by the form that the documentation tells.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Arrival;
use crate::sqs::{Recording, Stored};

pub(super) fn count(recording: &Recording, queues: &[String]) -> u64 {
    let counts = queues.iter().map(|queue| recording.count(queue) as u64);
    counts.sum()
}

pub(super) fn all(recording: &Recording, queues: &[String]) -> Vec<Arrival> {
    let mut arrivals = Vec::new();
    for queue in queues {
        let partition = Arc::<str>::from(queue.as_str());
        for (position, stored) in (0..).zip(recording.stored(queue)) {
            arrivals.push(arrival(stored, Arc::clone(&partition), position));
        }
    }
    arrivals
}

fn arrival(stored: Stored, partition: Arc<str>, position: u64) -> Arrival {
    let attribute = |name: &str| stored.attributes.get(name);
    let payload = match attribute("onceward-encoding") {
        // What cannot be read is other than what was committed, and is told as that.
        Some(_) => STANDARD.decode(stored.body.trim()).unwrap_or_default(),
        None => stored.body.clone().into_bytes(),
    };
    Arrival {
        id: attribute("ce-id").and_then(|id| id.parse().ok()),
        key: attribute("ce-partitionkey").cloned(),
        payload,
        partition,
        position,
    }
}

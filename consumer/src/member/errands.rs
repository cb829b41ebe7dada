//! The task that tells the broker what is settled, many at a time.

use std::time::Duration;

use onceward_core::{Acker, Backoff, SubscribeError};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tracing::{debug, info};

use super::Event;
use crate::faults::{Failpoint, pass};
use crate::trouble::chain;

/// How long one call may take.
const CALL: Duration = Duration::from_secs(10);

/// How often an ack is tried. One that is lost is no harm: the delivery comes again, and its mark drops it.
const TRIES: u32 = 5;

const BETWEEN: Backoff = Backoff {
    base: Duration::from_millis(100),
    max: Duration::from_secs(2),
};

/// What is to be told to the broker.
#[derive(Debug)]
pub(super) enum Errand<T> {
    Ack(u64, T),
    GiveBack(Vec<T>),
    Extend(Vec<(u64, T)>),
    /// Receive nothing more, or again.
    Rest(bool),
}

/// Runs errands until the loop is gone and the last one is done.
pub(super) async fn run<A: Acker>(
    acker: A,
    mut errands: UnboundedReceiver<Errand<A::Token>>,
    events: UnboundedSender<Event<A::Token>>,
) {
    let mut batch = Vec::new();
    while errands.recv_many(&mut batch, 1_024).await > 0 {
        let mut acks = Vec::new();
        let mut numbers = Vec::new();
        let mut extends = Vec::new();
        let mut returns = Vec::new();
        for errand in batch.drain(..) {
            match errand {
                Errand::Ack(number, token) => {
                    numbers.push(number);
                    acks.push(token);
                }
                Errand::GiveBack(tokens) => returns.extend(tokens),
                Errand::Extend(tokens) => extends.extend(tokens),
                // Before what is given back, which must not come to this member again.
                Errand::Rest(resting) => acker.rest(resting),
            }
        }
        if !acks.is_empty() {
            ack(&acker, acks).await;
            drop(events.send(Event::Acked(numbers)));
        }
        if !extends.is_empty() {
            let (numbers, tokens) = extends.into_iter().unzip();
            let deadlines = call(acker.extend(tokens)).await;
            if let Some(Err(error)) = &deadlines {
                info!(error = %chain(error), "deliveries could not be extended");
            }
            let deadlines = deadlines.and_then(Result::ok);
            drop(events.send(Event::Extended(numbers, deadlines)));
        }
        if !returns.is_empty() {
            // Best effort: they come again in any case.
            drop(call(acker.give_back(returns, Duration::ZERO)).await);
        }
    }
}

async fn ack<A: Acker>(acker: &A, tokens: Vec<A::Token>) {
    for attempt in 1..=TRIES {
        match call(acker.ack(tokens.clone())).await {
            Some(Ok(())) => {
                pass(Failpoint::AfterAck);
                return;
            }
            Some(Err(error)) => debug!(attempt, error = %chain(&error), "an ack failed"),
            None => debug!(attempt, "an ack had no answer"),
        }
        if attempt < TRIES {
            tokio::time::sleep(BETWEEN.delay(attempt, 0.5 + fastrand::f64() / 2.0)).await;
        }
    }
    info!(
        count = tokens.len(),
        "settled deliveries could not be acked; they come again and are dropped"
    );
}

/// None: no answer in time.
async fn call<T>(
    answer: impl Future<Output = Result<T, SubscribeError>>,
) -> Option<Result<T, SubscribeError>> {
    tokio::time::timeout(CALL, answer).await.ok()
}

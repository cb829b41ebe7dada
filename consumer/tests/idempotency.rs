//! The key for effects elsewhere is the same whenever a message is tried, by whichever way it comes to that.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Order, SOON, Stage, quick};
use onceward_consumer::dead_letter::{self, Filter, Replayed, To};
use onceward_consumer::{
    BatchSettings, BatchTx, ConsumerBuilder, HandlerError, HandlerSettings, Schema, Tx,
};
use onceward_testkit::wait;
use uuid::Uuid;

/// The other side, which is told of each attempt.
#[derive(Clone, Default)]
struct Calls {
    /// The keys that came with each order.
    keys: Arc<Mutex<BTreeMap<i64, Vec<Uuid>>>>,
    /// The most orders that came together.
    together: Arc<AtomicUsize>,
}

/// Fails at first, then asks to wait, then rejects, and works once it is replayed.
fn outcome(of_call: usize) -> Result<(), HandlerError> {
    match of_call {
        1 => Err("in place".into()),
        2 => Err(HandlerError::retry_after(Duration::from_millis(30))),
        3 => Err(HandlerError::reject("a person is to look at it")),
        _ => Ok(()),
    }
}

/// Tells the other side. Gives how often it was told of this order.
fn call(calls: &Calls, order: i64, key: Uuid) -> usize {
    let mut all = calls.keys.lock().unwrap();
    let keys = all.entry(order).or_default();
    keys.push(key);
    keys.len()
}

async fn one(calls: Calls, event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
    outcome(call(&calls, event.order, tx.idempotency_key()))
}

async fn several(calls: Calls, events: Vec<Order>, tx: &mut BatchTx) -> Result<(), HandlerError> {
    calls.together.fetch_max(events.len(), Ordering::SeqCst);
    let keys = tx.idempotency_keys().iter();
    assert_eq!(keys.len(), events.len());
    let told = events.iter().zip(keys);
    let told: Vec<usize> = told
        .map(|(event, key)| call(&calls, event.order, *key))
        .collect();
    // The first time all are in one batch, which fails: then each is alone.
    told.into_iter().try_for_each(outcome)
}

/// Three messages of which one is somebody else's, with an id that is no uuid, from their first attempts to the replay of their dead
/// letters by another member. Gives the ids of ours and all keys.
async fn keys_of(
    handled: impl Fn(ConsumerBuilder, Calls) -> ConsumerBuilder,
) -> ([Uuid; 2], Calls) {
    let stage = Stage::new().await;
    let calls = Calls::default();
    let ours = [stage.publish(1, Some(1)), stage.publish(2, None)];
    let named: &[(&str, &[u8])] = &[("ce-id", b"order-3"), ("ce-source", b"/elsewhere")];
    stage.put(named, br#"{"order": 3}"#);
    let settings = HandlerSettings {
        // Of the waits the one that is asked for is in the database.
        defer_after: Duration::from_millis(25),
        batch: BatchSettings {
            wait: Duration::from_millis(200),
            ..BatchSettings::default()
        },
        ..quick(10)
    };
    let run = || {
        let builder = stage.builder().defaults(settings.clone());
        stage.run(handled(builder, calls.clone()))
    };

    let first = run();
    wait::until_true(SOON, "three dead letters", || async {
        stage.letters().await.len() == 3
    })
    .await;
    first.stop().await;
    let schema = Schema::default();
    let letters = dead_letter::list(stage.pool(), &schema, &Filter::default()).await;
    for letter in letters.unwrap() {
        let replayed =
            dead_letter::replay(stage.pool(), &schema, letter.id, To::Consumer, "alice").await;
        assert_eq!(replayed.unwrap(), Replayed::Done(None));
    }
    let second = run();
    wait::until_true(SOON, "all to be handled", || async {
        stage.outcomes().await == [0, 0, 0]
    })
    .await;
    second.stop().await;
    (ours, calls)
}

/// Each message was tried so often, always with the same key, which is the id of ours and no other message's.
fn each_has_one_key(ours: [Uuid; 2], calls: &Calls, tries: usize) {
    let calls = calls.keys.lock().unwrap();
    let keys: Vec<Uuid> = calls.values().map(|keys| keys[0]).collect();
    for (order, keys) in &*calls {
        assert_eq!(*keys, vec![keys[0]; tries], "{order}");
    }
    assert_eq!(keys[..2], ours);
    assert!(keys.len() == 3 && !ours.contains(&keys[2]), "{keys:?}");
}

#[tokio::test]
async fn the_key_for_effects_elsewhere_is_the_same_over_attempts_waits_and_a_replay() {
    let (ours, calls) = keys_of(|builder, calls| builder.on_with("*", calls, one)).await;

    each_has_one_key(ours, &calls, 4);
}

#[tokio::test]
async fn the_keys_of_a_batch_are_those_of_its_messages_alone() {
    let (ours, calls) = keys_of(|builder, calls| builder.on_batch_with("*", calls, several)).await;

    assert_eq!(calls.together.load(Ordering::SeqCst), 3);
    each_has_one_key(ours, &calls, 4);
}

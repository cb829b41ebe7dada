//! What is read: kept while it is in work, not read while a partition is stuck, and refused or failing for a while.

use std::sync::Arc;
use std::time::Duration;

use onceward_consumer::{Consumer, ConsumerError};
use onceward_core::{Arrival, SubscribeError, SubscribeErrorKind};
use onceward_testkit::wait;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::common::scripted::{Book, Did, Scripted, delivery, partition};
use crate::common::{self, SOON, Stage, quick, write_effect};
use crate::{play, waits};

#[tokio::test]
async fn deliveries_in_work_are_extended_at_a_third_of_their_deadline_until_they_are_settled() {
    let play = play().await;
    play.say(vec![
        delivery(1, Some(Duration::from_millis(300))),
        delivery(2, Some(Duration::from_millis(300))),
    ]);
    // The second one only waits for its key; both are held.
    wait::until_true(SOON, "extensions", || async {
        let extended = |token| {
            let all = play.book.all();
            all.iter().filter(|did| **did == Did::Extend(token)).count()
        };
        extended(1) >= 3 && extended(2) >= 3
    })
    .await;

    play.gate.add_permits(2);
    play.book.has(Did::Ack(2)).await;
    let did = play.end().await;

    let last_ack = did.iter().rposition(|did| matches!(did, Did::Ack(_)));
    let last_extend = did.iter().rposition(|did| matches!(did, Did::Extend(_)));
    assert!(last_extend < last_ack, "{did:?}");
    assert_eq!(did.last(), Some(&Did::Closed));
}

#[tokio::test]
async fn a_refused_subscription_ends_the_consumer_and_an_outage_of_the_broker_does_not() {
    let play = play().await;
    let error = |kind| Err(SubscribeError::new(kind, "because"));
    play.script
        .send(error(SubscribeErrorKind::Unavailable))
        .unwrap();
    play.script
        .send(error(SubscribeErrorKind::Unauthorized))
        .unwrap();
    play.say(vec![
        Arrival::Jumped {
            partition: partition(),
            from: 1,
            to: 5,
        },
        delivery(5, None),
    ]);
    play.gate.add_permits(1);
    play.book.has(Did::Ack(5)).await;

    play.script
        .send(error(SubscribeErrorKind::Misconfigured))
        .unwrap();
    let ended = tokio::time::timeout(SOON, play.task)
        .await
        .unwrap()
        .unwrap();

    assert!(
        matches!(ended, Err(ConsumerError::Subscribe(_))),
        "{ended:?}"
    );
}

/// What was said last of reading; what is acked meanwhile stands between.
fn last_pause(book: &Book) -> Option<Did> {
    let mut pauses = book.all().into_iter();
    pauses.rfind(|did| matches!(did, Did::Pause(_)))
}

#[tokio::test]
async fn a_partition_that_is_stuck_is_paused_and_read_again() {
    let stage = Stage::new().await;
    let (script, lines) = mpsc::unbounded_channel();
    let book = Book::default();
    let gate = Arc::new(Semaphore::new(0));
    let limits = onceward_consumer::Limits {
        ahead: 4,
        ..onceward_consumer::Limits::default()
    };
    let consumer: Consumer = stage
        .builder()
        .limits(limits)
        .defaults(quick(1))
        .on_with("*", gate.clone(), waits)
        .build()
        .unwrap();
    let stop = CancellationToken::new();
    let subscriber = Scripted {
        script: lines,
        book: book.clone(),
    };
    let task = tokio::spawn(consumer.run(subscriber, stop.clone()));

    script
        .send(Ok((1..=4).map(|n| delivery(n, None)).collect()))
        .unwrap();
    book.has(Did::Pause(true)).await;
    gate.add_permits(4);
    book.has(Did::Pause(false)).await;

    // It is lost while it is paused again: when it comes back it must be read.
    script
        .send(Ok((5..=8).map(|n| delivery(n, None)).collect()))
        .unwrap();
    wait::until_true(SOON, "a second pause", || async {
        last_pause(&book) == Some(Did::Pause(true))
    })
    .await;
    script.send(Ok(vec![Arrival::Lost(partition())])).unwrap();
    wait::until_true(SOON, "an end of the second pause", || async {
        last_pause(&book) == Some(Did::Pause(false))
    })
    .await;
    gate.add_permits(4);
    stop.cancel();
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn in_one_line_a_test_handles_all_that_the_broker_in_memory_has() {
    let stage = Stage::new().await;
    for order in 0..5 {
        stage.publish(order, Some(1));
    }
    stage.put(&[], b"no json");
    let consumer = || stage.builder().on("*", write_effect).build().unwrap();

    let subscriber = stage.broker.subscriber("billing", &[common::TOPIC]);
    let settled = consumer().run_until_idle(subscriber).await.unwrap();

    assert_eq!((settled.handled, settled.dead), (5, 1));
    assert_eq!(stage.effects().await, [0, 1, 2, 3, 4]);

    let subscriber = stage.broker.subscriber("billing", &[common::TOPIC]);
    let nothing = consumer().run_until_idle(subscriber).await.unwrap();

    assert_eq!(nothing, onceward_consumer::Settled::default());
}

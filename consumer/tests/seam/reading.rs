//! What is read: kept while it is in work, not read while a partition is stuck, and refused or failing for a while.

use std::time::Duration;

use onceward_consumer::{ConsumerError, Limits};
use onceward_core::{Arrival, SubscribeError, SubscribeErrorKind};
use onceward_testkit::wait;

use crate::common::scripted::{Book, Did, delivery, partition, waits};
use crate::common::{self, SOON, Stage, quick, write_effect};
use crate::{play, play_with};

#[tokio::test]
async fn deliveries_in_work_are_extended_at_a_third_of_their_deadline_until_they_are_settled() {
    let play = play().await;
    play.member.say(vec![
        delivery(1, Some(Duration::from_millis(300))),
        delivery(2, Some(Duration::from_millis(300))),
    ]);
    // The second one only waits for its key; both are held.
    wait::until_true(SOON, "extensions", || async {
        let extended = |token| {
            let all = play.member.book.all();
            all.iter().filter(|did| **did == Did::Extend(token)).count()
        };
        extended(1) >= 3 && extended(2) >= 3
    })
    .await;

    play.gate.add_permits(2);
    play.member.book.has(Did::Ack(2)).await;
    let (_, did) = play.end().await;

    let last_ack = did.iter().rposition(|did| matches!(did, Did::Ack(_)));
    let last_extend = did.iter().rposition(|did| matches!(did, Did::Extend(_)));
    assert!(last_extend < last_ack, "{did:?}");
    assert_eq!(did.last(), Some(&Did::Closed));
}

#[tokio::test]
async fn a_refused_subscription_ends_the_consumer_and_an_outage_of_the_broker_does_not() {
    let play = play().await;
    let error = |kind| Err(SubscribeError::new(kind, "because"));
    play.member
        .script
        .send(error(SubscribeErrorKind::Unavailable))
        .unwrap();
    play.member
        .script
        .send(error(SubscribeErrorKind::Unauthorized))
        .unwrap();
    play.member.say(vec![
        Arrival::Jumped {
            partition: partition(),
            from: 1,
            to: 5,
        },
        delivery(5, None),
    ]);
    play.gate.add_permits(1);
    play.member.book.has(Did::Ack(5)).await;

    play.member
        .script
        .send(error(SubscribeErrorKind::Misconfigured))
        .unwrap();
    let ended = tokio::time::timeout(SOON, play.member.task)
        .await
        .unwrap()
        .unwrap();

    assert!(
        matches!(ended, Err(ConsumerError::Subscribe(_))),
        "{ended:?}"
    );
}

#[tokio::test]
async fn no_more_deliveries_are_asked_for_than_there_is_room_for() {
    let limits = Limits {
        messages: 8,
        ..Limits::default()
    };
    let play = play_with(|builder, gate| builder.limits(limits).on_with("*", gate, waits)).await;
    let (member, gate) = (&play.member, &play.gate);
    let asked = |rooms: &'static [usize]| {
        let book = member.book.clone();
        wait::until_true(SOON, "the room to be asked for", move || {
            let all = book.rooms();
            async move { all.ends_with(rooms) }
        })
    };

    member.say((1..=5).map(|n| delivery(n, None)).collect());
    asked(&[8, 3]).await;
    // It is full: what is settled makes room for as many, and nothing else does.
    member.say((6..=8).map(|n| delivery(n, None)).collect());
    gate.add_permits(1);
    member.book.has(Did::Ack(1)).await;

    asked(&[8, 3, 0, 1]).await;
    gate.add_permits(7);
    member.book.has(Did::Ack(8)).await;
    play.end().await;
}

#[tokio::test]
async fn of_messages_that_are_larger_than_all_the_memory_one_is_asked_for_at_a_time() {
    let limits = Limits {
        bytes: 1,
        ..Limits::default()
    };
    let play = play_with(|builder, gate| builder.limits(limits).on_with("*", gate, waits)).await;
    let (member, gate) = (&play.member, &play.gate);

    for order in 1..=3 {
        member.say(vec![delivery(order, None)]);
        gate.add_permits(1);
        member.book.has(Did::Ack(order)).await;
    }

    assert_eq!(member.book.rooms().into_iter().max(), Some(1));
    play.end().await;
}

/// What was said last of reading; what is acked meanwhile stands between.
fn last_pause(book: &Book) -> Option<Did> {
    let mut pauses = book.all().into_iter();
    pauses.rfind(|did| matches!(did, Did::Pause(_)))
}

#[tokio::test]
async fn a_partition_that_is_stuck_is_paused_and_read_again() {
    let limits = Limits {
        ahead: 4,
        ..Limits::default()
    };
    let play = play_with(|builder, gate| {
        let builder = builder.limits(limits).defaults(quick(1));
        builder.on_with("*", gate, waits)
    })
    .await;
    let (member, gate) = (&play.member, &play.gate);

    member.say((1..=4).map(|n| delivery(n, None)).collect());
    member.book.has(Did::Pause(true)).await;
    gate.add_permits(4);
    member.book.has(Did::Pause(false)).await;

    // It is lost while it is paused again: when it comes back it must be read.
    member.say((5..=8).map(|n| delivery(n, None)).collect());
    wait::until_true(SOON, "a second pause", || async {
        last_pause(&member.book) == Some(Did::Pause(true))
    })
    .await;
    member.say(vec![Arrival::Lost(partition())]);
    wait::until_true(SOON, "an end of the second pause", || async {
        last_pause(&member.book) == Some(Did::Pause(false))
    })
    .await;
    gate.add_permits(4);
    play.end().await;
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

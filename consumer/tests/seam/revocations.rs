//! Partitions that are revoked or lost while messages of theirs are in work or wait for more.

use std::sync::Arc;
use std::time::Duration;

use onceward_consumer::{BatchSettings, BatchTx, HandlerError, HandlerSettings, Limits};
use onceward_core::{Arrival, SubscribeError, SubscribeErrorKind};

use crate::common::scripted::{Did, delivery, partition, waits};
use crate::common::{Gate, Order, SOON, effects_of, pass_the_gate, quick};
use crate::{play, play_with};

#[tokio::test]
async fn a_revoked_partition_is_given_back_after_what_runs_is_acked_and_nothing_new_is_started() {
    let play = play().await;
    play.member.say(vec![delivery(1, None), delivery(2, None)]);
    play.gate.has_a_handler().await;

    play.member.say(vec![play.member.revoking(SOON)]);
    play.member.book.has(Did::GiveBack(2)).await;
    assert!(!play.member.book.all().contains(&Did::Released));
    play.gate.add_permits(5);
    play.member.book.has(Did::Released).await;

    let (effects, did) = play.end().await;
    assert_eq!(
        did,
        [Did::GiveBack(2), Did::Ack(1), Did::Released, Did::Closed]
    );
    assert_eq!(effects, [1]);
}

#[tokio::test]
async fn a_revoked_partition_is_given_back_in_time_even_if_a_handler_still_runs() {
    let play = play().await;
    play.member.say(vec![delivery(1, None)]);
    play.gate.has_a_handler().await;

    play.member
        .say(vec![play.member.revoking(Duration::from_millis(400))]);
    play.member.book.has(Did::Released).await;
    play.gate.add_permits(1);
    play.stage.settled(1).await;

    let (effects, did) = play.end().await;
    assert_eq!(did, [Did::Released, Did::Closed], "not acked any more");
    assert_eq!(effects, [1], "it went on to its mark");
}

#[tokio::test]
async fn a_member_without_room_hears_that_a_partition_is_revoked() {
    let limits = Limits {
        messages: 2,
        ..Limits::default()
    };
    let play = play_with(|builder, gate| builder.limits(limits).on_with("*", gate, waits)).await;
    play.member.say(vec![delivery(1, None), delivery(2, None)]);
    play.gate.has_a_handler().await;

    play.member.say(vec![play.member.revoking(SOON)]);
    play.member.book.has(Did::GiveBack(2)).await;
    play.gate.add_permits(1);
    play.member.book.has(Did::Released).await;

    let (effects, _) = play.end().await;
    assert_eq!(effects, [1]);
}

#[tokio::test]
async fn a_member_that_stops_hears_of_revocations_after_a_refusal_of_the_broker_too() {
    let limits = Limits {
        messages: 2,
        ..Limits::default()
    };
    let play = play_with(|builder, gate| builder.limits(limits).on_with("*", gate, waits)).await;
    play.member.say(vec![delivery(1, None), delivery(2, None)]);
    play.gate.has_a_handler().await;

    play.member.stop.cancel();
    play.member.book.has(Did::GiveBack(2)).await;
    let refused = SubscribeError::new(SubscribeErrorKind::Misconfigured, "because");
    play.member.script.send(Err(refused)).unwrap();
    play.member
        .say(vec![play.member.revoking(Duration::from_millis(400))]);
    play.member.book.has(Did::Released).await;
    play.gate.add_permits(1);

    let (effects, _) = play.end().await;
    assert_eq!(effects, [1]);
}

#[tokio::test]
async fn of_a_lost_partition_nothing_is_acked() {
    let play = play().await;
    play.member.say(vec![delivery(1, None), delivery(2, None)]);
    play.gate.has_a_handler().await;

    play.member.say(vec![Arrival::Lost(partition())]);
    play.member
        .say(vec![Arrival::Assigned(partition()), delivery(3, None)]);
    play.gate.add_permits(5);
    play.member.book.has(Did::Ack(3)).await;

    let (effects, did) = play.end().await;
    assert!(
        !did.contains(&Did::Ack(1)) && !did.contains(&Did::Ack(2)),
        "{did:?}"
    );
    assert_eq!(effects, [1, 3], "3 waited for 1, which still ran");
}

/// Fails if there is an order 2.
async fn batch_waits(
    gate: Arc<Gate>,
    events: Vec<Order>,
    tx: &mut BatchTx,
) -> Result<(), HandlerError> {
    pass_the_gate(&gate, tx).await?;
    effects_of(&events, tx).await?;
    if events.iter().any(|event| event.order == 2) {
        return Err("there is a 2".into());
    }
    Ok(())
}

fn batches(wait: Duration) -> HandlerSettings {
    HandlerSettings {
        batch: BatchSettings {
            wait,
            ..BatchSettings::default()
        },
        ..quick(3)
    }
}

#[tokio::test]
async fn a_batch_that_waits_for_more_is_handled_as_it_is_when_its_partition_is_revoked() {
    let play = play_with(|builder, gate| {
        let builder = builder.on_batch_with("*", gate, batch_waits);
        builder.with(batches(Duration::from_secs(60)))
    })
    .await;
    play.gate.add_permits(5);

    play.member.say(vec![delivery(3, None), delivery(4, None)]);
    play.member.say(vec![play.member.revoking(SOON)]);
    play.member.book.has(Did::Released).await;

    let (effects, did) = play.end().await;
    assert_eq!(did, [Did::Ack(3), Did::Ack(4), Did::Released, Did::Closed]);
    assert_eq!(effects, [3, 4]);
}

#[tokio::test]
async fn a_batch_that_waits_for_more_is_handled_as_it_is_at_a_stop_and_forgotten_with_a_lost_partition()
 {
    for lost in [false, true] {
        let play = play_with(|builder, gate| {
            let builder = builder.on_batch_with("*", gate, batch_waits);
            builder.with(batches(Duration::from_secs(60)))
        })
        .await;
        play.gate.add_permits(5);
        play.member
            .say(vec![delivery(3, Some(Duration::from_millis(300)))]);
        // It is held, and not handled yet.
        play.member.book.has(Did::Extend(3)).await;
        if lost {
            play.member.say(vec![Arrival::Lost(partition())]);
            // Read behind the loss, and handled at the stop.
            play.member.say(vec![
                Arrival::Assigned(partition()),
                delivery(4, Some(Duration::from_millis(300))),
            ]);
            play.member.book.has(Did::Extend(4)).await;
        }

        let gate = play.gate.clone();
        let (effects, did) = play.end().await;

        let handled = if lost { 4 } else { 3 };
        let acks = did.into_iter();
        let acks: Vec<Did> = acks.filter(|did| matches!(did, Did::Ack(_))).collect();
        assert_eq!(acks, [Did::Ack(handled)]);
        assert_eq!(effects, [i64::try_from(handled).unwrap()]);
        assert_eq!(gate.available_permits(), 4);
    }
}

#[tokio::test]
async fn a_batch_that_fails_while_its_partition_goes_is_not_handled_one_by_one() {
    for lost in [false, true] {
        let play = play_with(|builder, gate| {
            let builder = builder.on_batch_with("*", gate, batch_waits);
            builder.with(batches(Duration::ZERO))
        })
        .await;
        play.member.say(vec![delivery(1, None), delivery(2, None)]);
        play.gate.has_a_handler().await;

        let goes = if lost {
            Arrival::Lost(partition())
        } else {
            play.member.revoking(SOON)
        };
        // The third waits for its key behind the batch, or is given back.
        play.member.say(vec![goes]);
        play.member
            .say(vec![Arrival::Assigned(partition()), delivery(3, None)]);
        if lost {
            play.gate.add_permits(5);
            play.member.book.has(Did::Ack(3)).await;
        } else {
            play.gate.add_permits(1);
            play.member.book.has(Did::GiveBack(2)).await;
        }

        play.gate.add_permits(5);
        let (effects, did) = play.end().await;
        assert!(
            !did.contains(&Did::Ack(1)) && !did.contains(&Did::Ack(2)),
            "{did:?}"
        );
        assert!(
            !effects.contains(&1) && !effects.contains(&2),
            "{effects:?}"
        );
    }
}

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use onceward_core::{Acker as _, Delivery, Order, SubscribeErrorKind, Subscriber as _};
use onceward_sqs::{Sqs, SqsConfig, SqsToken, SubscriberConfig};
use onceward_testkit::sqs::Act;
use onceward_testkit::{unique, wait};

use crate::{PATIENCE, Stage, offer, read};

#[tokio::test]
async fn a_delivery_that_ran_out_comes_again_and_its_old_ack_is_ignored() {
    let stage = Stage::fifo().await;
    offer(&mut stage.session().await, &[stage.message("k", "x")]).await;
    let mut member = stage.member(Duration::from_secs(5)).await;

    let first = read(&mut member, 1).await.remove(0);
    let second = read(&mut member, 1).await.remove(0);

    assert_eq!(first.origin.redelivered, Some(0));
    assert_eq!(second.origin.redelivered, Some(1));
    assert!(first.origin.sent_at.is_some());
    let acker = member.acker();
    acker.ack(vec![first.token.clone()]).await.unwrap();
    acker
        .give_back(vec![first.token], Duration::ZERO)
        .await
        .unwrap();
    acker.ack(vec![second.token.clone()]).await.unwrap();
    // Once more, as after an answer that was lost.
    acker.ack(vec![second.token]).await.unwrap();
    let empty = || async { member_backlog(&stage).await == 0 };
    wait::until_true(PATIENCE, "an empty queue", empty).await;
}

async fn member_backlog(stage: &Stage) -> u64 {
    let mut member = stage.member(Duration::from_secs(1)).await;
    member.backlog().await.unwrap()[0].count
}

#[tokio::test]
async fn what_waits_in_a_member_does_not_run_out_and_what_is_extended_neither() {
    let stage = Stage::fifo().await;
    offer(
        &mut stage.session().await,
        &[stage.message("a", "x"), stage.message("b", "y")],
    )
    .await;
    let visibility = Duration::from_secs(10);
    let mut member = stage.member(visibility).await;
    let acker = member.acker();

    let in_work = read(&mut member, 1).await.remove(0);
    let mut deadline = in_work.deadline.unwrap();
    let first = std::time::Instant::now() + visibility;
    // Time itself is what is waited for here: the first deadline has to pass.
    while std::time::Instant::now() < first {
        tokio::time::sleep_until((deadline - visibility / 2).into()).await;
        deadline = acker.extend(vec![in_work.token.clone()]).await.unwrap()[0].unwrap();
    }
    let waited = read(&mut member, 1).await.remove(0);

    assert_eq!(waited.origin.redelivered, Some(0));
    assert!(waited.deadline.unwrap() > std::time::Instant::now());
    acker.ack(vec![in_work.token, waited.token]).await.unwrap();
    let left = member.backlog().await.unwrap()[0].count;
    assert_eq!(left, 0);
}

/// A visibility of longer than the test's patience: what comes to another member was given back.
const FOR_LONG: Duration = Duration::from_secs(600);

#[tokio::test]
async fn a_member_that_rests_gives_all_back_in_order_and_receives_nothing_until_it_is_told_to() {
    let stage = Stage::fifo().await;
    let messages: Vec<_> = (0..6).map(|n| stage.message("k", format!("{n}"))).collect();
    offer(&mut stage.session().await, &messages).await;
    let mut resting = stage.member(FOR_LONG).await;
    let handed_out = read(&mut resting, 2).await;
    let acker = resting.acker();

    // Polls of it may be under way, and must not take what it gives back.
    acker.rest(true);
    let tokens = handed_out.into_iter().map(|one| one.token).collect();
    acker.give_back(tokens, Duration::ZERO).await.unwrap();
    let mut other = stage.member(FOR_LONG).await;
    let mut bodies = Vec::new();
    while bodies.len() < 6 {
        // It is given no more of the group before what it has of it is acked.
        let delivery = read(&mut other, 1).await.remove(0);
        let times = delivery.origin.redelivered.unwrap();
        assert!(times <= 1, "received {times} times before");
        bodies.push(payload(&delivery));
        other.acker().ack(vec![delivery.token]).await.unwrap();
    }
    assert_eq!(bodies, ["0", "1", "2", "3", "4", "5"]);
    other.close(Duration::from_secs(5)).await;
    offer(&mut stage.session().await, &[stage.message("k", "6")]).await;
    // Time itself is what is waited for here: a member that polls would have it by then.
    let nothing = tokio::time::timeout(Duration::from_secs(2), resting.next(1)).await;
    let nothing = nothing.map(Result::unwrap);
    assert!(nothing.is_err(), "{nothing:?}");

    acker.rest(false);
    let last = read(&mut resting, 1).await.remove(0);
    assert_eq!(payload(&last), "6");
    assert_eq!(last.origin.redelivered, Some(0));
}

#[tokio::test]
async fn what_sqs_does_not_take_back_for_now_goes_back_later_and_receiving_goes_on_meanwhile() {
    let stage = Stage::fifo().await;
    let messages: Vec<_> = (0..3).map(|n| stage.message("k", format!("{n}"))).collect();
    offer(&mut stage.session().await, &messages).await;
    let mut member = stage.member(FOR_LONG).await;
    let held = read(&mut member, 3).await;
    let refusals = Arc::new(AtomicU32::new(0));
    let count = refusals.clone();
    stage.gate.script(move |call| match call.action.as_str() {
        "ChangeMessageVisibilityBatch" => match count.fetch_add(1, Ordering::SeqCst) {
            0 => Act::refuse(503, "ServiceUnavailable"),
            _ => Act::fail(call.ids()),
        },
        _ => Act::Pass,
    });
    let refused = |times| {
        let refusals = refusals.clone();
        let what = format!("{times} refusals");
        async move {
            let enough = || async { refusals.load(Ordering::SeqCst) >= times };
            wait::until_true(PATIENCE, &what, enough).await;
        }
    };

    let acker = member.acker();
    acker.rest(true);
    let tokens = held.into_iter().map(|one| one.token).collect();
    acker.give_back(tokens, Duration::ZERO).await.unwrap();
    refused(2).await;
    acker.rest(false);
    offer(&mut stage.session().await, &[stage.message("l", "other")]).await;
    let other = read(&mut member, 1).await.remove(0);
    refused(4).await;
    stage.gate.script(|_| Act::Pass);

    assert_eq!(payload(&other), "other");
    for n in 0..3 {
        let delivery = read(&mut member, 1).await.remove(0);
        assert_eq!(payload(&delivery), n.to_string());
        assert_eq!(delivery.origin.redelivered, Some(1));
        acker.ack(vec![delivery.token]).await.unwrap();
    }
}

fn payload(delivery: &Delivery<SqsToken>) -> String {
    let message = delivery.message.as_ref().unwrap();
    String::from_utf8(message.payload.to_vec()).unwrap()
}

#[tokio::test]
async fn an_ack_that_sqs_refuses_for_now_is_told_and_tried_again() {
    let stage = Stage::fifo().await;
    let messages: Vec<_> = (0..3)
        .map(|n| stage.message(&format!("k{n}"), "x"))
        .collect();
    offer(&mut stage.session().await, &messages).await;
    let mut member = stage.member(Duration::from_secs(30)).await;
    let tokens: Vec<_> = read(&mut member, 3)
        .await
        .into_iter()
        .map(|one| one.token)
        .collect();
    stage.gate.script(|call| match call.action.as_str() {
        "DeleteMessageBatch" => Act::fail(["1".to_owned()]),
        _ => Act::Pass,
    });
    let acker = member.acker();

    let refused = acker.ack(tokens.clone()).await;
    stage.gate.script(|_| Act::Pass);
    acker.ack(tokens).await.unwrap();

    assert_eq!(refused.unwrap_err().kind, SubscribeErrorKind::Unavailable);
    assert_eq!(member.backlog().await.unwrap()[0].count, 0);
}

#[tokio::test]
async fn a_member_is_refused_a_queue_that_does_not_exist_or_keeps_no_order() {
    let stage = Stage::without_queue().await;
    let join = |queue: String| {
        let sqs = stage.sqs();
        async move {
            sqs.subscriber(SubscriberConfig::new([queue]))
                .await
                .map(drop)
        }
    };

    let missing = join(stage.queue.clone()).await.unwrap_err();
    let standard = join("orders".to_owned()).await.unwrap_err();

    assert_eq!(missing.kind, SubscribeErrorKind::Misconfigured);
    assert!(missing.what.contains(&stage.queue), "{missing}");
    assert_eq!(standard.kind, SubscribeErrorKind::Misconfigured);
}

#[tokio::test]
async fn a_member_of_a_standard_queue_promises_no_order() {
    let stage = Stage::without_queue().await;
    let queue = unique("standard");
    stage.server.create_queue(&queue, &[]).await;
    let mut config = SqsConfig::emulator(stage.gate.url());
    config.order = Order::None;

    let member = Sqs::new(config)
        .subscriber(SubscriberConfig::new([queue]))
        .await;

    assert_eq!(member.unwrap().capabilities().order, Order::None);
}

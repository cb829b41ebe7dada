use onceward_core::{Arrival, Delivery, Subscriber as _};
use onceward_testkit::sqs::{Act, Gate};
use onceward_testkit::unique;
use serde_json::json;
use tokio::sync::mpsc;

use super::*;
use crate::{Sqs, SqsConfig, SqsSubscriber, SubscriberConfig};

/// A member on a queue of its own, behind a gate, with so many deliveries of it.
async fn reading(count: usize) -> (Gate, SqsSubscriber, Vec<Delivery<SqsToken>>) {
    let server = onceward_testkit::sqs::Sqs::shared().await;
    let gate = Gate::to(server.port()).await;
    let queue = format!("{}.fifo", unique("acked"));
    let url = server.create_queue(&queue, &[]).await;
    for number in 0..count {
        let message = json!({
            "QueueUrl": url, "MessageBody": "{}",
            "MessageGroupId": number.to_string(), "MessageDeduplicationId": number.to_string(),
        });
        server.call("SendMessage", message).await;
    }
    let mut config = SubscriberConfig::new([queue]);
    config.wait = Duration::from_secs(1);
    let sqs = Sqs::new(SqsConfig::emulator(gate.url()));
    let mut member = sqs.subscriber(config).await.unwrap();
    let mut deliveries = Vec::new();
    while deliveries.len() < count {
        for arrival in member.next(count - deliveries.len()).await.unwrap() {
            if let Arrival::Delivery(delivery) = arrival {
                deliveries.push(delivery);
            }
        }
    }
    (gate, member, deliveries)
}

/// Which deadlines are later than those that the deliveries came with; the others are as they were.
fn extended(deliveries: &[Delivery<SqsToken>], deadlines: &[Option<Instant>]) -> Vec<bool> {
    let before = deliveries.iter().map(|one| one.deadline);
    let both = before.zip(deadlines);
    both.map(|(before, after)| {
        assert!(*after >= before, "{after:?} is before {before:?}");
        *after > before
    })
    .collect()
}

#[tokio::test]
async fn a_delivery_is_extended_up_to_twelve_hours_in_all_and_never_beyond() {
    let (gate, member, mut deliveries) = reading(1).await;
    let (asked, mut calls) = mpsc::unbounded_channel();
    gate.script(move |call| {
        if call.action == "ChangeMessageVisibilityBatch" {
            let seconds = call.body["Entries"][0]["VisibilityTimeout"].as_u64();
            asked.send(seconds.unwrap()).unwrap();
        }
        Act::Pass
    });
    let acker = member.acker();
    let mut token = deliveries.remove(0).token;

    // What is left of twelve hours, and for how long SQS is asked then: by default for 30 s.
    for (left, seconds) in [(3_600, Some(30)), (10, Some(9)), (2, None), (0, None)] {
        let ago = HOLD_LIMIT - Duration::from_secs(left);
        token.received = Instant::now().checked_sub(ago).unwrap();
        let limit = token.received + HOLD_LIMIT;

        let deadlines = acker.extend(vec![token.clone()]).await.unwrap();

        assert!(deadlines[0].unwrap() <= limit, "{left} s were left");
        assert_eq!(calls.try_recv().ok(), seconds, "{left} s were left");
    }
}

#[tokio::test]
async fn what_sqs_has_extended_is_held_until_its_new_deadline_whatever_became_of_the_others() {
    let (gate, mut member, deliveries) = reading(12).await;
    let acker = member.acker();
    let tokens: Vec<SqsToken> = deliveries.iter().map(|one| one.token.clone()).collect();
    let first = deliveries.iter().filter_map(|one| one.deadline).max();
    let first = first.unwrap();
    // Ten of one call, of which one is refused by itself, and two of a call that fails as a whole.
    gate.script(|call| match call.action.as_str() {
        "ChangeMessageVisibilityBatch" if call.entries().len() == 2 => {
            Act::refuse(503, "ServiceUnavailable")
        }
        "ChangeMessageVisibilityBatch" => Act::fail(["3".to_owned()]),
        _ => Act::Pass,
    });

    let deadlines = acker.extend(tokens.clone()).await.unwrap();

    let expected: Vec<bool> = (0..12).map(|place| place != 3 && place < 10).collect();
    assert_eq!(extended(&deliveries, &deadlines), expected);
    acker.held.forget_expired(first);
    acker.ack(tokens).await.unwrap();
    // Those that were not extended may be somebody else's by then.
    assert_eq!(member.backlog().await.unwrap()[0].count, 3);
}

#[tokio::test]
async fn extending_fails_only_if_nothing_was_extended() {
    let (gate, member, deliveries) = reading(2).await;
    let acker = member.acker();
    let tokens: Vec<SqsToken> = deliveries.iter().map(|one| one.token.clone()).collect();
    let refuse = |entries: &'static [&'static str]| {
        gate.script(move |call| match call.action.as_str() {
            "ChangeMessageVisibilityBatch" => Act::fail(entries.iter().map(ToString::to_string)),
            _ => Act::Pass,
        });
    };

    refuse(&["0", "1"]);
    let none = acker.extend(tokens.clone()).await;
    refuse(&["1"]);
    let one = acker.extend(tokens).await;

    assert_eq!(none.unwrap_err().kind, SubscribeErrorKind::Unavailable);
    assert_eq!(extended(&deliveries, &one.unwrap()), [true, false]);
}

#[test]
fn sqs_counts_whole_seconds_and_a_short_wait_is_one() {
    for (millis, whole) in [(0, 0), (1, 1), (999, 1), (1_000, 1), (2_900, 2)] {
        assert_eq!(seconds(Duration::from_millis(millis)), whole, "{millis}");
    }
}

#[test]
fn nothing_is_held_beyond_twelve_hours_in_all() {
    let token = |ago: Duration| SqsToken {
        number: 1,
        queue: 0,
        group: None,
        receipt: "r".into(),
        received: Instant::now().checked_sub(ago).unwrap_or_else(Instant::now),
    };

    assert!(left(&token(Duration::ZERO)) <= HOLD_LIMIT);
    let minute = Duration::from_secs(60);
    assert!(left(&token(minute)) <= HOLD_LIMIT - minute);
}

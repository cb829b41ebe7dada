use std::collections::BTreeSet;

use aws_sdk_sqs::types::Message;
use onceward_core::{Arrival, Partition};

use super::*;
use crate::SqsConfig;
use crate::queue::QueueName;
use crate::subscriber::held::Held;

/// A member of so many queues of a server that is not there.
async fn member(queues: usize) -> Member {
    let sqs = Sqs::new(SqsConfig::emulator("http://127.0.0.1:9"));
    let client = Shared::new(sqs.client().await);
    let readings = (0..queues).map(|number| Reading {
        name: QueueName::parse(&format!("orders-{number}.fifo")).unwrap(),
        url: format!("http://127.0.0.1:9/0/orders-{number}.fifo"),
        partition: Partition::new(&format!("orders-{number}.fifo")),
        retention: None,
    });
    let readings: Arc<[Reading]> = readings.collect();
    let shelf = Arc::new(Shelf::new(std::iter::empty()));
    let config = SubscriberConfig::new(["orders-0.fifo"]);
    let acker = SqsAcker::new(
        client.clone(),
        readings.clone(),
        Held::default(),
        shelf.clone(),
        config.visibility,
    );
    let (_commands, inbox) = mpsc::unbounded_channel();
    Member::new(sqs, client, readings, config, shelf, acker, inbox)
}

/// An answer with so many messages.
fn brought(count: usize) -> Received {
    let message = Message::builder().receipt_handle("r").body("{}").build();
    Received {
        messages: vec![message; count],
        at: Instant::now(),
    }
}

#[tokio::test]
async fn a_queue_is_polled_again_after_a_poll_that_ended_without_an_answer() {
    let mut member = member(1).await;
    member.poll_where_it_may();
    member.poll_where_it_may();
    assert_eq!(member.polls.len(), 1);

    member.polls.abort_all();
    let polled = member.polls.join_next_with_id().await.unwrap();
    assert!(polled.is_err());
    member.on_polled(polled).await;
    assert_eq!(member.may_come(), 0);
    member.look(Instant::now() + BETWEEN_FAILURES.max);
    member.poll_where_it_may();

    assert_eq!(member.polls.len(), 1);
}

/// The queues that are being polled.
fn polled(member: &Member) -> BTreeSet<usize> {
    member.asked.values().map(|asked| asked.queue).collect()
}

#[tokio::test]
async fn each_of_many_queues_is_polled_while_the_buffer_has_room_for_that() {
    let mut member = member(60).await;

    member.poll_where_it_may();

    assert_eq!(polled(&member), (0..60).collect());
    assert!(member.may_come() <= member.config.buffer);
}

#[tokio::test]
async fn queues_for_which_there_is_no_room_get_their_turn() {
    let mut member = member(5).await;
    member.config.buffer = 2;
    let mut seen = BTreeSet::new();

    for _ in 0..4 {
        member.poll_where_it_may();
        seen.extend(polled(&member));
        assert_eq!(member.asked.len(), 2);
        let first = member.asked.iter().min_by_key(|(_, asked)| asked.queue);
        let id = *first.unwrap().0;
        member.on_polled(Ok((id, Ok(brought(0))))).await;
    }

    assert_eq!(seen, (0..5).collect());
}

#[tokio::test]
async fn the_time_of_a_delivery_counts_from_its_answer_however_late_the_member_looks() {
    let mut member = member(1).await;
    member.poll_where_it_may();
    let id = *member.asked.keys().next().unwrap();
    let mut answer = brought(1);
    answer.at = Instant::now() - Duration::from_secs(7);
    let until = answer.at + member.config.visibility;

    member.on_polled(Ok((id, Ok(answer)))).await;
    let arrivals = member.shelf.take(1).await.unwrap();

    let [Arrival::Delivery(delivery)] = &arrivals[..] else {
        panic!("{arrivals:?}");
    };
    assert_eq!(delivery.deadline, Some(until));
    let just_after = until + Duration::from_millis(1);
    assert!(!member.acker.has(&delivery.token, just_after));
}

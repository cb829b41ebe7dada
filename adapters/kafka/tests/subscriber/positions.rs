use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use onceward_core::{Acker, Arrival, Partition, Subscriber};
use onceward_testkit::kafka::Kafka as Broker;
use onceward_testkit::{unique, wait};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use tokio::time::timeout;

use crate::support::*;
use crate::{arrivals, committed, deliveries, filled, member, number, tokens};

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_comes_in_order_with_positions_and_what_was_acked_does_not_come_again() {
    let broker = Broker::shared().await;
    let topic = filled(broker, 1, 100).await;
    let kafka = kafka(broker.brokers());
    let group = unique("g");

    let mut first = member(&kafka, &group, &topic);
    let got = deliveries(&mut first, 100, &mut Vec::new()).await;
    assert_eq!(
        got.iter().map(number).collect::<Vec<_>>(),
        (1..=100).collect::<Vec<_>>()
    );
    assert_eq!(got[7].origin.position, Some(7));
    assert_eq!(got[7].origin.partition.as_str(), format!("{topic}/0"));
    assert!(got[7].origin.sent_at.is_some() && got[7].deadline.is_none());
    // The gap at 51 holds back everything behind it.
    let mut acked = tokens(&got);
    acked.remove(50);
    first.acker().ack(acked).await.unwrap();
    first.close(Duration::from_secs(20)).await;

    let mut second = member(&kafka, &group, &topic);
    let again = deliveries(&mut second, 50, &mut Vec::new()).await;
    assert_eq!(
        again.iter().map(number).collect::<Vec<_>>(),
        (51..=100).collect::<Vec<_>>()
    );
    second.close(Duration::from_secs(20)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_dropped_leaves_its_group_at_once() {
    let broker = Broker::shared().await;
    let topic = filled(broker, 1, 10).await;
    let kafka = kafka(broker.brokers());
    let group = unique("g");
    let mut first = member(&kafka, &group, &topic);
    deliveries(&mut first, 10, &mut Vec::new()).await;

    drop(first);
    let mut second = member(&kafka, &group, &topic);

    // The session's timeout is 45 s.
    let got = timeout(
        Duration::from_secs(20),
        deliveries(&mut second, 10, &mut Vec::new()),
    )
    .await;
    assert_eq!(got.unwrap().len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_are_committed_while_running() {
    let broker = Broker::shared().await;
    let topic = filled(broker, 1, 20).await;
    let kafka = kafka(broker.brokers());
    let group = unique("g");
    let mut first = member(&kafka, &group, &topic);
    let got = deliveries(&mut first, 20, &mut Vec::new()).await;
    first.acker().ack(tokens(&got)).await.unwrap();

    wait::until_true(PATIENCE, "the position to be committed", || {
        committed(broker, &group, &topic, 20)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_partition_waits_and_the_others_go_on() {
    let broker = Broker::shared().await;
    let topic = filled(broker, 2, 1_000).await;
    let mut member = member(&kafka(broker.brokers()), &unique("g"), &topic);
    let paused = Partition::new(&format!("{topic}/0"));
    let mut assigned = 0;
    while assigned < 2 {
        // No room would be no arrival at all: one delivery may come.
        for arrival in arrivals(&mut member, 1).await {
            match arrival {
                Arrival::Assigned(_) => assigned += 1,
                Arrival::Delivery(_) => {}
                Arrival::Revoking { .. } | Arrival::Lost(_) | Arrival::Jumped { .. } => {
                    panic!("nothing else has happened")
                }
            }
        }
    }

    member.pause(&paused, true);
    let mut got = BTreeMap::new();
    // Two seconds of silence behind the first that comes.
    let patience = |got: &BTreeMap<_, i32>| match got.len() {
        0 => PATIENCE,
        _ => Duration::from_secs(2),
    };
    while let Ok(next) = timeout(patience(&got), member.next(100)).await {
        for arrival in next.unwrap() {
            if let Arrival::Delivery(delivery) = arrival {
                *got.entry(delivery.origin.partition).or_insert(0) += 1;
            }
        }
    }
    assert_eq!(got.get(&paused), None);
    assert!(got.len() == 1, "{got:?}");

    member.pause(&paused, false);
    let more = deliveries(&mut member, 10, &mut Vec::new()).await;
    assert!(
        more.iter()
            .all(|delivery| delivery.origin.partition == paused)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_next_loses_nothing() {
    let broker = Broker::shared().await;
    let topic = filled(broker, 3, 3_000).await;
    let mut member = member(&kafka(broker.brokers()), &unique("g"), &topic);

    let mut got = BTreeSet::new();
    let all = async {
        while got.len() < 3_000 {
            // Most of these are dropped before they end.
            if let Ok(next) = timeout(Duration::from_micros(50), member.next(7)).await {
                for arrival in next.unwrap() {
                    if let Arrival::Delivery(delivery) = arrival {
                        assert!(got.insert(number(&delivery)));
                    }
                }
            }
        }
    };
    timeout(PATIENCE, all).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn backlog_counts_what_is_not_acked() {
    let broker = Broker::shared().await;
    let topic = filled(broker, 1, 40).await;
    let kafka = kafka(broker.brokers());
    let group = unique("g");
    let mut first = member(&kafka, &group, &topic);
    let got = deliveries(&mut first, 10, &mut Vec::new()).await;

    let before = first.backlog().await.unwrap();
    assert_eq!((before.len(), before[0].count), (1, 40));
    assert_eq!(before[0].oldest, got[0].origin.sent_at);
    first.acker().ack(tokens(&got[..10])).await.unwrap();
    let after = first.backlog().await.unwrap();
    assert_eq!((after[0].count, after[0].oldest), (30, None));
    let rest = deliveries(&mut first, 30, &mut Vec::new()).await;
    first.acker().ack(tokens(&rest)).await.unwrap();
    assert_eq!(first.backlog().await.unwrap()[0].count, 0);
    first.close(Duration::from_secs(20)).await;

    // A member that has received nothing yet knows the group's position.
    let mut second = member(&kafka, &group, &topic);
    arrivals(&mut second, 1).await;
    assert_eq!(second.backlog().await.unwrap()[0].count, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_record_is_read_as_far_as_it_can_be() {
    let broker = Broker::shared().await;
    let topic = unique("s");
    broker.create_topic(&topic, 1, &[]).await;
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", broker.brokers())
        .create()
        .unwrap();
    let header = |key: &'static str, value: &'static [u8]| {
        OwnedHeaders::new().insert(Header {
            key,
            value: Some(value),
        })
    };
    let send = async |headers: Option<OwnedHeaders>, payload: Option<&str>| {
        let mut record: FutureRecord<'_, str, str> = FutureRecord::to(&topic);
        record.payload = payload;
        record.headers = headers;
        producer.send(record, PATIENCE).await.unwrap();
    };
    send(None, None).await;
    send(Some(header("ce_id", b"order 17")), Some("x")).await;
    send(Some(header("bad", b"\xff\xfe")), Some("y")).await;

    let mut member = member(&kafka(broker.brokers()), &unique("g"), &topic);
    let got = deliveries(&mut member, 3, &mut Vec::new()).await;

    let tombstone = got[0].message.as_ref().unwrap();
    assert!(tombstone.payload.is_empty() && tombstone.key.is_none());
    assert!(matches!(
        tombstone.id,
        onceward_core::MessageId::Position(_)
    ));
    assert_eq!(got[1].message.as_ref().unwrap().id.to_string(), "order 17");
    assert_eq!(&got[2].message.as_ref().unwrap_err().payload[..], b"y");
}

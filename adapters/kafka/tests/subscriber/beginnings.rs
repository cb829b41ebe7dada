use std::collections::BTreeSet;
use std::time::Duration;

use onceward_core::{Acker, Arrival, Subscriber};
use onceward_kafka::{Kafka, KafkaSubscription, Start};
use onceward_testkit::kafka::Kafka as Broker;
use onceward_testkit::{unique, wait};
use tokio::time::timeout;

use crate::support::*;
use crate::{arrivals, committed, committed_in, deliveries, fill, filled, member, number, tokens};

#[tokio::test(flavor = "multi_thread")]
async fn latest_counts_once_and_what_comes_while_nobody_reads_is_read_later() {
    let broker = Broker::shared().await;
    let topic = filled(broker, 1, 10).await;
    let kafka = kafka(broker.brokers());
    let group = unique("g");
    let subscription = || KafkaSubscription::new(&*group, [&topic]).start(Start::Latest);
    let mut first = kafka.subscriber(subscription()).unwrap();
    let assigned = arrivals(&mut first, 10).await;
    assert!(
        matches!(assigned[..], [Arrival::Assigned(_)]),
        "{assigned:?}"
    );
    wait::until_true(PATIENCE, "the start to be committed", || {
        committed(broker, &group, &topic, 10)
    })
    .await;
    first.close(Duration::from_secs(20)).await;

    fill(broker, &topic, 11, 15).await;
    let mut second = kafka.subscriber(subscription()).unwrap();

    let got = deliveries(&mut second, 5, &mut Vec::new()).await;
    assert_eq!(
        got.iter().map(number).collect::<Vec<_>>(),
        (11..=15).collect::<Vec<_>>()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn latest_leaves_out_nothing_of_a_partition_that_was_added_while_nobody_read() {
    let broker = Broker::shared().await;
    let topic = filled(broker, 1, 10).await;
    let kafka = kafka(broker.brokers());
    let group = unique("g");
    let subscription = || KafkaSubscription::new(&*group, [&topic]).start(Start::Latest);
    let mut first = kafka.subscriber(subscription()).unwrap();
    arrivals(&mut first, 10).await;
    wait::until_true(PATIENCE, "the start to be committed", || {
        committed(broker, &group, &topic, 10)
    })
    .await;
    first.close(Duration::from_secs(20)).await;

    add_partitions(broker.brokers(), &topic, 3).await;
    fill(broker, &topic, 11, 60).await;
    let mut second = kafka.subscriber(subscription()).unwrap();

    let got = deliveries(&mut second, 50, &mut Vec::new()).await;
    let numbers: BTreeSet<_> = got.iter().map(number).collect();
    assert_eq!(numbers, (11..=60).collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn latest_leaves_out_nothing_of_an_added_partition_that_a_new_member_gets_alone() {
    let broker = Broker::shared().await;
    let topic = filled(broker, 1, 10).await;
    let kafka = kafka(broker.brokers());
    let group = unique("g");
    let subscription = || KafkaSubscription::new(&*group, [&topic]).start(Start::Latest);
    let mut first = kafka.subscriber(subscription()).unwrap();
    arrivals(&mut first, 10).await;
    wait::until_true(PATIENCE, "the start to be committed", || {
        committed(broker, &group, &topic, 10)
    })
    .await;

    // The first member keeps the first partition, so that the second has only the new one.
    add_partitions(broker.brokers(), &topic, 2).await;
    fill(broker, &topic, 11, 60).await;
    let mut second = kafka.subscriber(subscription()).unwrap();

    let mut numbers = BTreeSet::new();
    let all = async {
        while numbers.len() < 50 {
            let (first, second) = (first.next(50), second.next(50));
            let next = tokio::select! { next = first => next, next = second => next };
            for arrival in next.unwrap() {
                if let Arrival::Delivery(delivery) = arrival {
                    numbers.insert(number(&delivery));
                }
            }
        }
    };
    timeout(PATIENCE, all).await.unwrap();
    assert_eq!(numbers, (11..=60).collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_begins_has_a_position_in_every_partition_at_once() {
    let broker = Broker::shared().await;
    let topic = unique("s");
    let config = onceward_kafka::KafkaConfig::new(broker.brokers())
        .property("topic.metadata.refresh.interval.ms", "500");
    let kafka = Kafka::new(config).unwrap();
    let group = unique("g");
    let subscription = || KafkaSubscription::new(&*group, [&topic]).start(Start::Latest);
    // Both are in the group before there is anything to share, so that each is given a partition of a topic that nobody has read.
    let mut first = kafka.subscriber(subscription()).unwrap();
    let mut second = kafka.subscriber(subscription()).unwrap();
    for member in [&mut first, &mut second] {
        timeout(PATIENCE, member.next(1))
            .await
            .unwrap()
            .unwrap_err();
    }

    broker.create_topic(&topic, 2, &[]).await;

    let mut assigned = BTreeSet::new();
    let both = async {
        while assigned.len() < 2 {
            let (one, other) = (first.next(1), second.next(1));
            let (who, next) = tokio::select! { next = one => (1, next), next = other => (2, next) };
            for arrival in next.unwrap_or_default() {
                if let Arrival::Assigned(partition) = arrival {
                    assigned.insert((who, partition));
                }
            }
        }
    };
    timeout(PATIENCE, both).await.unwrap();
    for partition in [0, 1] {
        wait::until_true(PATIENCE, "the group to have a position in it", || {
            committed_in(broker, &group, &topic, partition, 0)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_took_before_a_member_came_is_told() {
    let broker = Broker::shared().await;
    let topic = filled(broker, 1, 30).await;
    let kafka = kafka(broker.brokers());
    let group = unique("g");
    let mut first = member(&kafka, &group, &topic);
    let got = deliveries(&mut first, 10, &mut Vec::new()).await;
    first.acker().ack(tokens(&got[..5])).await.unwrap();
    first.close(Duration::from_secs(20)).await;

    forget_all_but(broker.brokers(), &topic, 10).await;
    let mut second = member(&kafka, &group, &topic);
    let mut others = Vec::new();
    let got = deliveries(&mut second, 10, &mut others).await;

    assert_eq!(
        got.iter().map(number).collect::<Vec<_>>(),
        (21..=30).collect::<Vec<_>>()
    );
    assert!(
        others.iter().any(|other| matches!(
            other,
            Arrival::Jumped {
                from: 5,
                to: 20,
                ..
            }
        )),
        "{others:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_took_while_a_member_waited_is_told() {
    let broker = Broker::shared().await;
    let topic = unique("s");
    broker.create_topic(&topic, 1, &[]).await;
    // Large enough that the member cannot have fetched all of them ahead.
    let large = |n: usize| outgoing(&topic, Some("k"), format!("{n:060000}"));
    let messages: Vec<_> = (1..=100).map(large).collect();
    let receipts = publish(&mut kafka(broker.brokers()).publisher(), &messages).await;
    assert!(receipts.all_confirmed());
    let config = onceward_kafka::KafkaConfig::new(broker.brokers())
        .property("queued.min.messages", "1")
        .property("queued.max.messages.kbytes", "200")
        .property("fetch.message.max.bytes", "200000");
    let kafka = Kafka::new(config).unwrap();
    let mut member = member(&kafka, &unique("g"), &topic);
    let first = deliveries(&mut member, 1, &mut Vec::new()).await;
    assert_eq!(number(&first[0]), 1);

    forget_all_but(broker.brokers(), &topic, 10).await;
    let mut others = Vec::new();
    let mut numbers = Vec::new();
    while numbers.last() != Some(&100) {
        let got = deliveries(&mut member, 1, &mut others).await;
        numbers.push(number(&got[0]));
    }

    let jumps: Vec<_> = others
        .iter()
        .filter_map(|other| {
            if let Arrival::Jumped { from, to, .. } = other {
                Some((*from, *to))
            } else {
                None
            }
        })
        .collect();
    assert_eq!(jumps.len(), 1, "{others:?}");
    assert_eq!(jumps[0].1, 90);
    let before = numbers.len() - 10;
    assert_eq!(jumps[0].0, before as u64 + 1);
    assert_eq!(numbers[before..], (91..=100).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_does_not_exist_is_told_and_read_once_it_does() {
    let broker = Broker::shared().await;
    let topic = unique("later");
    let config = onceward_kafka::KafkaConfig::new(broker.brokers())
        .property("topic.metadata.refresh.interval.ms", "500");
    let kafka = Kafka::new(config).unwrap();
    let mut member = member(&kafka, &unique("g"), &topic);

    let error = timeout(PATIENCE, member.next(1))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind, onceward_core::SubscribeErrorKind::Unavailable);
    broker.create_topic(&topic, 1, &[]).await;
    fill(broker, &topic, 1, 3).await;

    let mut got = 0;
    let all = async {
        while got < 3 {
            if let Ok(arrivals) = member.next(3).await {
                got += arrivals
                    .iter()
                    .filter(|arrival| matches!(arrival, Arrival::Delivery(_)))
                    .count();
            }
        }
    };
    timeout(PATIENCE, all).await.unwrap();
}

//! Members on a real broker: order, positions, rebalances, and jumps that are told.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests fail by panicking"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use onceward_core::{Acker, Arrival, Delivery, Partition, Subscriber};
use onceward_kafka::{Kafka, KafkaSubscriber, KafkaSubscription, KafkaToken, Start};
use onceward_testkit::kafka::{Kafka as Broker, Options};
use onceward_testkit::{unique, wait};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use support::*;
use tokio::time::timeout;

async fn filled(broker: &Broker, partitions: u16, messages: usize) -> String {
    let topic = unique("s");
    broker.create_topic(&topic, partitions, &[]).await;
    fill(broker, &topic, 1, messages).await;
    topic
}

/// Puts numbered messages of ten keys into a topic.
async fn fill(broker: &Broker, topic: &str, from: usize, to: usize) {
    let messages: Vec<_> = (from..=to)
        .map(|n| outgoing(topic, Some(&format!("k{}", n % 10)), format!("{n:06}")))
        .collect();
    let receipts = publish(&mut kafka(broker.brokers()).publisher(), &messages).await;
    assert!(receipts.all_confirmed());
}

fn member(kafka: &Kafka, group: &str, topic: &str) -> KafkaSubscriber {
    kafka
        .subscriber(KafkaSubscription::new(group, [topic]))
        .unwrap()
}

async fn arrivals(member: &mut KafkaSubscriber, room: usize) -> Vec<Arrival<KafkaToken>> {
    let next = timeout(PATIENCE, member.next(room)).await;
    next.expect("something arrives").unwrap()
}

/// Deliveries until there are `count`; everything else is put into `others`.
async fn deliveries(
    member: &mut KafkaSubscriber,
    count: usize,
    others: &mut Vec<Arrival<KafkaToken>>,
) -> Vec<Delivery<KafkaToken>> {
    let mut got = Vec::new();
    while got.len() < count {
        for arrival in arrivals(member, count - got.len()).await {
            match arrival {
                Arrival::Delivery(delivery) => got.push(delivery),
                Arrival::Assigned(_)
                | Arrival::Revoking { .. }
                | Arrival::Lost(_)
                | Arrival::Jumped { .. } => others.push(arrival),
            }
        }
    }
    got
}

fn number(delivery: &Delivery<KafkaToken>) -> usize {
    let message = delivery.message.as_ref().unwrap();
    std::str::from_utf8(&message.payload)
        .unwrap()
        .parse()
        .unwrap()
}

fn tokens(deliveries: &[Delivery<KafkaToken>]) -> Vec<KafkaToken> {
    deliveries
        .iter()
        .map(|delivery| delivery.token.clone())
        .collect()
}

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

async fn committed(broker: &Broker, group: &str, topic: &str, position: i64) -> bool {
    use rdkafka::consumer::{BaseConsumer, Consumer as _};
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", broker.brokers())
        .set("group.id", group)
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, 0);
    tokio::task::spawn_blocking(move || {
        let found = consumer.committed_offsets(list, Duration::from_secs(5));
        found.is_ok_and(|found| found.elements()[0].offset() == Offset::Offset(position))
    })
    .await
    .unwrap()
}

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
    while let Ok(next) = timeout(Duration::from_secs(2), member.next(100)).await {
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

/// What three members did, in order of doing.
#[derive(Default)]
struct Journal {
    handled: Vec<(Partition, u64)>,
    owners: BTreeMap<Partition, usize>,
    overlaps: Vec<String>,
}

impl Journal {
    /// Nothing was owned by two, lost, doubled or out of order.
    fn check(&self, messages: usize) {
        assert!(self.overlaps.is_empty(), "{:?}", self.overlaps);
        let mut seen: BTreeMap<&Partition, u64> = BTreeMap::new();
        for (partition, position) in &self.handled {
            let next = seen.entry(partition).or_insert(0);
            assert!(
                position <= next,
                "{partition}: {position} came before {next}"
            );
            *next = (*next).max(position + 1);
        }
        // All were released in time, so that nothing had to come again.
        assert_eq!(self.handled.len(), messages);
    }
}

/// Reads, handles out of order and acks, until told to leave.
async fn work(
    mut member: KafkaSubscriber,
    name: usize,
    journal: Arc<Mutex<Journal>>,
    mut leave: tokio::sync::watch::Receiver<bool>,
) {
    let acker = member.acker();
    loop {
        let next = tokio::select! {
            next = member.next(20) => next.unwrap(),
            _ = leave.wait_for(|leave| *leave) => break,
        };
        let mut done = Vec::new();
        for arrival in next {
            let mut journal = journal.lock().unwrap();
            match arrival {
                Arrival::Assigned(partition) => {
                    if let Some(other) = journal.owners.insert(partition.clone(), name) {
                        journal
                            .overlaps
                            .push(format!("{partition}: {name} while {other}"));
                    }
                }
                Arrival::Revoking {
                    partition, release, ..
                } => {
                    journal.owners.remove(&partition);
                    drop(release);
                }
                Arrival::Lost(partition) => drop(journal.owners.remove(&partition)),
                Arrival::Jumped { .. } => journal.overlaps.push("jumped".to_owned()),
                Arrival::Delivery(delivery) => {
                    journal
                        .handled
                        .push((delivery.origin.partition, delivery.origin.position.unwrap()));
                    done.push(delivery.token);
                }
            }
        }
        // Handled in any order; the newest first is the worst.
        done.reverse();
        tokio::time::sleep(Duration::from_millis(2)).await;
        for token in done {
            acker.ack(vec![token]).await.unwrap();
        }
    }
    {
        let mut journal = journal.lock().unwrap();
        journal.owners.retain(|_, owner| *owner != name);
    }
    member.close(Duration::from_secs(20)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_members_come_and_go_and_nothing_is_lost_or_owned_twice() {
    let broker = Broker::shared().await;
    let topic = filled(broker, 6, 6_000).await;
    let kafka = kafka(broker.brokers());
    let group = unique("g");
    let journal: Arc<Mutex<Journal>> = Arc::default();
    let (leave, leaves) = tokio::sync::watch::channel(false);
    let (first_leaves, first_told) = tokio::sync::watch::channel(false);
    let join = |name: usize, told| {
        tokio::spawn(work(
            member(&kafka, &group, &topic),
            name,
            Arc::clone(&journal),
            told,
        ))
    };
    let handled = || journal.lock().unwrap().handled.len();

    let first = join(1, first_told);
    wait::until_true(PATIENCE, "the first to work", || async { handled() > 300 }).await;
    let second = join(2, leaves.clone());
    wait::until_true(PATIENCE, "the second to work", || async {
        journal
            .lock()
            .unwrap()
            .owners
            .values()
            .any(|owner| *owner == 2)
    })
    .await;
    let third = join(3, leaves.clone());
    wait::until_true(PATIENCE, "the third to work", || async {
        journal
            .lock()
            .unwrap()
            .owners
            .values()
            .any(|owner| *owner == 3)
    })
    .await;
    first_leaves.send_replace(true);
    first.await.unwrap();
    fill(broker, &topic, 6_001, 7_000).await;
    let everything = || {
        let journal = journal.lock().unwrap();
        journal.handled.iter().collect::<BTreeSet<_>>().len() == 7_000
    };
    wait::until_true(PATIENCE, "everything to be handled", || async {
        everything()
    })
    .await;
    leave.send_replace(true);
    second.await.unwrap();
    third.await.unwrap();

    journal.lock().unwrap().check(7_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ack_from_before_a_rebalance_moves_no_position() {
    let broker = Broker::shared().await;
    let topic = filled(broker, 1, 20).await;
    let kafka = kafka(broker.brokers());
    let group = unique("g");
    let subscription =
        KafkaSubscription::new(&*group, [&topic]).revoke_within(Duration::from_millis(200));
    let mut first = kafka.subscriber(subscription).unwrap();
    let held = deliveries(&mut first, 20, &mut Vec::new()).await;
    let acker = first.acker();
    first.close(Duration::from_secs(20)).await;

    acker.ack(tokens(&held)).await.unwrap();

    let mut second = member(&kafka, &group, &topic);
    let again = deliveries(&mut second, 20, &mut Vec::new()).await;
    assert_eq!(
        again.iter().map(number).collect::<Vec<_>>(),
        (1..=20).collect::<Vec<_>>()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn acks_count_after_the_broker_was_away() {
    let broker = Broker::start(Options::default()).await;
    let topic = filled(&broker, 1, 20).await;
    let kafka = kafka(broker.brokers());
    let group = unique("g");
    let mut first = member(&kafka, &group, &topic);
    let got = deliveries(&mut first, 20, &mut Vec::new()).await;

    broker.kill();
    broker.start_again().await;
    first.acker().ack(tokens(&got)).await.unwrap();
    fill(&broker, &topic, 21, 25).await;
    let mut errors = 0;
    let mut more = Vec::new();
    while more.len() < 5 {
        match timeout(PATIENCE, first.next(5)).await.unwrap() {
            Ok(arrivals) => more.extend(arrivals.into_iter().filter_map(|arrival| {
                if let Arrival::Delivery(delivery) = arrival {
                    Some(number(&delivery))
                } else {
                    None
                }
            })),
            Err(_) => errors += 1,
        }
        assert!(errors < 100);
    }

    assert_eq!(more, (21..=25).collect::<Vec<_>>());
    wait::until_true(PATIENCE, "the position to be committed", || {
        committed(&broker, &group, &topic, 20)
    })
    .await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_does_not_let_go_loses_the_partition_and_its_late_acks() {
    let broker = Broker::shared().await;
    let topic = filled(broker, 1, 20).await;
    let other = filled(broker, 1, 20).await;
    let kafka = kafka(broker.brokers());
    let group = unique("g");
    let subscription = || {
        let both = KafkaSubscription::new(&*group, [&topic, &other]);
        both.revoke_within(Duration::from_millis(500))
    };
    let mut first = kafka.subscriber(subscription()).unwrap();
    let held = deliveries(&mut first, 40, &mut Vec::new()).await;

    let mut second = kafka.subscriber(subscription()).unwrap();
    let mut others = Vec::new();
    let lost = async {
        loop {
            let next = first.next(1).await.unwrap();
            let lost = next.iter().find_map(|arrival| match arrival {
                Arrival::Lost(partition) => Some(partition.clone()),
                Arrival::Delivery(_)
                | Arrival::Assigned(_)
                | Arrival::Revoking { .. }
                | Arrival::Jumped { .. } => None,
            });
            // Kept, so that the partition is not released.
            others.extend(next);
            if let Some(lost) = lost {
                break lost;
            }
        }
    };
    let lost = timeout(PATIENCE, lost).await.unwrap();
    assert!(
        others
            .iter()
            .any(|o| matches!(o, Arrival::Revoking { partition, .. } if *partition == lost))
    );
    first.acker().ack(tokens(&held)).await.unwrap();
    let got = deliveries(&mut second, 20, &mut Vec::new()).await;

    assert!(got.iter().all(|delivery| delivery.origin.partition == lost));
    assert_eq!(
        got.iter().map(number).collect::<Vec<_>>(),
        (1..=20).collect::<Vec<_>>()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_cut_off_for_longer_than_its_session_is_told_and_joins_again() {
    let advertised = onceward_testkit::free_port();
    let options = Options {
        advertised_port: Some(advertised),
        ..Options::default()
    };
    let broker = Broker::start(options).await;
    let mut proxy = onceward_testkit::proxy::Proxy::on(advertised, broker.port()).await;
    let topic = filled(&broker, 1, 20).await;
    let config = onceward_kafka::KafkaConfig::new(broker.brokers())
        .property("session.timeout.ms", "6000")
        .property("heartbeat.interval.ms", "500");
    let mut member = member(&Kafka::new(config).unwrap(), &unique("g"), &topic);
    let held = deliveries(&mut member, 20, &mut Vec::new()).await;

    proxy.cut().await;
    let mut lost = false;
    let until_lost = async {
        while !lost {
            if let Ok(next) = member.next(1).await {
                lost = next
                    .iter()
                    .any(|arrival| matches!(arrival, Arrival::Lost(_)));
            }
        }
    };
    timeout(PATIENCE, until_lost).await.unwrap();
    member.acker().ack(tokens(&held)).await.unwrap();
    proxy.heal().await;

    // The acks came after the loss: everything comes again.
    let mut again = Vec::new();
    let until_all = async {
        while again.len() < 20 {
            for arrival in member.next(20).await.unwrap_or_default() {
                if let Arrival::Delivery(delivery) = arrival {
                    again.push(number(&delivery));
                }
            }
        }
    };
    timeout(PATIENCE, until_all).await.unwrap();
    assert_eq!(again, (1..=20).collect::<Vec<_>>());
}

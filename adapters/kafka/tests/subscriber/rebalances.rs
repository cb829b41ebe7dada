use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use onceward_core::{Acker, Arrival, Partition, Subscriber};
use onceward_kafka::{Kafka, KafkaSubscriber, KafkaSubscription, KafkaToken};
use onceward_testkit::kafka::{Kafka as Broker, Options};
use onceward_testkit::{unique, wait};
use tokio::time::timeout;

use crate::support::*;
use crate::{committed, deliveries, fill, filled, member, number, tokens};

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

/// How many messages are kept ahead of the members.
const AHEAD: usize = 300;

/// Fills a topic so that there is always something to handle, until told to stop. Returns how many messages there are in all.
async fn keep_ahead(
    broker: &Broker,
    topic: &str,
    mut filled: usize,
    handled: impl Fn() -> usize,
    stop: tokio::sync::watch::Receiver<bool>,
) -> usize {
    while !*stop.borrow() {
        fill(broker, topic, filled + 1, filled + AHEAD).await;
        filled += AHEAD;
        wait::until_true(PATIENCE, "the members to come near the end", || async {
            *stop.borrow() || handled() + AHEAD > filled
        })
        .await;
    }
    filled
}

/// Acks in any order; the newest first is the worst.
async fn ack(acker: &impl Acker<Token = KafkaToken>, done: &mut Vec<KafkaToken>) {
    for token in done.drain(..).rev() {
        acker.ack(vec![token]).await.unwrap();
    }
}

/// Reads and handles, and acks out of order what was handled before, until told to leave.
async fn work(
    mut member: KafkaSubscriber,
    name: usize,
    journal: Arc<Mutex<Journal>>,
    mut leave: tokio::sync::watch::Receiver<bool>,
) {
    let acker = member.acker();
    let mut done = Vec::new();
    loop {
        let next = tokio::select! {
            next = member.next(20) => next.unwrap(),
            _ = leave.wait_for(|leave| *leave) => break,
        };
        let (mut handled, mut releases) = (Vec::new(), Vec::new());
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
                    releases.push(release);
                }
                Arrival::Lost(partition) => drop(journal.owners.remove(&partition)),
                Arrival::Jumped { .. } => journal.overlaps.push("jumped".to_owned()),
                Arrival::Delivery(delivery) => {
                    journal
                        .handled
                        .push((delivery.origin.partition, delivery.origin.position.unwrap()));
                    handled.push(delivery.token);
                }
            }
        }
        // What came is acked once more has come, so that something is always in work when partitions move.
        ack(&acker, &mut done).await;
        done = handled;
        if !releases.is_empty() {
            ack(&acker, &mut done).await;
        }
        drop(releases);
    }
    ack(&acker, &mut done).await;
    {
        let mut journal = journal.lock().unwrap();
        journal.owners.retain(|_, owner| *owner != name);
    }
    member.close(Duration::from_secs(20)).await;
}

async fn until_owner(journal: &Mutex<Journal>, name: usize) {
    let owns = || async {
        let journal = journal.lock().unwrap();
        journal.owners.values().any(|owner| *owner == name)
    };
    wait::until_true(PATIENCE, &format!("member {name} to own something"), owns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_members_come_and_go_and_nothing_is_lost_or_owned_twice() {
    let broker = Broker::shared().await;
    let topic = filled(broker, 6, AHEAD).await;
    let kafka = kafka(broker.brokers());
    let group = unique("g");
    let journal: Arc<Mutex<Journal>> = Arc::default();
    let (leave, leaves) = tokio::sync::watch::channel(false);
    let (first_leaves, first_told) = tokio::sync::watch::channel(false);
    let (enough, told) = tokio::sync::watch::channel(false);
    let join = |name: usize, told| {
        tokio::spawn(work(
            member(&kafka, &group, &topic),
            name,
            Arc::clone(&journal),
            told,
        ))
    };
    let handled = {
        let journal = Arc::clone(&journal);
        move || journal.lock().unwrap().handled.len()
    };
    let filling = {
        let (topic, handled) = (topic.clone(), handled.clone());
        tokio::spawn(async move { keep_ahead(broker, &topic, AHEAD, handled, told).await })
    };
    let more = async |of: &str| {
        let until = handled() + AHEAD;
        wait::until_true(PATIENCE, of, || async { handled() > until }).await;
    };

    let first = join(1, first_told);
    more("the first to work").await;
    let second = join(2, leaves.clone());
    until_owner(&journal, 2).await;
    more("two to work").await;
    let third = join(3, leaves.clone());
    until_owner(&journal, 3).await;
    more("three to work").await;
    first_leaves.send_replace(true);
    first.await.unwrap();
    more("the others to work on").await;
    enough.send_replace(true);
    let messages = filling.await.unwrap();
    let everything = || async {
        let journal = journal.lock().unwrap();
        journal.handled.iter().collect::<BTreeSet<_>>().len() == messages
    };
    wait::until_true(PATIENCE, "everything to be handled", everything).await;
    leave.send_replace(true);
    second.await.unwrap();
    third.await.unwrap();

    journal.lock().unwrap().check(messages);
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

use std::time::{Duration, Instant};

use async_nats::jetstream;
use async_nats::jetstream::consumer::pull;
use futures_util::{FutureExt as _, StreamExt as _};
use onceward_core::{Acker as _, Arrival, Subscriber as _};
use onceward_nats::{NatsConfig, NatsSubscriber, NatsToken, SubscriberConfig};
use onceward_testkit::nats::{Nats, Options};
use onceward_testkit::proxy::Proxy;
use tokio::time::timeout;

use crate::{PATIENCE, acked_up_to, join, positions, publish, read, subject};

#[tokio::test]
async fn a_member_takes_over_what_a_dead_owner_had_in_work_without_any_new_message() {
    let nats = Nats::shared().await;
    let subject = subject(nats).await;
    publish(nats, &subject, 5).await;
    let long_wait = |config: &mut SubscriberConfig| {
        config.ack_wait = Duration::from_secs(600);
        config.takeover_after = Duration::from_secs(1);
    };
    let mut first = join(nats, &subject, long_wait).await;
    let mut second = join(nats, &subject, long_wait).await;
    let mut held = tokio::select! {
        held = read(&mut first, 5) => (held, true),
        held = read(&mut second, 5) => (held, false),
    };
    let (owner, mut next) = if held.1 {
        (first, second)
    } else {
        (second, first)
    };
    owner
        .acker()
        .ack(vec![held.0.remove(0).token])
        .await
        .unwrap();

    acked_up_to(nats, &subject, 1).await;
    drop(owner);
    let taken = read(&mut next, 4).await;

    assert_eq!(positions(&taken), [2, 3, 4, 5]);
}

/// How long the server waits for an ack.
const ACK_WAIT: Duration = Duration::from_secs(6);

/// A message of a durable of its own that the server gives out again and again, since nobody acks it.
struct NeverAcked {
    messages: pull::Stream,
    delivered: i64,
}

async fn never_acked(nats: &Nats, subject: &str, ack_wait: Duration) -> NeverAcked {
    let jetstream = jetstream::new(nats.client().await);
    let config = pull::Config {
        durable_name: Some("witness".to_owned()),
        ack_wait,
        max_ack_pending: 1,
        ..Default::default()
    };
    let stream = jetstream.get_stream(subject).await.unwrap();
    let consumer = stream.create_consumer(config).await.unwrap();
    NeverAcked {
        messages: consumer.messages().await.unwrap(),
        delivered: 0,
    }
}

impl NeverAcked {
    /// How often the server has given it out, after it has once more or after a fifth of a second.
    async fn deliveries(&mut self) -> i64 {
        let next = timeout(Duration::from_millis(200), self.messages.next());
        if let Ok(message) = next.await {
            self.delivered = message.unwrap().unwrap().info().unwrap().delivered;
        }
        self.delivered
    }
}

#[tokio::test]
async fn deliveries_that_wait_in_a_slow_member_do_not_come_twice() {
    let nats = Nats::shared().await;
    let subject = subject(nats).await;
    publish(nats, &subject, 20).await;
    let mut reader = join(nats, &subject, |config| {
        config.ack_wait = ACK_WAIT;
        config.takeover_after = Duration::from_secs(20);
        config.buffer = 10;
    })
    .await;
    let first = read(&mut reader, 1).await;
    let acker = reader.acker();

    // Twice the server's patience, as a message shows that nobody extends. The caller only extends what it has taken.
    let mut witness = never_acked(nats, &subject, ACK_WAIT).await;
    let lapsed = async {
        while witness.deliveries().await < 3 {
            acker.extend(vec![first[0].token.clone()]).await.unwrap();
        }
    };
    timeout(PATIENCE, lapsed).await.unwrap();
    let mut all = positions(&first);
    for _ in 1..20 {
        let one = read(&mut reader, 1).await;
        all.extend(positions(&one));
        assert_eq!(one[0].origin.redelivered, None, "{all:?}");
        assert!(one[0].deadline > Some(Instant::now()));
        acker.ack(vec![one[0].token.clone()]).await.unwrap();
    }

    assert_eq!(all, (1..=20).collect::<Vec<u64>>());
}

#[tokio::test]
async fn what_is_given_back_comes_again_before_anything_behind_it() {
    let nats = Nats::shared().await;
    let subject = subject(nats).await;
    publish(nats, &subject, 6).await;
    let mut reader = join(nats, &subject, |config| config.buffer = 4).await;
    let acker = reader.acker();
    let mut taken = read(&mut reader, 3).await;
    let first = taken.remove(0);

    acker.ack(vec![first.token]).await.unwrap();
    let tokens = taken.into_iter().map(|delivery| delivery.token).collect();
    acker
        .give_back(tokens, Duration::from_millis(50))
        .await
        .unwrap();
    let mut came = positions(&read(&mut reader, 5).await);

    // What was given out before the member heard of it may come in between, and comes again.
    let again = came.iter().rposition(|position| *position == 2).unwrap();
    let rest = 5 - (came.len() - again);
    came.extend(positions(&read(&mut reader, rest).await));
    assert_eq!(came[again..], [2, 3, 4, 5, 6]);
}

/// Reads until the oldest unacked delivery comes, whatever is told meanwhile.
async fn first(reader: &mut NatsSubscriber) -> NatsToken {
    let first = async {
        loop {
            for arrival in reader.next(1).await.unwrap_or_default() {
                if let Arrival::Delivery(delivery) = arrival
                    && delivery.origin.position == Some(1)
                {
                    return delivery.token;
                }
            }
        }
    };
    timeout(PATIENCE, first).await.unwrap()
}

#[tokio::test]
async fn an_outage_has_a_member_look_once_for_what_it_cannot_read() {
    let nats = Nats::start(Options::default()).await;
    let subject = subject(&nats).await;
    publish(&nats, &subject, 20).await;
    let watcher = nats.client().await;
    let mut looks = watcher.subscribe("$JS.API.STREAM.MSG.GET.>").await.unwrap();
    let mut proxy = Proxy::to(nats.port()).await;
    let config = NatsConfig::new([format!("nats://{}", proxy.addr())]);
    let member = SubscriberConfig::new("reader", [&subject]);
    let mut reader = NatsSubscriber::join(&config, member).await.unwrap();

    // Two connections lost at the same place are suspicious.
    for _ in 0..2 {
        first(&mut reader).await;
        proxy.cut().await;
        proxy.heal().await;
    }
    let acker = reader.acker();
    for _ in 0..3 {
        let again = vec![first(&mut reader).await];
        acker.give_back(again, Duration::ZERO).await.unwrap();
    }
    first(&mut reader).await;

    watcher.flush().await.unwrap();
    let mut count = 0;
    while looks.next().now_or_never().is_some() {
        count += 1;
    }
    // One for each of the messages, and one that finds no more.
    assert_eq!(count, 21);
}

#[tokio::test]
async fn a_connection_that_is_back_before_a_member_begins_again_is_no_outage() {
    let nats = Nats::shared().await;
    let subject = subject(nats).await;
    publish(nats, &subject, 3).await;
    let mut proxy = Proxy::to(nats.port()).await;
    let config = NatsConfig::new([format!("nats://{}", proxy.addr())]);
    let member = SubscriberConfig::new("reader", [&subject]);
    let mut reader = NatsSubscriber::join(&config, member).await.unwrap();
    let held = read(&mut reader, 3).await;

    let tokens = held.into_iter().map(|one| one.token).collect();
    let acker = reader.acker();
    acker
        .give_back(tokens, Duration::from_secs(3))
        .await
        .unwrap();
    proxy.cut().await;
    proxy.heal().await;
    // No error comes before them.
    let again = read(&mut reader, 3).await;

    assert_eq!(positions(&again), [1, 2, 3]);
}

#[tokio::test]
async fn a_connection_that_falls_silent_with_the_way_to_it_full_is_told_as_an_outage() {
    let nats = Nats::shared().await;
    let subject = subject(nats).await;
    publish(nats, &subject, 10).await;
    let proxy = Proxy::to(nats.port()).await;
    let config = NatsConfig::new([format!("nats://{}", proxy.addr())]);
    let mut member = SubscriberConfig::new("reader", [&subject]);
    // It extends five times a second, and is heard by the server each three seconds.
    member.ack_wait = Duration::from_millis(600);
    member.takeover_after = Duration::from_secs(9);
    member.buffer = 5;
    let mut reader = NatsSubscriber::join(&config, member).await.unwrap();
    let held = read(&mut reader, 1).await.remove(0);

    proxy.stall();
    let acker = reader.acker();
    let many = vec![held.token; 10_000];
    // It is given up once nothing more fits.
    while acker.extend(many.clone()).await.is_ok() {}
    let told = async { while reader.next(1).await.is_ok() {} };

    timeout(PATIENCE, told).await.unwrap();
}

#[tokio::test]
async fn a_durable_that_is_deleted_under_its_members_is_not_made_again_in_silence() {
    let nats = Nats::shared().await;
    let subject = subject(nats).await;
    publish(nats, &subject, 1).await;
    let mut reader = join(nats, &subject, |_| {}).await;
    read(&mut reader, 1).await;

    let jetstream = jetstream::new(nats.client().await);
    let stream = jetstream.get_stream(&subject).await.unwrap();
    stream.delete_consumer("reader").await.unwrap();
    let told = async {
        loop {
            if let Err(error) = reader.next(1).await {
                return error;
            }
        }
    };
    let error = tokio::time::timeout(PATIENCE, told).await.unwrap();

    assert!(error.what.contains("reader"), "{error:?}");
    assert!(stream.consumer_info("reader").await.is_err());
}

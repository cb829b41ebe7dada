//! What is particular to NATS, on a real server.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use async_nats::jetstream::stream::{Config, StorageType};
use onceward_core::{
    Acker as _, Arrival, Batch, Delivery, ErrorKind, Message, Outcome, Outgoing, Publisher as _,
    Receipts, Route, Subscriber as _,
};
use onceward_nats::{
    Credentials, NatsConfig, NatsPublisher, NatsSubscriber, NatsToken, SubscriberConfig,
};
use onceward_testkit::nats::{Nats, Options};
use onceward_testkit::proxy::Proxy;
use onceward_testkit::{unique, wait};

const PATIENCE: Duration = Duration::from_secs(30);

/// A stream with one subject of the same name.
async fn subject(nats: &Nats) -> String {
    let name = unique("nats");
    stream(nats, &name, |_| {}).await;
    name
}

async fn stream(nats: &Nats, name: &str, change: impl FnOnce(&mut Config)) {
    let mut config = Config {
        name: name.to_owned(),
        subjects: vec![name.to_owned()],
        ..Config::default()
    };
    change(&mut config);
    let jetstream = jetstream::new(nats.client().await);
    jetstream.create_stream(config).await.unwrap();
}

fn message(subject: &str, key: &str, payload: Vec<u8>) -> Outgoing {
    let draft = Message::bytes("topic", payload).key(key);
    Outgoing {
        route: Route::new(subject),
        message: draft.finish(10_000_000).unwrap().message,
        replay: None,
    }
}

async fn session(nats: &Nats) -> NatsPublisher {
    NatsPublisher::connect(&NatsConfig::new([nats.url()]))
        .await
        .unwrap()
}

async fn offer(session: &mut NatsPublisher, messages: &[Outgoing]) -> Receipts {
    let batch = Arc::new(Batch {
        messages: messages.to_vec(),
    });
    let pending = session.offer(batch).await;
    tokio::time::timeout(PATIENCE, pending).await.unwrap()
}

async fn publish(nats: &Nats, subject: &str, count: u32) {
    let messages: Vec<_> = (0..count)
        .map(|n| message(subject, "k", n.to_string().into()))
        .collect();
    let mut session = session(nats).await;
    assert!(offer(&mut session, &messages).await.all_confirmed());
    session.close(Duration::from_secs(5)).await;
}

async fn join(
    nats: &Nats,
    subject: &str,
    change: impl FnOnce(&mut SubscriberConfig),
) -> NatsSubscriber {
    let mut config = SubscriberConfig::new("reader", [subject]);
    change(&mut config);
    NatsSubscriber::join(&NatsConfig::new([nats.url()]), config)
        .await
        .unwrap()
}

/// Reads that many deliveries, copies included.
async fn read(reader: &mut NatsSubscriber, count: usize) -> Vec<Delivery<NatsToken>> {
    let mut deliveries = Vec::new();
    let reading = async {
        while deliveries.len() < count {
            for arrival in reader.next(count - deliveries.len()).await.unwrap() {
                if let Arrival::Delivery(delivery) = arrival {
                    deliveries.push(delivery);
                }
            }
        }
    };
    let read = tokio::time::timeout(PATIENCE, reading).await;
    assert!(read.is_ok(), "only {} of {count} came", deliveries.len());
    deliveries
}

/// Waits until the server has the acks of everything up to there.
async fn acked_up_to(nats: &Nats, subject: &str, position: u64) {
    let jetstream = jetstream::new(nats.client().await);
    let stream = jetstream.get_stream(subject).await.unwrap();
    wait::until_true(PATIENCE, "the acks", || async {
        let info = stream.consumer_info("reader").await.unwrap();
        info.ack_floor.stream_sequence >= position
    })
    .await;
}

fn positions(deliveries: &[Delivery<NatsToken>]) -> Vec<u64> {
    deliveries
        .iter()
        .filter_map(|delivery| delivery.origin.position)
        .collect()
}

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

#[tokio::test]
async fn deliveries_that_wait_in_a_slow_member_do_not_come_twice() {
    let nats = Nats::shared().await;
    let subject = subject(nats).await;
    publish(nats, &subject, 20).await;
    let mut reader = join(nats, &subject, |config| {
        config.ack_wait = Duration::from_secs(2);
        config.takeover_after = Duration::from_secs(2);
        config.buffer = 10;
    })
    .await;
    let first = read(&mut reader, 1).await;
    let acker = reader.acker();

    // Three times the server's patience, in which the caller only extends what it has taken.
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(6) {
        acker.extend(vec![first[0].token.clone()]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
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

#[tokio::test]
async fn the_same_message_is_stored_once_and_confirmed_twice() {
    let nats = Nats::shared().await;
    let subject = subject(nats).await;
    let messages = [message(&subject, "k", b"x".to_vec())];

    for _ in 0..2 {
        let mut session = session(nats).await;
        assert!(offer(&mut session, &messages).await.all_confirmed());
    }

    let jetstream = jetstream::new(nats.client().await);
    let mut stream = jetstream.get_stream(&subject).await.unwrap();
    assert_eq!(stream.info().await.unwrap().state.messages, 1);
}

#[tokio::test]
async fn a_message_over_the_servers_limit_is_too_large_and_others_go_on() {
    let nats = Nats::shared().await;
    let subject = subject(nats).await;
    let mut session = session(nats).await;
    let limit = session.capabilities().max_message.unwrap();
    let bytes = usize::try_from(limit).unwrap();

    let messages = [
        message(&subject, "large", vec![0; bytes]),
        message(&subject, "large", b"behind".to_vec()),
        message(&subject, "other", b"free".to_vec()),
    ];
    let receipts = offer(&mut session, &messages).await;

    match receipts.outcomes() {
        [
            Outcome::Failed(error),
            Outcome::Unconfirmed,
            Outcome::Confirmed,
        ] => {
            assert_eq!(error.kind, ErrorKind::TooLarge);
        }
        outcomes => panic!("{outcomes:?}"),
    }
    assert!(receipts.session_over().is_none());
}

#[tokio::test]
async fn a_session_that_lost_its_connection_sends_nothing_on_another_one() {
    let nats = Nats::start(Options::default()).await;
    let subject = subject(&nats).await;
    let mut proxy = Proxy::to(nats.port()).await;
    let config = NatsConfig::new([format!("nats://{}", proxy.addr())]);
    let mut session = NatsPublisher::connect(&config).await.unwrap();
    // More than all buffers on the way hold, so that most of it waits in this process.
    let large: Vec<_> = (0..60)
        .map(|n| message(&subject, &n.to_string(), vec![0; 500_000]))
        .collect();

    proxy.stall();
    let batch = Arc::new(Batch { messages: large });
    let pending = session.offer(batch).await;
    proxy.cut().await;
    let receipts = tokio::time::timeout(PATIENCE, pending).await.unwrap();
    proxy.heal().await;

    assert!(receipts.session_over().is_some());
    let unknown = |outcome: &Outcome| matches!(outcome, Outcome::Unconfirmed);
    assert!(receipts.outcomes().iter().all(unknown), "{receipts:?}");
    let mut next = NatsPublisher::connect(&config).await.unwrap();
    for n in 0..20 {
        let mark = [message(&subject, "mark", vec![n])];
        assert!(offer(&mut next, &mark).await.all_confirmed());
    }
    let jetstream = jetstream::new(nats.client().await);
    let mut stream = jetstream.get_stream(&subject).await.unwrap();
    assert_eq!(stream.info().await.unwrap().state.messages, 20);
    let over = offer(&mut session, &[message(&subject, "late", vec![])]).await;
    assert!(over.session_over().is_some());
}

const RIGHTS: &str = r#"
accounts {
  A {
    jetstream: enabled
    users: [
      { user: admin, password: admin-secret }
      { user: anna, password: anna-secret,
        permissions: { publish: { deny: "forbidden" } } }
    ]
  }
}
"#;

fn as_user(nats: &Nats, user: &str, password: &str) -> NatsConfig {
    let mut config = NatsConfig::new([nats.url()]);
    config.credentials = Credentials::UserPassword {
        user: user.to_owned(),
        password: password.into(),
    };
    config
}

#[tokio::test]
async fn missing_rights_are_told_apart_from_an_outage() {
    let nats = Nats::start(Options {
        config: RIGHTS.to_owned(),
        ..Options::default()
    })
    .await;
    let admin = async_nats::ConnectOptions::with_user_and_password(
        "admin".to_owned(),
        "admin-secret".to_owned(),
    );
    let client = admin.connect(nats.url()).await.unwrap();
    let both = Config {
        name: "both".to_owned(),
        subjects: vec!["allowed".to_owned(), "forbidden".to_owned()],
        ..Config::default()
    };
    jetstream::new(client).create_stream(both).await.unwrap();

    let wrong = NatsPublisher::connect(&as_user(&nats, "anna", "guessed")).await;
    assert_eq!(wrong.unwrap_err().kind, ErrorKind::Unauthorized);
    let right = as_user(&nats, "anna", "anna-secret");
    let mut session = NatsPublisher::connect(&right).await.unwrap();
    let messages = [
        message("forbidden", "a", b"1".to_vec()),
        message("forbidden", "a", b"2".to_vec()),
        message("allowed", "b", b"3".to_vec()),
    ];
    let receipts = offer(&mut session, &messages).await;

    match receipts.outcomes() {
        [
            Outcome::Failed(error),
            Outcome::Unconfirmed,
            Outcome::Confirmed,
        ] => {
            assert_eq!(error.kind, ErrorKind::Unauthorized);
        }
        outcomes => panic!("{outcomes:?}"),
    }
}

/// The rights that the adapter's documentation asks for, and no others.
const LEAST_RIGHTS: &str = r#"
accounts {
  A {
    jetstream: enabled
    users: [
      { user: admin, password: admin-secret }
      { user: relay, password: relay-secret, permissions: {
        publish: [ "shop.>", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.INFO.*" ]
        subscribe: "_INBOX.>" } }
      { user: billing, password: billing-secret, permissions: {
        publish: [
          "$JS.API.STREAM.NAMES", "$JS.API.STREAM.INFO.SHOP", "$JS.API.STREAM.MSG.GET.SHOP"
          "$JS.API.CONSUMER.INFO.SHOP.reader", "$JS.API.CONSUMER.CREATE.SHOP.reader"
          "$JS.API.CONSUMER.RESET.SHOP.reader", "$JS.API.CONSUMER.UNPIN.SHOP.reader"
          "$JS.API.CONSUMER.MSG.NEXT.SHOP.reader", "$JS.ACK.SHOP.reader.>" ]
        subscribe: "_INBOX.>" } }
    ]
  }
}
"#;

#[tokio::test]
async fn the_rights_that_are_documented_are_enough() {
    let nats = Nats::start(Options {
        config: LEAST_RIGHTS.to_owned(),
        ..Options::default()
    })
    .await;
    let admin = async_nats::ConnectOptions::with_user_and_password(
        "admin".to_owned(),
        "admin-secret".to_owned(),
    );
    let client = admin.connect(nats.url()).await.unwrap();
    let shop = Config {
        name: "SHOP".to_owned(),
        subjects: vec!["shop.>".to_owned()],
        ..Config::default()
    };
    jetstream::new(client).create_stream(shop).await.unwrap();

    let relay = as_user(&nats, "relay", "relay-secret");
    let mut session = NatsPublisher::connect(&relay).await.unwrap();
    let reports = session.check(&[Route::new("shop.orders")]).await;
    assert!(reports[0].state.is_ok(), "{reports:?}");
    let messages: Vec<_> = (0..5)
        .map(|n| message("shop.orders", "k", vec![n]))
        .collect();
    assert!(offer(&mut session, &messages).await.all_confirmed());

    let billing = as_user(&nats, "billing", "billing-secret");
    let config = SubscriberConfig::new("reader", ["shop.orders"]);
    let mut reader = NatsSubscriber::join(&billing, config.clone())
        .await
        .unwrap();
    let mut deliveries = read(&mut reader, 5).await;
    let backlog = reader.backlog().await.unwrap();
    assert_eq!(backlog[0].count, 5);
    assert!(backlog[0].oldest.is_some());
    let first = deliveries.remove(0);
    reader.acker().ack(vec![first.token]).await.unwrap();
    reader.close(Duration::from_secs(5)).await;
    let mut next = NatsSubscriber::join(&billing, config).await.unwrap();

    assert_eq!(positions(&read(&mut next, 4).await), [2, 3, 4, 5]);
}

#[tokio::test]
async fn nobody_there_is_an_outage() {
    let nowhere = format!("nats://127.0.0.1:{}", onceward_testkit::free_port());

    let error = NatsPublisher::connect(&NatsConfig::new([nowhere]))
        .await
        .unwrap_err();

    assert_eq!(error.kind, ErrorKind::Unavailable);
}

#[tokio::test]
async fn settings_that_lose_messages_are_warned_of() {
    let nats = Nats::shared().await;
    let (good, bad, deaf) = (unique("good"), unique("bad"), unique("deaf"));
    stream(nats, &good, |_| {}).await;
    stream(nats, &bad, |config| {
        config.storage = StorageType::Memory;
        config.max_messages = 10;
        config.max_age = Duration::from_secs(60);
        config.duplicate_window = Duration::from_secs(1);
        config.max_message_size = 5_000;
    })
    .await;
    stream(nats, &deaf, |config| config.no_ack = true).await;
    let mut session = session(nats).await;

    let routes = [Route::new(&good), Route::new(&bad), Route::new(&deaf)];
    let reports = session.check(&routes).await;

    assert_eq!(reports[0].state.as_ref().unwrap().warnings, [""; 0]);
    let state = reports[1].state.as_ref().unwrap();
    assert_eq!(state.max_message, Some(5_000));
    for word in ["max_msgs = 10", "max_age", "memory", "duplicate_window"] {
        let said = state.warnings.iter().any(|warning| warning.contains(word));
        assert!(said, "{word}: {:?}", state.warnings);
    }
    assert!(reports[2].state.is_err());
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

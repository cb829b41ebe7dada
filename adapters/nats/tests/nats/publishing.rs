use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::stream::StorageType;
use onceward_core::{Batch, ErrorKind, Outcome, Publisher as _, Route};
use onceward_nats::{NatsConfig, NatsPublisher};
use onceward_testkit::nats::{Nats, Options};
use onceward_testkit::proxy::Proxy;
use onceward_testkit::unique;

use tokio::time::timeout;

use crate::{PATIENCE, message, offer, session, stream, subject};

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

    proxy.stall();
    let pending = session.offer(large(&subject)).await;
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

/// More than all buffers on the way hold, so that most of it waits in this process.
fn large(subject: &str) -> Arc<Batch> {
    let messages = (0..60).map(|n| message(subject, &n.to_string(), vec![0; 500_000]));
    Arc::new(Batch {
        messages: messages.collect(),
    })
}

#[tokio::test]
async fn a_session_is_abandoned_only_once_nothing_more_of_it_can_leave() {
    let nats = Nats::start(Options::default()).await;
    let subject = subject(&nats).await;
    let mut proxy = Proxy::to(nats.port()).await;
    let config = NatsConfig::new([format!("nats://{}", proxy.addr())]);
    let mut session = NatsPublisher::connect(&config).await.unwrap();

    proxy.stall();
    let _pending = session.offer(large(&subject)).await;
    let mut abandoned = Box::pin(session.abandon());
    let at_once = timeout(Duration::from_millis(200), &mut abandoned).await;
    proxy.heal().await;

    assert!(at_once.is_err());
    timeout(PATIENCE, abandoned).await.unwrap();
}

#[tokio::test]
async fn a_backlog_of_one_key_is_not_taken_for_a_broker_that_does_not_answer() {
    let nats = Nats::shared().await;
    let subject = subject(nats).await;
    let proxy = Proxy::to(nats.port()).await;
    let mut config = NatsConfig::new([format!("nats://{}", proxy.addr())]);
    config.deadline = Duration::from_secs(8);
    let mut session = NatsPublisher::connect(&config).await.unwrap();
    // One by one they take longer than the deadline.
    proxy.delay(Duration::from_millis(15));
    let backlog: Vec<_> = (0..400_u32)
        .map(|n| message(&subject, "hot", n.to_string().into()))
        .collect();

    let receipts = offer(&mut session, &backlog).await;
    let other = offer(&mut session, &[message(&subject, "other", vec![])]).await;

    let outcomes = receipts.outcomes();
    let confirmed = |outcome: &&Outcome| matches!(outcome, Outcome::Confirmed);
    let count = outcomes.iter().take_while(confirmed).count();
    assert!((1..400).contains(&count), "{count}");
    let unknown = |outcome: &Outcome| matches!(outcome, Outcome::Unconfirmed);
    assert!(outcomes[count..].iter().all(unknown), "{receipts:?}");
    assert!(receipts.session_over().is_none(), "{receipts:?}");
    assert!(other.all_confirmed(), "{other:?}");
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

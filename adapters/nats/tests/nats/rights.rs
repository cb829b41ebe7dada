use std::time::Duration;

use async_nats::jetstream::stream::Config;
use onceward_core::{Acker as _, ErrorKind, Outcome, Publisher as _, Route, Subscriber as _};
use onceward_nats::{Credentials, NatsPublisher, NatsSubscriber, SubscriberConfig};

use crate::support::{as_user, server_with_users};
use crate::{message, offer, positions, read};

const RIGHTS: &str = r#"
      { user: anna, password: secret, permissions: { publish: { deny: "forbidden" } } }
"#;

#[tokio::test]
async fn missing_rights_are_told_apart_from_an_outage() {
    let (nats, jetstream) = server_with_users(RIGHTS).await;
    let both = Config {
        name: "both".to_owned(),
        subjects: vec!["allowed".to_owned(), "forbidden".to_owned()],
        ..Config::default()
    };
    jetstream.create_stream(both).await.unwrap();

    let mut guessed = as_user(&nats, "anna");
    guessed.credentials = Credentials::UserPassword {
        user: "anna".to_owned(),
        password: "guessed".into(),
    };
    let wrong = NatsPublisher::connect(&guessed).await;
    assert_eq!(wrong.unwrap_err().kind, ErrorKind::Unauthorized);
    let right = as_user(&nats, "anna");
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
      { user: relay, password: secret, permissions: {
        publish: [ "shop.>", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.INFO.*" ]
        subscribe: "_INBOX.>" } }
      { user: billing, password: secret, permissions: {
        publish: [
          "$JS.API.STREAM.NAMES", "$JS.API.STREAM.INFO.SHOP", "$JS.API.STREAM.MSG.GET.SHOP"
          "$JS.API.CONSUMER.INFO.SHOP.reader", "$JS.API.CONSUMER.CREATE.SHOP.reader"
          "$JS.API.CONSUMER.RESET.SHOP.reader", "$JS.API.CONSUMER.UNPIN.SHOP.reader"
          "$JS.API.CONSUMER.MSG.NEXT.SHOP.reader", "$JS.ACK.SHOP.reader.>" ]
        subscribe: "_INBOX.>" } }
"#;

#[tokio::test]
async fn the_rights_that_are_documented_are_enough() {
    let (nats, jetstream) = server_with_users(LEAST_RIGHTS).await;
    let shop = Config {
        name: "SHOP".to_owned(),
        subjects: vec!["shop.>".to_owned()],
        ..Config::default()
    };
    jetstream.create_stream(shop).await.unwrap();

    let relay = as_user(&nats, "relay");
    let mut session = NatsPublisher::connect(&relay).await.unwrap();
    let reports = session.check(&[Route::new("shop.orders")]).await;
    assert!(reports[0].state.is_ok(), "{reports:?}");
    let messages: Vec<_> = (0..5)
        .map(|n| message("shop.orders", "k", vec![n]))
        .collect();
    assert!(offer(&mut session, &messages).await.all_confirmed());

    let billing = as_user(&nats, "billing");
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

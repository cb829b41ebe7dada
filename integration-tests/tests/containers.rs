//! Servers in containers: `scripts/test-containers.sh` starts an engine and makes the images. Without an engine it fails.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails where it stands"
)]

use std::process::Command;

use async_nats::jetstream;
use onceward_testkit::nats::Nats;
use onceward_testkit::postgres::Postgres;

/// The port that a container publishes for one of its own, by what the engine says.
fn is_published(url: &str, inside: u16) -> bool {
    let answer = Command::new("docker")
        .args(["ps", "--format", "{{.Ports}}"])
        .output()
        .expect("a docker client on this machine");
    let ports = String::from_utf8(answer.stdout).unwrap();
    let (_, port) = url.rsplit_once(':').unwrap();
    let port: String = port.chars().take_while(char::is_ascii_digit).collect();
    ports.contains(&format!("127.0.0.1:{port}->{inside}/tcp"))
}

#[tokio::test]
async fn a_shared_postgres_comes_from_a_container_and_takes_messages() {
    let server = Postgres::shared().await;
    let database = server.database().await;

    onceward_migrations::run(database.pool()).await.unwrap();
    sqlx::query("select onceward.enqueue('orders.created', '{}', key => '17')")
        .execute(database.pool())
        .await
        .unwrap();
    let stored: i64 = sqlx::query_scalar("select count(*) from onceward.messages")
        .fetch_one(database.pool())
        .await
        .unwrap();

    assert!(
        is_published(&server.url("postgres"), 5432),
        "{}",
        server.url("postgres")
    );
    assert_eq!(stored, 1);
}

#[tokio::test]
async fn a_shared_nats_comes_from_a_container_and_keeps_messages() {
    let server = Nats::shared().await;
    let context = jetstream::new(server.client().await);

    let config = jetstream::stream::Config {
        name: "EVENTS".to_owned(),
        subjects: vec!["orders.>".to_owned()],
        ..jetstream::stream::Config::default()
    };
    context.create_stream(config).await.unwrap();
    let kept = context
        .publish("orders.created", "{}".into())
        .await
        .unwrap()
        .await
        .unwrap();

    assert!(is_published(server.url(), 4222), "{}", server.url());
    assert_eq!(kept.sequence, 1);
}

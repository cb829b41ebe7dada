//! Servers that are named in the environment.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::env;
use std::time::Duration;

use async_nats::jetstream;
use onceward_testkit::kafka::{self, Kafka};
use onceward_testkit::nats::{self, Nats};
use onceward_testkit::postgres::{self, Postgres};
use onceward_testkit::sqs::Sqs;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use serde_json::json;
use sqlx::PgPool;
use tokio::process::Command;
use tokio::time::timeout;

/// Set where this test runs as a process that is to use what its environment names.
const INNER: &str = "ONCEWARD_TESTKIT_INNER";
/// What it makes on each.
const MADE: &str = "made";
const TAKES_AT_MOST: Duration = Duration::from_secs(120);
const NAME: &str = "servers_that_the_environment_names_are_the_shared_ones";

/// In a process of its own: tests beside this one have the environment as it is.
#[tokio::test]
async fn servers_that_the_environment_names_are_the_shared_ones() {
    if env::var_os(INNER).is_some() {
        return use_what_is_named().await;
    }
    let postgres = Postgres::start(postgres::Options::default()).await;
    let nats = Nats::start(nats::Options::default()).await;
    let kafka = Kafka::start(kafka::Options::default()).await;
    let sqs = Sqs::start().await;

    let mut inner = Command::new(env::current_exe().unwrap());
    inner
        .kill_on_drop(true)
        .args(["--exact", NAME])
        .env(INNER, "1")
        .env("ONCEWARD_TEST_POSTGRES_URL", postgres.url("postgres"))
        .env("ONCEWARD_TEST_NATS_URL", nats.url())
        .env("ONCEWARD_TEST_KAFKA_BROKERS", kafka.brokers())
        .env("ONCEWARD_TEST_SQS_URL", sqs.url());
    let output = timeout(TAKES_AT_MOST, inner.output()).await;
    let output = output.unwrap().unwrap();

    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
    has_role(&postgres).await;
    let streams = jetstream::new(nats.client().await);
    streams.get_stream(MADE).await.unwrap();
    has_topic(&kafka);
    let queue = json!({ "QueueName": MADE });
    sqs.try_call("GetQueueUrl", queue).await.unwrap();
}

async fn has_role(postgres: &Postgres) {
    let pool = PgPool::connect(&postgres.url("postgres")).await.unwrap();
    let role = sqlx::query("select from pg_roles where rolname = $1").bind(MADE);
    role.fetch_one(&pool).await.unwrap();
}

fn has_topic(kafka: &Kafka) {
    let mut config = ClientConfig::new();
    let client: BaseConsumer = config
        .set("bootstrap.servers", kafka.brokers())
        .create()
        .unwrap();
    let answer = client
        .fetch_metadata(None, Duration::from_secs(20))
        .unwrap();
    assert!(answer.topics().iter().any(|topic| topic.name() == MADE));
}

/// Makes something on each shared server that outlasts this process.
async fn use_what_is_named() {
    let database = Postgres::shared().await.database().await;
    sqlx::query("create role made")
        .execute(database.pool())
        .await
        .unwrap();
    let streams = async_nats::jetstream::new(Nats::shared().await.client().await);
    streams.create_stream(MADE).await.unwrap();
    Kafka::shared().await.create_topic(MADE, 1, &[]).await;
    Sqs::shared().await.create_queue(MADE, &[]).await;
}

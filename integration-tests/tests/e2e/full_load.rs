//! SIGKILL of relays that drain a backlog as fast as they can, with the window that a relay has by default, and of consumers that handle
//! one in batches.

use onceward_testkit::kafka::Kafka;
use onceward_testkit::ledger::{Workload, append_many};
use onceward_testkit::nats::Nats;
use onceward_testkit::postgres::Postgres;
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::kills::{When, kill_consumers, kill_relays};
use crate::stage::{Changes, Stage};

/// How often whoever publishes is killed.
const KILLS: u32 = 4;
/// The most messages in flight, as by default.
const WINDOW: u64 = 30_000;
/// Messages of a key that one transaction writes.
const OF_A_KEY: i32 = 250;
/// Each with an order of its own.
const KEYS: i32 = 100;
/// Written before the first relay starts: more than its window holds.
const BACKLOG: i32 = 40_000;
/// Written before the first consumer starts.
const BACKLOG_OF_CONSUMERS: i32 = 20_000;

/// Writes so many messages, the keys by turns.
async fn write(stage: &Stage, messages: i32) {
    let mut connection = PgConnection::connect(stage.log.url()).await.unwrap();
    for n in 0..messages / OF_A_KEY {
        append(&mut connection, &stage.topics(), n % KEYS).await;
    }
}

async fn append(connection: &mut PgConnection, topics: &[String], key: i32) {
    let topic = &topics[usize::try_from(key).unwrap() % topics.len()];
    let mut transaction = connection.begin().await.unwrap();
    append_many(&mut transaction, topic, &format!("key{key}"), OF_A_KEY)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
}

/// Writes on as fast as it goes, until told to stop.
fn write_on(stage: &Stage, stop: CancellationToken) -> JoinHandle<()> {
    let (url, topics) = (stage.log.url().to_owned(), stage.topics());
    tokio::spawn(async move {
        let mut connection = PgConnection::connect(&url).await.unwrap();
        for key in (0..KEYS).cycle() {
            if stop.is_cancelled() {
                return;
            }
            append(&mut connection, &topics, key).await;
        }
    })
}

/// Kills whoever publishes while it is at work, again and again, and judges.
async fn kill_in_the_middle(stage: Stage) {
    let mut stage = stage.ttl("1s");
    write(&stage, BACKLOG).await;
    let stop = CancellationToken::new();
    let writer = write_on(&stage, stop.clone());
    let changes = Changes {
        window: Some(WINDOW),
        ..Changes::default()
    };
    let relays = kill_relays(&stage, (KILLS, When::AtWork), &changes).await;
    stop.cancel();
    writer.await.unwrap();

    stage.ledger.allow_duplicates(WINDOW, u64::from(KILLS));
    stage.ledger.only_takeovers_repeat();
    let [one, other] = &relays;
    let verdict = stage.must_be_green(&[one, other]).await;
    assert!(verdict.claims >= u64::from(KILLS), "{verdict}");
}

#[tokio::test]
async fn relays_killed_in_the_middle_of_a_backlog_lose_and_reorder_nothing_on_nats() {
    kill_in_the_middle(Stage::nats(Postgres::shared().await, Nats::shared().await).await).await;
}

#[tokio::test]
async fn relays_killed_in_the_middle_of_a_backlog_lose_and_reorder_nothing_on_kafka() {
    kill_in_the_middle(Stage::kafka(Postgres::shared().await, Kafka::shared().await).await).await;
}

/// Kills whoever handles while it is at work, again and again, and judges.
async fn kill_in_the_middle_of_batches(stage: Stage) {
    let stage = stage.consumed().await;
    write(&stage, BACKLOG_OF_CONSUMERS).await;
    let relay = stage.relay(&Changes::default());
    // Something to handle is left for the last kill, however fast they are.
    let writer = stage.write(Workload {
        messages: u64::MAX,
        per_second: Some(20),
        ..stage.workload()
    });

    let batches = Changes::default().variable("E2E_BATCH", "100");
    let [one, other] = kill_consumers(&stage, KILLS, &batches).await;
    let handled = stage.handled().await;

    writer.stop().await;
    let backlog = u64::try_from(BACKLOG_OF_CONSUMERS).unwrap();
    assert!(
        handled < backlog,
        "all {handled} were handled before the last kill"
    );
    stage.must_be_green(&[&relay, &one, &other]).await;
}

#[tokio::test]
async fn consumers_killed_in_the_middle_of_a_backlog_lose_double_and_reorder_nothing_on_nats() {
    let stage = Stage::nats(Postgres::shared().await, Nats::shared().await).await;
    kill_in_the_middle_of_batches(stage).await;
}

#[tokio::test]
async fn consumers_killed_in_the_middle_of_a_backlog_lose_double_and_reorder_nothing_on_kafka() {
    let stage = Stage::kafka(Postgres::shared().await, Kafka::shared().await).await;
    kill_in_the_middle_of_batches(stage).await;
}

//! A type that fails until its handler is mended, beside one that does not.

use onceward_testkit::kafka::{self, Kafka};
use onceward_testkit::ledger::Workload;
use onceward_testkit::nats::Nats;
use onceward_testkit::postgres::Postgres;
use onceward_testkit::wait;

use crate::kills::kill_consumers;
use crate::sequences::by_sequence;
use crate::stage::{Changes, SOON, Stage};

/// How often consumers are killed while the type is paused, and as often once it is mended.
const KILLS: u32 = 4;

/// How many messages of a topic took effect. A type is its topic here.
async fn handled(stage: &Stage, topic: &str) -> i64 {
    sqlx::query_scalar(
        "select count(*)
         from ledger.effects e
         join onceward.messages m on m.id = e.message_id
         where m.topic = $1",
    )
    .bind(topic)
    .fetch_one(stage.log.pool())
    .await
    .unwrap()
}

async fn wait_until_handled(stage: &Stage, topic: &str, count: i64) {
    let what = format!("{count} effects of {topic}");
    wait::until_true(SOON, &what, || async {
        handled(stage, topic).await >= count
    })
    .await;
}

/// The types that are paused now.
async fn paused(stage: &Stage) -> Vec<String> {
    sqlx::query_scalar("select type from onceward.paused_types where resumed_at is null")
        .fetch_all(stage.log.pool())
        .await
        .unwrap()
}

/// What is broken is not to be given up on, nor to hold up anything else; mended, it takes effect once and in order.
pub(crate) async fn a_type_fails_and_is_mended(stage: Stage, changes: Changes) {
    let stage = stage.consumed().await.ttl("1s");
    let relay = stage.relay(&Changes::default());
    let topics = stage.topics();
    let [healthy, failing] = &topics[..] else {
        unreachable!("there are two topics")
    };
    let writers = stage.write(Workload {
        messages: u64::MAX,
        per_second: Some(100),
        // Of a key one message runs at a time: each member needs some to tell a failing type.
        keys: 60,
        ..stage.workload()
    });
    // It has worked before it fails.
    let consumer = stage.consumer(&changes);
    wait_until_handled(&stage, healthy, 50).await;
    wait_until_handled(&stage, failing, 50).await;
    consumer.stop().await;

    let broken = changes.clone().variable("E2E_BROKEN_TYPE", failing);
    let members = [stage.consumer(&broken), stage.consumer(&broken)];
    wait::until_true(SOON, "the type to be paused", || async {
        paused(&stage).await == topics[1..]
    })
    .await;
    for member in members {
        member.stop().await;
    }
    let (of_healthy, of_failing) = (
        handled(&stage, healthy).await,
        handled(&stage, failing).await,
    );
    let members = kill_consumers(&stage, KILLS, &broken).await;
    wait_until_handled(&stage, healthy, of_healthy + 150).await;
    assert_eq!(handled(&stage, failing).await, of_failing, "it is broken");
    assert_eq!(paused(&stage).await, topics[1..]);
    let status = stage.command(&["status"]).await;
    assert!(status.contains("FAILING TYPE"), "{status}");
    assert!(status.contains(failing), "{status}");
    for member in members {
        member.stop().await;
    }

    let members = kill_consumers(&stage, KILLS, &changes).await;
    wait_until_handled(&stage, failing, of_failing + 150).await;
    writers.stop().await;
    let [one, other] = &members;
    let verdict = stage.must_be_green(&[&relay, one, other]).await;
    stage.wait_until_no_key_is_held().await;
    assert!(paused(&stage).await.is_empty());
    let dead: i64 = sqlx::query_scalar("select count(*) from onceward.dead_letters")
        .fetch_one(stage.log.pool())
        .await
        .unwrap();
    assert_eq!(dead, 0, "{verdict}");
    eprintln!("{verdict}");
}

#[tokio::test]
async fn a_failing_type_is_resumed_once_it_is_mended_with_nats() {
    let stage = Stage::nats(Postgres::shared().await, Nats::shared().await).await;

    a_type_fails_and_is_mended(stage, Changes::default()).await;
}

#[tokio::test]
async fn a_failing_type_is_resumed_once_it_is_mended_where_sequences_are_the_dedupe() {
    let stage = Stage::nats(Postgres::shared().await, Nats::shared().await).await;

    a_type_fails_and_is_mended(stage, by_sequence(Changes::default())).await;
}

#[tokio::test]
async fn a_failing_type_is_resumed_once_it_is_mended_with_kafka() {
    // A member that was killed is missed sooner than a broker allows by default.
    let options = kafka::Options::default().config("group.min.session.timeout.ms", "1000");
    let kafka = Kafka::start(options).await;
    let stage = Stage::kafka(Postgres::shared().await, &kafka).await;
    let changes = Changes::default().variable("E2E_SESSION_MS", "1500");

    a_type_fails_and_is_mended(stage, changes).await;
}

//! Messages that are older at the broker than marks are kept, of which one is in work when its consumer dies.

use std::time::{Duration, SystemTime};

use onceward_testkit::kafka::Kafka;
use onceward_testkit::ledger::{Verdict, append};
use onceward_testkit::postgres::Postgres;
use onceward_testkit::{unique, wait};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};
use uuid::Uuid;

use crate::stage::{Changes, SOON, Stage};

/// How many messages there are, each with a key of its own.
const ALL: u8 = 4;

const NINE_DAYS: Duration = Duration::from_secs(9 * 24 * 3_600);

/// Puts what lies in a topic into another one, as if it had been sent nine days ago. Gives the ids in the order of their positions there.
async fn copy_as_old(brokers: &str, from: &str, to: &str) -> Vec<Uuid> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("group.id", unique("copies"));
    let (reader, writer): (StreamConsumer, FutureProducer) =
        (config.create().unwrap(), config.create().unwrap());
    let mut partitions = TopicPartitionList::new();
    for partition in 0..3 {
        let begin = partitions.add_partition_offset(from, partition, Offset::Beginning);
        begin.unwrap();
    }
    reader.assign(&partitions).unwrap();
    let sent_at = SystemTime::now() - NINE_DAYS;
    let sent_at = sent_at.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let mut ids = Vec::new();
    for _ in 0..ALL {
        let read = tokio::time::timeout(SOON, reader.recv()).await;
        let message = read.unwrap().unwrap().detach();
        let headers = message.headers().unwrap();
        let id = headers.iter().find(|header| header.key == "ce_id").unwrap();
        ids.push(Uuid::try_parse_ascii(id.value.unwrap()).unwrap());
        let record = FutureRecord::to(to)
            .partition(0)
            .timestamp(sent_at.as_millis().try_into().unwrap())
            .headers(headers.clone())
            .key(message.key().unwrap())
            .payload(message.payload().unwrap());
        writer.send(record, SOON).await.unwrap();
    }
    ids
}

/// The highest position that the consumer has noted.
async fn noted(stage: &Stage) -> Option<i64> {
    sqlx::query_scalar("select max(highest_settled) from onceward.consumer_positions")
        .fetch_one(stage.log.pool())
        .await
        .unwrap()
}

/// The second one is in work while those behind it are settled, and until the consumer is killed. Gives it, what the ledger says when
/// another member has gone on, and the dead letters.
async fn one_in_work_at_a_kill(fault: &'static str) -> (Uuid, Verdict, Vec<(String, Uuid)>) {
    let kafka = Kafka::shared().await;
    let stage = Stage::kafka(Postgres::shared().await, kafka).await;
    let stage = stage.consumed().await;
    let (old, topic) = (unique("old"), &stage.topics()[0]);
    kafka.create_topic(&old, 1, &[("retention.ms", "-1")]).await;
    let relay = stage.relay(&Changes::default());
    let mut written = stage.log.pool().begin().await.unwrap();
    for key in 0..ALL {
        let appended = append(&mut written, topic, &format!("key-{key}"), b"payload").await;
        appended.unwrap();
    }
    written.commit().await.unwrap();
    stage.wait_until_published(ALL.into()).await;
    relay.stop().await;
    let ids = copy_as_old(kafka.brokers(), topic, &old).await;
    // Whoever begins with it waits for its mark.
    let mut in_work = stage.log.pool().begin().await.unwrap();
    sqlx::query(
        "insert into onceward.processed_messages (slot, consumer, message_id, outcome)
         values (onceward.mark_slot($1), $2, $1, 0)",
    )
    .bind(ids[1])
    .bind(&stage.name)
    .execute(&mut *in_work)
    .await
    .unwrap();

    let changes = Changes::fault(fault).variable("E2E_TOPICS", &old);
    let first = stage.consumer(&changes);
    stage.wait_until_handled(u64::from(ALL) - 1).await;
    let at_least = if fault.is_empty() {
        0
    } else {
        i64::from(ALL) - 1
    };
    wait::until_true(SOON, "a position to be noted", || async {
        noted(&stage).await.is_some_and(|noted| noted >= at_least)
    })
    .await;
    first.kill();
    in_work.rollback().await.unwrap();
    let second = stage.consumer(&changes);
    wait::until_true(SOON, "an end of the one that was in work", || async {
        let dead = u64::try_from(stage.letters().await.len()).unwrap();
        stage.handled().await + dead == u64::from(ALL)
    })
    .await;
    second.stop().await;
    (ids[1], stage.ledger.verdict().await, stage.letters().await)
}

#[tokio::test]
async fn an_old_message_that_was_in_work_at_a_kill_is_handled_when_it_comes_again() {
    let (_, verdict, letters) = one_in_work_at_a_kill("").await;

    assert!(verdict.is_green(), "{verdict}");
    assert_eq!(letters, []);
}

#[tokio::test]
async fn a_position_of_the_newest_turns_the_ledger_red() {
    let (in_work, verdict, letters) = one_in_work_at_a_kill("position-of-the-newest").await;

    assert_eq!(verdict.missing_effects, 1, "{verdict}");
    assert_eq!(letters, [("too_old".to_owned(), in_work)]);
}

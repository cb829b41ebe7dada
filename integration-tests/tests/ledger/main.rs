//! The ledger against real servers. The relay and the handler are played by the test: honestly, and then not.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::time::Duration;

use onceward_testkit::kafka::Kafka;
use onceward_testkit::ledger::{Ledger, Mix, Stop, Tap, Workload, append_many, effects};
use onceward_testkit::nats::Nats;
use onceward_testkit::postgres::{Database, Postgres};
use onceward_testkit::{unique, wait};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use uuid::Uuid;

mod takeovers;

const SOON: Duration = Duration::from_secs(30);

struct Logged {
    id: Uuid,
    key: String,
    topic: String,
    payload: Vec<u8>,
}

async fn database() -> Database {
    let database = Postgres::shared().await.database().await;
    onceward_migrations::run(database.pool()).await.unwrap();
    database
}

/// The whole log in the order of `seq`, which is that of each key once nobody writes any more.
async fn log(database: &Database) -> Vec<Logged> {
    let statement = "select id, key, topic, payload from onceward.messages order by seq";
    let read = |row: PgRow| Logged {
        id: row.get("id"),
        key: row.get("key"),
        topic: row.get("topic"),
        payload: row.get("payload"),
    };
    sqlx::query(statement)
        .map(read)
        .fetch_all(database.pool())
        .await
        .unwrap()
}

async fn handle(database: &Database, message: &Logged) {
    effects::record(&mut database.pool().acquire().await.unwrap(), message.id)
        .await
        .unwrap();
}

/// A stream for the topics of the workload, and its prefix of subjects.
async fn stream(nats: &Nats) -> String {
    let name = unique("ledger");
    let config = async_nats::jetstream::stream::Config {
        name: name.clone(),
        subjects: vec![format!("{name}.>")],
        ..Default::default()
    };
    async_nats::jetstream::new(nats.client().await)
        .create_stream(config)
        .await
        .unwrap();
    name
}

async fn publish(nats: &Nats, stream: &str, message: &Logged) {
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("ce-id", message.id.to_string());
    headers.insert("ce-partitionkey", message.key.as_str());
    let jetstream = async_nats::jetstream::new(nats.client().await);
    let subject = format!("{stream}.{}", message.topic);
    let ack = jetstream
        .publish_with_headers(subject, headers, message.payload.clone().into())
        .await
        .unwrap();
    ack.await.unwrap();
}

fn everything_that_happens() -> Workload {
    Workload {
        messages: 300,
        keys: 7,
        mix: Mix {
            two_phase: 5,
            ..Mix::default()
        },
        slow_for: Duration::from_millis(50),
        ..Workload::default()
    }
}

#[tokio::test]
async fn an_honest_run_on_nats_is_green_and_dishonest_ones_are_not() {
    let (database, nats) = (database().await, Nats::shared().await);
    let stream = stream(nats).await;
    let tap = Tap::nats(nats.url(), &[&stream]);
    let mut ledger = Ledger::open(database.pool(), tap)
        .await
        .with_effects(database.pool())
        .await;
    let written = everything_that_happens()
        .run(database.url(), Stop::new())
        .await;
    assert!(
        written.messages >= 300 && written.aborted > 0 && written.unknown == 0,
        "{written:?}"
    );
    let log = log(&database).await;

    for message in log.iter().skip(1) {
        publish(nats, &stream, message).await;
        handle(&database, message).await;
    }
    let verdict = ledger.verdict().await;
    assert_eq!(
        (verdict.lost, verdict.missing_effects, verdict.out_of_order),
        (1, 1, 0),
        "{verdict}"
    );

    // The first of its key, behind the others.
    publish(nats, &stream, &log[0]).await;
    handle(&database, &log[0]).await;
    let verdict = ledger.verdict_within(SOON).await;
    assert_eq!(
        (
            verdict.lost,
            verdict.out_of_order,
            verdict.effects_out_of_order
        ),
        (0, 1, 1),
        "{verdict}"
    );

    ledger.excuse(log[0].id);
    assert!(ledger.verdict().await.is_green());

    publish(nats, &stream, &log[5]).await;
    handle(&database, &log[5]).await;
    ledger.allow_duplicates(0, 1);
    let verdict = ledger.verdict().await;
    assert_eq!(
        (verdict.unexplained_duplicates, verdict.doubled_effects),
        (1, 1),
        "{verdict}"
    );
}

#[tokio::test]
async fn an_honest_run_on_kafka_is_green() {
    let (database, kafka) = (database().await, Kafka::shared().await);
    let topics = [unique("orders"), unique("payments")];
    for topic in &topics {
        kafka.create_topic(topic, 3, &[]).await;
    }
    let tap = Tap::kafka(kafka.brokers(), &[&topics[0], &topics[1]]);
    let ledger = Ledger::open(database.pool(), tap).await;
    let workload = Workload {
        topics: topics.to_vec(),
        ..everything_that_happens()
    };
    workload.run(database.url(), Stop::new()).await;
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", kafka.brokers())
        .set("linger.ms", "0")
        .create()
        .unwrap();

    for message in log(&database).await {
        let id = message.id.to_string();
        let headers = OwnedHeaders::new().insert(Header {
            key: "ce_id",
            value: Some(&id),
        });
        let record = FutureRecord::to(&message.topic)
            .key(&message.key)
            .payload(&message.payload)
            .headers(headers);
        producer.send(record, SOON).await.unwrap();
    }

    let verdict = ledger.verdict_within(SOON).await;
    assert!(verdict.is_green(), "{verdict}");
    assert!(verdict.published >= 300, "{verdict}");
}

#[tokio::test]
async fn writers_go_on_when_the_database_comes_back_and_leave_nothing_prepared() {
    let server = Postgres::start(onceward_testkit::postgres::Options::default()).await;
    let database = server.database().await;
    onceward_migrations::run(database.pool()).await.unwrap();
    let ledger = Ledger::open(
        database.pool(),
        Tap::nats(Nats::shared().await.url(), &["none"]),
    )
    .await;
    let workload = Workload {
        mix: Mix {
            two_phase: 50,
            ..Mix::default()
        },
        ..everything_that_happens()
    };
    let writers = tokio::spawn({
        let url = database.url().to_owned();
        async move { workload.run(&url, Stop::new()).await }
    });
    let count = || async {
        sqlx::query_scalar::<_, i64>("select count(*) from ledger.business")
            .fetch_one(database.pool())
            .await
            .ok()
    };
    wait::until(SOON, "some rows", || async {
        count().await.filter(|rows| *rows > 50)
    })
    .await;

    server.kill();
    server.start_again().await;

    let written = writers.await.unwrap();
    assert!(
        written.messages >= 300 && written.unknown > 0,
        "{written:?}"
    );
    let rows = wait::until(SOON, "all rows", count).await;
    let log = log(&database).await;
    assert_eq!(
        usize::try_from(rows).unwrap(),
        log.len(),
        "a business row and a message in one transaction"
    );
    let prepared: i64 = sqlx::query_scalar("select count(*) from pg_prepared_xacts")
        .fetch_one(database.pool())
        .await
        .unwrap();
    assert_eq!(prepared, 0);
    drop(ledger);
}

#[tokio::test]
async fn one_transaction_of_many_messages_is_in_order() {
    let (database, nats) = (database().await, Nats::shared().await);
    let ledger = Ledger::open(
        database.pool(),
        Tap::nats(nats.url(), &[&stream(nats).await]),
    )
    .await;

    let mut transaction = database.pool().begin().await.unwrap();
    append_many(&mut transaction, "orders.created", "k", 2_000)
        .await
        .unwrap();
    transaction.commit().await.unwrap();

    let facts = ledger.facts().await;
    let mut committed: Vec<_> = facts
        .committed
        .iter()
        .map(|one| (one.version, one.id))
        .collect();
    committed.sort_unstable();
    let logged: Vec<Uuid> = log(&database)
        .await
        .iter()
        .map(|message| message.id)
        .collect();
    assert_eq!(
        committed.into_iter().map(|(_, id)| id).collect::<Vec<_>>(),
        logged
    );
}

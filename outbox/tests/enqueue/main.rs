//! Enqueueing from Rust on a real server.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod refused;

use onceward::{Draft, Lane, Message, MessageId, Outbox, Schema};
use onceward_migrations::Migrations;
use onceward_testkit::postgres::{Database, Postgres};
use sqlx::postgres::{PgPool, PgRow};
use sqlx::{AssertSqlSafe, Row};
use uuid::{NoContext, Timestamp, Uuid};

async fn migrated() -> Database {
    let database = Postgres::shared().await.database().await;
    onceward_migrations::run(database.pool()).await.unwrap();
    database
}

async fn log(pool: &PgPool) -> Vec<PgRow> {
    sqlx::query("select * from onceward.messages order by seq")
        .fetch_all(pool)
        .await
        .unwrap()
}

fn draft() -> Draft {
    Message::bytes("orders.created", "x")
}

#[tokio::test]
async fn a_message_is_stored_as_it_was_given() {
    let database = migrated().await;
    let mut connection = database.pool().acquire().await.unwrap();
    let message = Message::json("orders.created", &serde_json::json!({ "order": 17 }))
        .unwrap()
        .key(17)
        .kind("created")
        .header("tenant", "acme \"é\" \\ \t")
        .lane(Lane::Bulk);

    let id = Outbox::new()
        .enqueue(&mut connection, message)
        .await
        .unwrap();

    let rows = log(database.pool()).await;
    assert_eq!(rows.len(), 1);
    let row = &rows[0];
    assert_eq!(MessageId::Uuid(row.get("id")), id);
    assert_eq!(row.get::<i16, _>("lane"), 2);
    assert_eq!(row.get::<String, _>("topic"), "orders.created");
    assert_eq!(row.get::<String, _>("key"), "17");
    assert_eq!(row.get::<String, _>("type"), "created");
    assert_eq!(row.get::<Vec<u8>, _>("payload"), br#"{"order":17}"#);
    assert_eq!(
        row.get::<serde_json::Value, _>("headers"),
        serde_json::json!({ "tenant": "acme \"é\" \\ \t", "content-type": "application/json" })
    );
}

#[tokio::test]
async fn a_message_lives_and_dies_with_its_transaction() {
    let database = migrated().await;
    let outbox = Outbox::new();

    let mut transaction = database.pool().begin().await.unwrap();
    outbox.enqueue(&mut transaction, draft()).await.unwrap();
    transaction.rollback().await.unwrap();
    assert_eq!(log(database.pool()).await.len(), 0);

    let mut transaction = database.pool().begin().await.unwrap();
    outbox.enqueue(&mut transaction, draft()).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(log(database.pool()).await.len(), 1);
}

#[tokio::test]
async fn many_messages_get_their_seq_in_the_order_given() {
    let database = migrated().await;
    let mut connection = database.pool().acquire().await.unwrap();
    let count = 50_000;
    // Ids that sort against the order, so that only the order of the call can give this result.
    let drafts = (0..count).map(|n: u128| {
        Message::bytes("t", n.to_string())
            .key(n % 7)
            .id(Uuid::from_u128(u128::MAX - n))
    });

    let ids = Outbox::new()
        .enqueue_many(&mut connection, drafts)
        .await
        .unwrap();

    let rows = log(database.pool()).await;
    assert_eq!(rows.len(), 50_000);
    for (n, (row, id)) in rows.iter().zip(&ids).enumerate() {
        assert_eq!(row.get::<Vec<u8>, _>("payload"), n.to_string().into_bytes());
        assert_eq!(&MessageId::Uuid(row.get("id")), id);
    }
}

#[tokio::test]
async fn many_may_be_none_and_differ_in_everything() {
    let database = migrated().await;
    let mut connection = database.pool().acquire().await.unwrap();
    let outbox = Outbox::new();

    let none = outbox.enqueue_many(&mut connection, []).await.unwrap();
    let two = outbox
        .enqueue_many(
            &mut connection,
            [
                Message::bytes("a", vec![0, 255])
                    .lane(Lane::Critical)
                    .key("k"),
                Message::bytes("b", "").header("h", "v"),
            ],
        )
        .await
        .unwrap();

    assert_eq!((none.len(), two.len()), (0, 2));
    let rows = log(database.pool()).await;
    assert_eq!(rows[0].get::<Vec<u8>, _>("payload"), [0, 255]);
    assert_eq!(rows[0].get::<i16, _>("lane"), 0);
    assert_eq!(rows[1].get::<Option<String>, _>("key"), None);
    assert_eq!(
        rows[1].get::<serde_json::Value, _>("headers"),
        serde_json::json!({ "h": "v" })
    );
}

#[tokio::test]
async fn ids_of_any_time_lie_in_the_slot_of_the_day_they_are_written() {
    let database = migrated().await;
    let mut connection = database.pool().acquire().await.unwrap();
    let of = |seconds| Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, 0));
    let ids = [of(0), of(9_000_000_000), of(250_000_000_000), Uuid::nil()];

    let sent = ids.map(|id| draft().id(id));
    Outbox::new()
        .enqueue_many(&mut connection, sent)
        .await
        .unwrap();
    sqlx::query("select onceward.enqueue('orders.created', 'x', id => $1)")
        .bind(ids[1])
        .execute(&mut *connection)
        .await
        .unwrap();

    let slots: Vec<i16> = sqlx::query_scalar(
        "select distinct m.slot from onceward.messages m, onceward.settings s
         where m.slot not in (
           floor(extract(epoch from clock_timestamp()) / s.message_slot_seconds)::bigint % s.message_slots,
           floor(extract(epoch from clock_timestamp()) / s.message_slot_seconds - 0.01)::bigint % s.message_slots)",
    )
    .fetch_all(database.pool())
    .await
    .unwrap();
    assert!(slots.is_empty(), "{slots:?}");
    let stored: Vec<Uuid> = log(database.pool())
        .await
        .iter()
        .map(|row| row.get("id"))
        .collect();
    assert_eq!(stored, [ids[0], ids[1], ids[2], ids[3], ids[1]]);
}

#[tokio::test]
async fn the_statement_for_other_drivers_does_the_same() {
    let database = migrated().await;
    let statement = Outbox::new()
        .statement([draft().key("a"), draft(), draft().header("h", "v")])
        .unwrap();

    let done = sqlx::query(AssertSqlSafe(statement.sql().to_owned()))
        .bind(&statement.lanes)
        .bind(&statement.ids)
        .bind(&statement.topics)
        .bind(&statement.keys)
        .bind(&statement.kinds)
        .bind(&statement.headers)
        .bind(&statement.payloads)
        .execute(database.pool())
        .await
        .unwrap();

    assert_eq!(done.rows_affected(), 3);
    let stored: Vec<Uuid> = log(database.pool())
        .await
        .iter()
        .map(|row| row.get("id"))
        .collect();
    assert_eq!(stored, statement.ids);
}

#[tokio::test]
async fn the_server_infers_the_types_of_the_statements_parameters() {
    let database = migrated().await;
    let statement = Outbox::new().statement([draft()]).unwrap();
    let mut connection = database.pool().acquire().await.unwrap();

    // As drivers do that ask the server for the types in place of naming them.
    sqlx::raw_sql(AssertSqlSafe(format!("prepare it as {}", statement.sql())))
        .execute(&mut *connection)
        .await
        .unwrap();

    let types: String = sqlx::query_scalar(
        "select parameter_types::text from pg_prepared_statements where name = 'it'",
    )
    .fetch_one(&mut *connection)
    .await
    .unwrap();
    assert_eq!(
        types,
        "{smallint[],uuid[],text[],text[],text[],text[],bytea[]}"
    );
}

#[tokio::test]
async fn a_writer_needs_no_right_but_to_insert() {
    let database = migrated().await;
    let mut connection = database.pool().acquire().await.unwrap();
    sqlx::raw_sql("set role onceward_writer")
        .execute(&mut *connection)
        .await
        .unwrap();
    let outbox = Outbox::new();

    outbox.enqueue(&mut connection, draft()).await.unwrap();
    outbox
        .enqueue_many(&mut connection, [draft(), draft()])
        .await
        .unwrap();

    assert_eq!(log(database.pool()).await.len(), 3);
    sqlx::raw_sql("reset role")
        .execute(&mut *connection)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_custom_schema_is_used_even_if_its_name_is_a_word_of_sql() {
    let database = Postgres::shared().await.database().await;
    let schema = Schema::try_from("table").unwrap();
    Migrations::new(schema.clone())
        .run(database.pool())
        .await
        .unwrap();
    let outbox = Outbox::in_schema(schema);
    let mut connection = database.pool().acquire().await.unwrap();

    outbox.enqueue(&mut connection, draft()).await.unwrap();
    outbox
        .enqueue_many(&mut connection, [draft()])
        .await
        .unwrap();

    let count: i64 = sqlx::query_scalar("select count(*) from \"table\".messages")
        .fetch_one(database.pool())
        .await
        .unwrap();
    assert_eq!(count, 2);
}

#[cfg(feature = "trace-context")]
#[tokio::test]
async fn the_trace_of_the_current_span_travels_in_the_headers() {
    use opentelemetry::trace::TracerProvider as _;
    use tracing::Instrument as _;
    use tracing_subscriber::layer::SubscriberExt as _;

    let database = migrated().await;
    let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder().build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
    let mut connection = database.pool().acquire().await.unwrap();

    Outbox::new()
        .enqueue_many(
            &mut connection,
            [draft(), draft().header("traceparent", "mine")],
        )
        .instrument(tracing::info_span!("request"))
        .await
        .unwrap();

    drop(guard);
    let rows = log(database.pool()).await;
    let parent = |row: &PgRow| {
        let headers: serde_json::Value = row.get("headers");
        headers["traceparent"].as_str().unwrap().to_owned()
    };
    assert!(parent(&rows[0]).starts_with("00-"));
    assert_eq!(parent(&rows[1]), "mine");
}

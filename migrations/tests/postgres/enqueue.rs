//! What the SQL functions write.

use std::collections::HashSet;

use sqlx::{AssertSqlSafe, PgPool, Row};
use uuid::Uuid;

pub(crate) async fn call(pool: &PgPool, sql: &str) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar(AssertSqlSafe(format!("select * from {sql}")))
        .fetch_all(pool)
        .await
}

#[tokio::test]
async fn a_message_is_stored_as_it_was_given() {
    let database = super::migrated().await;
    let pool = database.pool();

    let ids = call(
        pool,
        r#"onceward.enqueue('orders.created', '\x00ff', key => 'order 17 é', type => 'created',
             headers => '{"tenant": "acme", "note": "a\tb"}', content_type => 'text/plain', lane => 'critical')"#,
    )
    .await
    .unwrap();

    let row = sqlx::query("select * from onceward.messages")
        .fetch_one(pool)
        .await
        .unwrap();
    assert_eq!(ids, [row.get::<Uuid, _>("id")]);
    assert_eq!(ids[0].get_version_num(), 7);
    assert_eq!(row.get::<i16, _>("lane"), 0);
    assert_eq!(row.get::<String, _>("topic"), "orders.created");
    assert_eq!(row.get::<String, _>("key"), "order 17 é");
    assert_eq!(row.get::<String, _>("type"), "created");
    assert_eq!(row.get::<Vec<u8>, _>("payload"), [0, 255]);
    assert_eq!(
        row.get::<serde_json::Value, _>("headers"),
        serde_json::json!({ "tenant": "acme", "note": "a\tb", "content-type": "text/plain" })
    );
}

#[tokio::test]
async fn what_is_left_out_or_null_takes_its_default() {
    let database = super::migrated().await;
    let pool = database.pool();

    call(pool, "onceward.enqueue('t', '')").await.unwrap();
    call(
        pool,
        "onceward.enqueue('t', '', null, null, null, null, null, null)",
    )
    .await
    .unwrap();

    let rows = sqlx::query("select * from onceward.messages")
        .fetch_all(pool)
        .await
        .unwrap();
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert_eq!(row.get::<i16, _>("lane"), 1);
        assert_eq!(row.get::<Option<String>, _>("key"), None);
        assert_eq!(row.get::<String, _>("type"), "t");
        assert_eq!(
            row.get::<serde_json::Value, _>("headers"),
            serde_json::json!({})
        );
    }
}

#[tokio::test]
async fn json_keeps_its_bytes_as_written() {
    let database = super::migrated().await;

    call(
        database.pool(),
        r#"onceward.enqueue_json('t', '{"b": 1.50,  "a": "ü\u0000", "b": 2}')"#,
    )
    .await
    .unwrap();

    let row =
        sqlx::query("select payload, headers ->> 'content-type' as kind from onceward.messages")
            .fetch_one(database.pool())
            .await
            .unwrap();
    let payload: Vec<u8> = row.get("payload");
    assert_eq!(
        String::from_utf8(payload).unwrap(),
        r#"{"b": 1.50,  "a": "ü\u0000", "b": 2}"#
    );
    assert_eq!(row.get::<String, _>("kind"), "application/json");
}

#[tokio::test]
async fn many_messages_keep_their_order_and_their_ids() {
    let database = super::migrated().await;
    let own = Uuid::now_v7();
    let mut messages: Vec<serde_json::Value> = (0..500)
        .map(|n| serde_json::json!({ "topic": "t", "payload": n, "key": "k" }))
        .collect();
    messages.push(serde_json::json!({
        "topic": "u", "payload_base64": "AP8=", "id": own, "lane": "bulk", "type": "x",
        "headers": { "a": "b" }, "content_type": "application/octet-stream",
    }));

    let ids: Vec<Uuid> = sqlx::query_scalar("select onceward.enqueue_many($1)")
        .bind(serde_json::Value::from(messages))
        .fetch_all(database.pool())
        .await
        .unwrap();

    let stored: Vec<Uuid> = sqlx::query_scalar("select id from onceward.messages order by seq")
        .fetch_all(database.pool())
        .await
        .unwrap();
    assert_eq!(ids, stored);
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 501);
    assert_eq!(ids[500], own);
    let row = sqlx::query("select * from onceward.messages order by seq desc limit 1")
        .fetch_one(database.pool())
        .await
        .unwrap();
    assert_eq!(row.get::<Vec<u8>, _>("payload"), [0, 255]);
    assert_eq!(row.get::<i16, _>("lane"), 2);
    assert_eq!(
        row.get::<serde_json::Value, _>("headers"),
        serde_json::json!({ "a": "b", "content-type": "application/octet-stream" })
    );
}

#[tokio::test]
async fn what_lies_just_within_a_limit_is_taken() {
    let database = super::migrated().await;
    let all: serde_json::Map<_, _> = (0..64).map(|n| (format!("h{n}"), "v".into())).collect();
    let headers = serde_json::Value::from(all);

    for arguments in [
        "repeat('x', 249), 'x'".to_owned(),
        "'t', 'x', key => repeat('k', 1024)".to_owned(),
        "'t', 'x', type => repeat('t', 255)".to_owned(),
        format!("'t', 'x', headers => '{headers}'"),
        "'t', 'x', headers => jsonb_build_object('a', repeat('v', 16383))".to_owned(),
        "'t', convert_to(repeat('x', 1000000), 'UTF8')".to_owned(),
        "'t', ''".to_owned(),
        r#"'t', 'x', key => 'k', headers => '{"onceward-sequence": "1"}'"#.to_owned(),
        r#"'t', 'x', key => 'k', headers => '{"onceward-sequence": "9223372036854775807"}'"#
            .to_owned(),
    ] {
        let result = call(database.pool(), &format!("onceward.enqueue({arguments})")).await;

        assert!(result.is_ok(), "{arguments}: {result:?}");
    }
}

#[tokio::test]
async fn the_callers_search_path_changes_nothing() {
    let database = super::migrated().await;
    let mut transaction = database.pool().begin().await.unwrap();
    // Functions and tables that would be taken if the search path of the caller counted.
    sqlx::raw_sql(
        "create schema trap;
         create function trap.octet_length(text) returns integer language sql as 'select 1 / 0';
         create function trap.clock_timestamp() returns timestamptz language sql as 'select null::timestamptz';
         create function trap.format(text, variadic text[]) returns text language sql as 'select null::text';
         create temporary table settings (max_payload integer);
         set local search_path = trap, pg_catalog",
    )
    .execute(&mut *transaction)
    .await
    .unwrap();

    let id: Uuid = sqlx::query_scalar("select onceward.enqueue('t', 'x'::bytea)")
        .fetch_one(&mut *transaction)
        .await
        .unwrap();

    assert_eq!(id.get_version_num(), 7);
}

#[tokio::test]
async fn a_rolled_back_transaction_leaves_nothing() {
    let database = super::migrated().await;
    let mut transaction = database.pool().begin().await.unwrap();
    sqlx::query("select onceward.enqueue('t', 'x')")
        .execute(&mut *transaction)
        .await
        .unwrap();

    transaction.rollback().await.unwrap();

    let count: i64 = sqlx::query_scalar("select count(*) from onceward.messages")
        .fetch_one(database.pool())
        .await
        .unwrap();
    assert_eq!(count, 0);
}

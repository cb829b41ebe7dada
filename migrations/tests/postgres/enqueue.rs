use std::collections::HashSet;

use sqlx::{AssertSqlSafe, PgPool, Row};
use uuid::Uuid;

/// SQLSTATE of a message that is refused.
const REFUSED: &str = "OW001";

async fn call(pool: &PgPool, sql: &str) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar(AssertSqlSafe(format!("select * from {sql}")))
        .fetch_all(pool)
        .await
}

/// Calls it and gives the column and the text of the refusal; the log must stay empty.
async fn refusal(pool: &PgPool, sql: &str) -> (String, String) {
    let error = call(pool, sql).await.expect_err(sql);
    let error = error.as_database_error().expect(sql);
    assert_eq!(error.code().as_deref(), Some(REFUSED), "{sql}: {error}");
    let count: i64 = sqlx::query_scalar("select count(*) from onceward.messages")
        .fetch_one(pool)
        .await
        .unwrap();
    assert_eq!(count, 0, "{sql}");
    let postgres = error.downcast_ref::<sqlx::postgres::PgDatabaseError>();
    let column = postgres.column().unwrap_or_default().to_owned();
    (column, error.message().to_owned())
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
async fn a_bad_message_is_refused_with_its_field() {
    let database = super::migrated().await;
    let long = "k".repeat(10_240);
    let headers = |n: usize| {
        let all: serde_json::Map<_, _> = (0..n).map(|n| (format!("h{n}"), "v".into())).collect();
        serde_json::Value::from(all)
    };
    let cases = [
        ("topic", "'', 'x'".to_owned()),
        ("topic", "null, 'x'".to_owned()),
        ("topic", "repeat('x', 250), 'x'".to_owned()),
        ("topic", "'a b', 'x'".to_owned()),
        ("topic", "E'a\\n', 'x'".to_owned()),
        ("topic", "'ä', 'x'".to_owned()),
        ("topic", "'a..b', 'x'".to_owned()),
        ("topic", "'.', 'x'".to_owned()),
        ("payload", "'t', null".to_owned()),
        ("key", format!("'t', 'x', key => '{long}'")),
        ("key", "'t', 'x', key => ''".to_owned()),
        ("key", "'t', 'x', key => E'a\\rb'".to_owned()),
        ("key", "'t', 'x', key => E'a\\u0085b'".to_owned()),
        ("type", "'t', 'x', type => ''".to_owned()),
        ("type", "'t', 'x', type => repeat('x', 256)".to_owned()),
        ("type", "'t', 'x', type => E'a\\nb'".to_owned()),
        (
            "headers",
            r#"'t', 'x', headers => '{"a\rb": "1"}'"#.to_owned(),
        ),
        (
            "headers",
            r#"'t', 'x', headers => '{"a\nb": "1"}'"#.to_owned(),
        ),
        (
            "headers",
            r#"'t', 'x', headers => '{"a:b": "1"}'"#.to_owned(),
        ),
        ("headers", r#"'t', 'x', headers => '{"": "1"}'"#.to_owned()),
        (
            "headers",
            r#"'t', 'x', headers => '{"ce-id": "1"}'"#.to_owned(),
        ),
        (
            "headers",
            r#"'t', 'x', headers => '{"CE_id": "1"}'"#.to_owned(),
        ),
        (
            "headers",
            r#"'t', 'x', headers => '{"Nats-Msg-Id": "1"}'"#.to_owned(),
        ),
        (
            "headers",
            r#"'t', 'x', headers => '{"onceward-seq": "1"}'"#.to_owned(),
        ),
        (
            "headers",
            r#"'t', 'x', headers => '{"Content-Type": "1"}'"#.to_owned(),
        ),
        (
            "headers",
            r#"'t', 'x', headers => '{"a": "1\r\n2"}'"#.to_owned(),
        ),
        ("headers", r#"'t', 'x', headers => '{"a": 1}'"#.to_owned()),
        (
            "headers",
            r#"'t', 'x', key => 'k', headers => '{"onceward-sequence": "0"}'"#.to_owned(),
        ),
        (
            "headers",
            r#"'t', 'x', key => 'k', headers => '{"onceward-sequence": "-1"}'"#.to_owned(),
        ),
        (
            "headers",
            r#"'t', 'x', key => 'k', headers => '{"onceward-sequence": "one"}'"#.to_owned(),
        ),
        (
            "headers",
            r#"'t', 'x', key => 'k', headers => '{"onceward-sequence": "9223372036854775808"}'"#
                .to_owned(),
        ),
        (
            "key",
            r#"'t', 'x', headers => '{"onceward-sequence": "1"}'"#.to_owned(),
        ),
        (
            "headers",
            r#"'t', 'x', headers => '{"a": null}'"#.to_owned(),
        ),
        ("headers", r#"'t', 'x', headers => '["a"]'"#.to_owned()),
        ("headers", format!("'t', 'x', headers => '{}'", headers(65))),
        (
            "headers",
            "'t', 'x', headers => jsonb_build_object('a', repeat('v', 16384))".to_owned(),
        ),
        ("content_type", "'t', 'x', content_type => ''".to_owned()),
        (
            "content_type",
            "'t', 'x', content_type => E'a\\r\\nb'".to_owned(),
        ),
        ("lane", "'t', 'x', lane => 'urgent'".to_owned()),
        (
            "payload",
            "'t', convert_to(repeat('x', 1000001), 'UTF8')".to_owned(),
        ),
    ];

    for (field, arguments) in cases {
        let (column, message) =
            refusal(database.pool(), &format!("onceward.enqueue({arguments})")).await;

        assert_eq!(column, field, "{arguments}");
        assert!(!message.is_empty() && !message.contains("kkk"), "{message}");
    }
}

#[tokio::test]
async fn a_header_with_nul_and_an_id_that_is_none_do_not_reach_the_function() {
    let database = super::migrated().await;

    for arguments in [
        r#"'t', 'x', headers => '{"a\u0000b": "1"}'"#,
        r#"'t', 'x', headers => '{"a": "\u0000"}'"#,
        "'t', 'x', id => '17'",
    ] {
        let result = call(database.pool(), &format!("onceward.enqueue({arguments})")).await;

        let code = super::code(result);
        assert!(["22P05", "22P02"].contains(&code.as_str()), "{code}");
    }
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
async fn the_largest_payload_follows_the_settings() {
    let database = super::migrated().await;
    sqlx::query("update onceward.settings set max_payload = 10")
        .execute(database.pool())
        .await
        .unwrap();

    let (field, message) = refusal(database.pool(), "onceward.enqueue('t', 'elevenbytes')").await;

    assert_eq!(field, "payload");
    assert_eq!(message, "the payload has 11 bytes; at most 10 are allowed");
    assert!(
        call(database.pool(), "onceward.enqueue('t', 'ten bytes.')")
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn one_bad_message_of_many_is_named_and_none_is_written() {
    let database = super::migrated().await;
    let id = Uuid::now_v7();
    let upper = id.to_string().to_uppercase();
    let good = r#"{"topic": "t", "payload": 1}"#;
    let cases = [
        ("messages", "null::jsonb".to_owned(), "array"),
        ("messages", "'{}'".to_owned(), "array"),
        ("messages", format!("'[{good}, 1]'"), "message 2: "),
        (
            "messages",
            format!(r#"'[{good}, {{"topic": "t", "paylod": 1}}]'"#),
            "message 2: unknown name \"paylod\"",
        ),
        (
            "payload",
            format!(r#"'[{good}, {{"topic": "t"}}]'"#),
            "message 2: ",
        ),
        (
            "payload",
            r#"'[{"topic": "t", "payload": 1, "payload_base64": "AA=="}]'"#.to_owned(),
            "exactly one",
        ),
        (
            "payload_base64",
            r#"'[{"topic": "t", "payload_base64": "A!"}]'"#.to_owned(),
            "base64",
        ),
        (
            "payload",
            r#"'[{"topic": "t", "payload_base64": null}]'"#.to_owned(),
            "null",
        ),
        (
            "topic",
            format!(r#"'[{good}, {{"topic": 7, "payload": 1}}]'"#),
            "must be a text",
        ),
        ("topic", r#"'[{"payload": 1}]'"#.to_owned(), "empty"),
        (
            "key",
            r#"'[{"topic": "t", "payload": 1, "key": 17}]'"#.to_owned(),
            "must be a text",
        ),
        (
            "lane",
            r#"'[{"topic": "t", "payload": 1, "lane": "x"}]'"#.to_owned(),
            "unknown lane",
        ),
        (
            "id",
            r#"'[{"topic": "t", "payload": 1, "id": "17"}]'"#.to_owned(),
            "no uuid",
        ),
        (
            "id",
            format!(
                r#"'[{{"topic": "t", "payload": 1, "id": "{id}"}}, {good}, {{"topic": "t", "payload": 1, "id": "{upper}"}}]'"#
            ),
            "given twice",
        ),
    ];

    for (field, messages, part) in cases {
        let sql = format!("onceward.enqueue_many({messages})");
        let (column, message) = refusal(database.pool(), &sql).await;

        assert_eq!(column, field, "{messages}");
        assert!(message.contains(part), "{message}");
    }
    let none = call(database.pool(), "onceward.enqueue_many('[]')").await;
    assert!(none.unwrap().is_empty());
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

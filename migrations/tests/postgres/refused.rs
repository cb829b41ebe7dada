//! What the SQL functions refuse.

use sqlx::PgPool;
use uuid::Uuid;

use crate::enqueue::call;

/// SQLSTATE of a message that is refused.
const REFUSED: &str = "OW001";

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

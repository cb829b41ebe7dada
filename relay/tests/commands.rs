//! The commands of `onceward` on a real database, as a user runs them.

#![expect(clippy::unwrap_used, reason = "a test's helper fails the test")]

mod common;

use common::Shell;
use onceward_testkit::postgres::{Database, Options, Postgres};
use serde_json::json;
use sqlx::PgPool;

async fn execute(pool: &PgPool, statement: &'static str) {
    sqlx::raw_sql(statement).execute(pool).await.unwrap();
}

#[tokio::test]
async fn migrate_makes_the_schema_once_and_then_changes_nothing() {
    let database = Postgres::shared().await.database().await;
    let shell = Shell::with_database(database.url());

    let before = shell.run(&["migrate", "--check"]).await;
    let first = shell.json(&["migrate"]).await;
    let second = shell.json(&["migrate"]).await;
    let after = shell.run(&["migrate", "--check"]).await;

    before.assert_refused(1, &["not up to date", "onceward migrate"]);
    assert_eq!(first["applied"], json!([1, 2, 3, 4, 5, 6]));
    assert_eq!(second["applied"], json!([]));
    assert_eq!(second["state"], "current");
    assert_eq!(after.code, 0, "{after:?}");
}

#[tokio::test]
async fn what_migrate_prints_can_be_pasted_elsewhere() {
    let database = Postgres::shared().await.database().await;
    let shell = Shell::with_database(database.url());

    let sql = Shell::with_config("").ok(&["migrate", "--print"]).await;
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
        .execute(database.pool())
        .await
        .unwrap();

    assert_eq!(shell.json(&["migrate"]).await["applied"], json!([]));
}

#[tokio::test]
async fn a_schema_of_a_newer_release_is_refused() {
    let database = Postgres::shared().await.database().await;
    let shell = Shell::with_database(database.url());
    shell.ok(&["migrate"]).await;
    execute(
        database.pool(),
        "insert into onceward.migrations (version, name, checksum) values (99, 'later', 'x')",
    )
    .await;

    shell
        .run(&["migrate"])
        .await
        .assert_refused(1, &["version 99", "newer"]);
    shell
        .run(&["status"])
        .await
        .assert_refused(1, &["version 99", "newer release"]);
}

#[tokio::test]
async fn a_database_that_is_not_there_is_named_by_its_setting() {
    let port = onceward_testkit::free_port();
    let shell = Shell::with_database(&format!("postgres://shop:hunter2@127.0.0.1:{port}/shop"));

    for command in [&["migrate"][..], &["status"], &["parked", "list"]] {
        let parts = [
            "no database answers",
            &format!("127.0.0.1:{port}"),
            "database.url",
        ];
        shell.run(command).await.assert_refused(1, &parts);
    }
    Shell::with_config("")
        .run(&["status"])
        .await
        .assert_refused(2, &["database.url", "DATABASE_URL"]);
}

#[tokio::test]
async fn a_wrong_password_and_a_missing_database_are_told_apart() {
    let rules = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        rules.path(),
        "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n",
    )
    .unwrap();
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(rules.path(), readable).unwrap();
    let options = Options::default().config("hba_file", &rules.path().display().to_string());
    let server = Postgres::start(options).await;
    let database = server.database().await;
    execute(database.pool(), "create role shop login password 'right'").await;
    let url = |password: &str, name: &str| {
        let host = database
            .url()
            .rsplit_once('@')
            .unwrap()
            .1
            .split_once('/')
            .unwrap()
            .0;
        format!("postgres://shop:{password}@{host}/{name}")
    };

    let wrong = Shell::with_database(&url("hunter2", database.name()))
        .run(&["status"])
        .await;
    let missing = Shell::with_database(&url("right", "nowhere"))
        .run(&["status"])
        .await;

    wrong.assert_refused(1, &["\"shop\"", "database.url", "password"]);
    missing.assert_refused(1, &["\"nowhere\"", "database.url"]);
}

#[tokio::test]
async fn a_database_without_the_schema_is_told_what_to_run() {
    let database = Postgres::shared().await.database().await;
    let shell = Shell::with_database(database.url());

    for command in [
        &["status"][..],
        &["dead-letters", "list"],
        &["parked", "list"],
        &["stream", "list"],
    ] {
        shell
            .run(command)
            .await
            .assert_refused(1, &["no schema onceward", "run `onceward migrate`"]);
    }
}

#[tokio::test]
async fn a_standby_is_not_migrated_and_found_by_doctor() {
    let primary = Postgres::start(Options::default()).await;
    let standby = primary.standby("copy").await;
    let shell = Shell::with_database(&standby.url("postgres"));

    let migrated = shell.run(&["migrate"]).await;
    let looked = shell.run(&["doctor"]).await;

    migrated.assert_refused(1, &["standby", "primary"]);
    assert_eq!(looked.code, 1, "{looked:?}");
    assert!(looked.out.contains("standby"), "{looked:?}");
}

#[tokio::test]
async fn doctor_finds_nothing_wrong_with_a_fresh_schema() {
    let database = Postgres::shared().await.database().await;
    let shell = Shell::with_database(database.url());
    shell.ok(&["migrate"]).await;

    let answer = shell.json(&["doctor"]).await;

    assert_eq!(answer["healthy"], true, "{answer}");
    assert_eq!(answer["server"]["schema_version"], 6);
}

#[tokio::test]
async fn doctor_says_what_is_wrong_and_what_to_do() {
    let database = Postgres::shared().await.database().await;
    let port = onceward_testkit::free_port();
    let shell = Shell::with_config(&format!(
        "source = \"/shop\"\n[retention]\nmessages = \"10d\"\n[streams.events.nats]\nservers = \"nats://127.0.0.1:{port}\""
    ))
    .variable("DATABASE_URL", database.url());
    shell.ok(&["migrate"]).await;
    execute(
        database.pool(),
        "alter table onceward.messages enable row level security; alter sequence onceward.messages_seq_seq cache 10",
    )
    .await;

    let answer = shell.run(&["doctor", "--json"]).await;

    assert_eq!(answer.code, 1, "{answer:?}");
    let found: serde_json::Value = serde_json::from_str(&answer.out).unwrap();
    let codes: Vec<&str> = found["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["code"].as_str().unwrap())
        .collect();
    for code in ["row_security", "sequence", "retention", "destination"] {
        assert!(codes.contains(&code), "{code} is not in {codes:?}");
    }
    let remedies = found["findings"].as_array().unwrap().iter();
    assert!(
        remedies
            .clone()
            .all(|f| !f["remedy"].as_str().unwrap().is_empty())
    );
}

#[tokio::test]
async fn status_of_a_database_without_streams_says_so() {
    let database = Postgres::shared().await.database().await;
    let shell = Shell::with_database(database.url());
    shell.ok(&["migrate"]).await;

    let people = shell.ok(&["status"]).await;
    let programs = shell.json(&["status"]).await;

    assert!(people.contains("no streams yet"), "{people}");
    assert_eq!(
        programs,
        json!({ "streams": [], "unrouted": [], "dead_letters": [] })
    );
}

#[tokio::test]
async fn status_shows_lease_depth_age_and_what_waits() {
    let database = Postgres::shared().await.database().await;
    let shell = Shell::with_database(database.url());
    shell.ok(&["migrate"]).await;
    execute(
        database.pool(),
        r#"
        insert into onceward.streams (stream, owner, lease_token, lease_until, topics, paused)
        values ('events', 'relay-1', gen_random_uuid(), clock_timestamp() + interval '1 hour', '{orders.*}',
                '[{"topic": "orders.slow", "reason": "no such topic", "since": "2026-01-01T00:00:00Z"}]');
        insert into onceward.cursors (stream, lane, snapshot)
        select 'events', lane, pg_current_snapshot() from generate_series(0, 2) lane;
        select onceward.enqueue('orders.created', 'x', 'k');
        insert into onceward.unrouted (slot, lane, topic) values (0, 1, 'lost.topic');
        insert into onceward.dead_letters (consumer, message_id, topic, payload, reason, error)
        values ('billing', gen_random_uuid(), 'orders.created', '\x7b7d', 'attempts', 'no luck');
        "#,
    )
    .await;

    let people = shell.ok(&["status"]).await;
    let programs = shell.json(&["status"]).await;

    for part in [
        "events",
        "relay-1",
        "standard",
        "orders.slow",
        "no such topic",
        "lost.topic",
        "billing",
    ] {
        assert!(people.contains(part), "{part:?} is not in {people}");
    }
    let stream = &programs["streams"][0];
    assert_eq!(stream["lease"], "held");
    assert_eq!(stream["depth"], 1);
    assert_eq!(stream["lanes"][1]["lane"], "standard");
    assert!(stream["lanes"][1]["oldest_seconds"].as_f64().unwrap() >= 0.0);
    assert_eq!(programs["dead_letters"][0]["count"], 1);
}

#[tokio::test]
async fn dead_letters_are_listed_and_shown_whole() {
    let database = Postgres::shared().await.database().await;
    let shell = Shell::with_database(database.url());
    shell.ok(&["migrate"]).await;
    execute(
        database.pool(),
        r#"
        insert into onceward.dead_letters (consumer, message_id, topic, key, type, payload, reason, error, attempts, history)
        values ('billing', gen_random_uuid(), 'orders.created', 'k1', 'orders.created', '{"order": 17}', 'attempts', 'no luck', 1,
                '[{"number": 1, "at": "2026-01-01T00:00:00Z", "took_ms": 5, "error": "no luck"}]');
        "#,
    )
    .await;

    let list = shell.json(&["dead-letters", "list"]).await;
    let id = list["dead_letters"][0]["id"].to_string();
    let shown = shell.ok(&["dead-letters", "show", &id]).await;
    let other = shell
        .json(&["dead-letters", "list", "--consumer", "mailer"])
        .await;
    let missing = shell.run(&["dead-letters", "show", "4711"]).await;

    for part in ["billing", "attempt 1", "no luck", r#"{"order": 17}"#] {
        assert!(shown.contains(part), "{part:?} is not in {shown}");
    }
    assert_eq!(other["dead_letters"], json!([]));
    missing.assert_refused(1, &["no dead letter 4711"]);
}

async fn with_dead_letters() -> (Database, Shell) {
    let database = Postgres::shared().await.database().await;
    let shell = Shell::with_database(database.url());
    shell.ok(&["migrate"]).await;
    execute(
        database.pool(),
        r#"
        insert into onceward.dead_letters (consumer, message_id, original_id, topic, key, type, payload, reason, error)
        select 'billing', gen_random_uuid(), 'order ' || n, 'orders.created', 'k1', 'orders.created', '{"order": 17}', 'attempts', 'no luck'
        from generate_series(1, 3) n;
        insert into onceward.dead_letters (consumer, message_id, topic, payload, reason)
        values ('mailer', gen_random_uuid(), 'orders.created', 'x', 'undecodable');
        "#,
    )
    .await;
    (database, shell)
}

#[tokio::test]
async fn dead_letters_are_changed_replayed_and_discarded() {
    let (database, shell) = with_dead_letters().await;

    let edited = shell
        .json(&[
            "dead-letters",
            "edit",
            "2",
            "--payload",
            "{}",
            "--set-header",
            "a=b",
            "--replay",
        ])
        .await;
    let again = shell
        .run(&["dead-letters", "edit", "2", "--key", "x"])
        .await;
    let nothing = shell.run(&["dead-letters", "edit", "2"]).await;
    let reserved = shell
        .run(&["dead-letters", "edit", "1", "--set-header", "ce-id=1"])
        .await;
    let replayed = shell
        .json(&["dead-letters", "replay", "--all", "--consumer", "billing"])
        .await;
    let unreadable = shell.run(&["dead-letters", "replay", "4"]).await;
    let unsure = shell.run(&["dead-letters", "discard", "4"]).await;
    let discarded = shell.json(&["dead-letters", "discard", "4", "--yes"]).await;
    let missing = shell
        .run(&["dead-letters", "discard", "4711", "--yes"])
        .await;

    assert_eq!(edited, json!({ "id": 2, "edited": true, "replayed": true }));
    again.assert_refused(1, &["does not wait for a person: it was replayed"]);
    nothing.assert_refused(2, &["--payload"]);
    reserved.assert_refused(2, &["reserved"]);
    assert_eq!(replayed["ids"], json!([1, 3]), "oldest first");
    unreadable.assert_refused(1, &["left as they are: 4", "--type"]);
    unsure.assert_refused(2, &["--yes"]);
    assert_eq!(discarded["ids"], json!([4]));
    missing.assert_refused(1, &["left as they are: 4711"]);
    let waiting: Vec<(String, Vec<u8>)> =
        sqlx::query_as("select original_id, payload from onceward.retries order by id")
            .fetch_all(database.pool())
            .await
            .unwrap();
    let ids: Vec<&str> = waiting.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(
        ids,
        ["order 2", "order 1", "order 3"],
        "in the order of the replays"
    );
    assert_eq!(waiting[0].1, b"{}");
    let shown = shell.ok(&["dead-letters", "show", "2"]).await;
    assert!(
        shown.contains("edited") && shown.contains("replayed"),
        "{shown}"
    );
}

#[tokio::test]
async fn a_dead_letter_is_replayed_as_a_new_message() {
    let (database, shell) = with_dead_letters().await;

    let replayed = shell
        .json(&["dead-letters", "replay", "1", "--as-new"])
        .await;

    let (id, of): (uuid::Uuid, String) =
        sqlx::query_as("select id, headers ->> 'onceward-replay-of' from onceward.messages")
            .fetch_one(database.pool())
            .await
            .unwrap();
    assert_eq!(replayed["messages"], json!([id]));
    assert_eq!(of, "order 1");
}

#[tokio::test]
async fn wrong_usage_and_wrong_configuration_end_with_2() {
    let wrong = Shell::with_config("[databse]\nurl = \"postgres://shop:hunter2@h/d\"\nchunk = 1");

    wrong
        .run(&["status"])
        .await
        .assert_refused(2, &["databse", "did you mean database?"]);
    let shell = Shell::with_config("");
    shell.run(&["stauts"]).await.assert_refused(2, &["status"]);
    shell
        .run(&["--config", "/nonexistent.toml", "status"])
        .await
        .assert_refused(2, &["/nonexistent.toml"]);
}

#[tokio::test]
async fn a_failure_has_a_json_form_too() {
    let answer = Shell::with_config("").run(&["status", "--json"]).await;

    let error: serde_json::Value = serde_json::from_str(&answer.err).unwrap();
    assert!(
        error["error"]["message"]
            .as_str()
            .unwrap()
            .contains("database.url"),
        "{error}"
    );
    assert!(error["error"]["remedy"].is_string(), "{error}");
}

/// A stream that nobody runs, with two parked messages.
const PARKED: &str = r#"
    insert into onceward.streams (stream, topics) values ('events', '{*}');
    insert into onceward.cursors (stream, lane, snapshot)
    select 'events', lane, pg_current_snapshot() from generate_series(0, 2) lane;
    insert into onceward.parked (stream, seq, lane, id, topic, key, type, headers, payload, created_at, error_kind, error)
    select 'events', n, 1, gen_random_uuid(), 'orders.created', 'k' || n, 'orders.created', '{"tenant": "acme"}', '{"order": 17}',
      clock_timestamp(), 'too_large', 'the broker takes 1000 bytes'
    from generate_series(7, 8) n;
"#;

async fn with_parked() -> (Database, Shell) {
    let database = Postgres::shared().await.database().await;
    let shell = Shell::with_database(database.url());
    shell.ok(&["migrate"]).await;
    execute(database.pool(), PARKED).await;
    (database, shell)
}

#[tokio::test]
async fn parked_messages_are_listed_shown_changed_and_made_due() {
    let (_database, shell) = with_parked().await;

    let list = shell.ok(&["parked", "list"]).await;
    let page = shell.json(&["parked", "list", "--after", "events:7"]).await;
    let edit = shell
        .json(&[
            "parked",
            "edit",
            "events",
            "7",
            "--payload",
            "{}",
            "--set-header",
            "region=eu",
            "--remove-header",
            "tenant",
        ])
        .await;
    let shown = shell.json(&["parked", "show", "events", "7"]).await;
    let due = shell.json(&["parked", "replay", "events", "7"]).await;
    let late = shell
        .run(&["parked", "edit", "events", "7", "--key", "other"])
        .await;

    for part in ["events", "7", "too_large", "the broker takes 1000 bytes"] {
        assert!(list.contains(part), "{part:?} is not in {list}");
    }
    assert_eq!(page["parked"].as_array().unwrap().len(), 1);
    assert_eq!(edit["edited"], true);
    assert_eq!(shown["payload"], "{}");
    assert_eq!(shown["headers"], json!({ "region": "eu" }));
    assert_eq!(shown["history"][0]["what"], "edited", "{shown}");
    assert_eq!(due["numbers"], json!([7]));
    late.assert_refused(1, &["does not wait for a person", "due"]);
}

#[tokio::test]
async fn an_edit_that_enqueueing_would_refuse_is_refused() {
    let (_database, shell) = with_parked().await;

    for change in [
        ["--topic", "no spaces"],
        ["--set-header", "ce-id=1"],
        ["--key", ""],
    ] {
        let arguments = [&["parked", "edit", "events", "7"][..], &change[..]].concat();
        shell
            .run(&arguments)
            .await
            .assert_refused(2, &["not valid"]);
    }
    shell
        .run(&["parked", "edit", "events", "7"])
        .await
        .assert_refused(2, &["--topic"]);
}

#[tokio::test]
async fn what_cannot_be_undone_is_asked_for() {
    let (_database, shell) = with_parked().await;

    shell
        .run(&["parked", "discard", "events", "7"])
        .await
        .assert_refused(2, &["--yes"]);
    let one = shell
        .json(&["parked", "discard", "events", "7", "--yes"])
        .await;
    let all = shell
        .json(&["parked", "discard", "events", "--all", "--yes"])
        .await;
    let again = shell
        .run(&["parked", "discard", "events", "7", "4711", "--yes"])
        .await;
    let back = shell.json(&["parked", "replay", "events", "7"]).await;

    assert_eq!(
        (&one["numbers"], &all["numbers"]),
        (&json!([7]), &json!([8]))
    );
    again.assert_refused(1, &["left as they are: 7, 4711"]);
    assert_eq!(back["numbers"], json!([7]));
}

#[tokio::test]
async fn a_stream_that_nobody_runs_is_listed_and_dropped() {
    let (database, shell) = with_parked().await;

    let list = shell.json(&["stream", "list"]).await;
    shell
        .run(&["stream", "drop", "events"])
        .await
        .assert_refused(2, &["events", "2 that it has set aside", "--yes"]);
    let dropped = shell.json(&["stream", "drop", "events", "--yes"]).await;

    assert_eq!(list["streams"][0]["stream"], "events");
    assert_eq!(list["streams"][0]["configured"], false);
    assert_eq!(dropped["parked"], 2);
    let left: i64 = sqlx::query_scalar("select count(*) from onceward.cursors")
        .fetch_one(database.pool())
        .await
        .unwrap();
    assert_eq!(left, 0);
    shell
        .run(&["stream", "drop", "events", "--yes"])
        .await
        .assert_refused(1, &["no stream events"]);
}

#[tokio::test]
async fn a_stream_that_a_relay_holds_is_dropped_only_by_force() {
    let (database, shell) = with_parked().await;
    execute(
        database.pool(),
        "update onceward.streams set owner = 'relay-1', lease_token = gen_random_uuid(), lease_until = clock_timestamp() + interval '1 hour'",
    )
    .await;

    shell
        .run(&["stream", "drop", "events", "--yes"])
        .await
        .assert_refused(1, &["relay-1 holds", "--force"]);
    shell
        .ok(&["stream", "drop", "events", "--yes", "--force"])
        .await;
}

#[tokio::test]
async fn doctor_names_what_keeps_old_slots() {
    let (database, shell) = with_parked().await;
    execute(
        database.pool(),
        r#"
        insert into onceward.messages (lane, id, topic, type, payload, created_at, slot)
        select 1, gen_random_uuid(), 'orders.created', 'orders.created', '', clock_timestamp() - interval '5 days',
          (floor(date_part('epoch', clock_timestamp()) / 86400)::bigint + 7) % 12;
        "#,
    )
    .await;

    let answer = shell.json(&["doctor"]).await;

    let findings = answer["findings"].as_array().unwrap();
    let kept = findings.iter().find(|f| f["code"] == "slot_kept").unwrap();
    assert!(
        kept["text"]
            .as_str()
            .unwrap()
            .contains("the stream events has not published all"),
        "{kept}"
    );
    assert!(
        kept["remedy"]
            .as_str()
            .unwrap()
            .contains("onceward stream drop events"),
        "{kept}"
    );
}

#[tokio::test]
async fn the_help_names_every_command() {
    let help = Shell::with_config("").ok(&["--help"]).await;

    for command in [
        "migrate",
        "relay",
        "status",
        "doctor",
        "parked",
        "dead-letters",
        "stream",
    ] {
        assert!(
            help.contains(&format!("\n  {command} ")),
            "{command} is not in {help}"
        );
        let own = Shell::with_config("").ok(&[command, "--help"]).await;
        assert!(own.contains("--config") && own.contains("--json"), "{own}");
    }
}

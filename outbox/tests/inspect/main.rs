//! What `doctor` and `status` find in a real database.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod altered;
mod complete;

use std::time::Duration;

use onceward::schema::{self, Duty, Expected, Facts, Severity};
use onceward::{Message, Outbox, Schema};
use onceward_testkit::postgres::{Database, Postgres};
use sqlx::{Connection, PgConnection};

async fn migrated() -> Database {
    let database = Postgres::shared().await.database().await;
    onceward_migrations::run(database.pool()).await.unwrap();
    database
}

async fn facts(database: &Database, role: &str, duty: Duty) -> Facts {
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    run(&mut connection, role).await;
    schema::inspect(&mut connection, &Schema::default(), duty)
        .await
        .unwrap()
}

async fn run(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await
        .unwrap();
}

async fn run_as_owner(database: &Database, sql: &str) {
    let mut owner = PgConnection::connect(database.url()).await.unwrap();
    run(&mut owner, sql).await;
}

/// Codes of what was found, without that the test server does not sync.
fn codes(facts: &Facts) -> Vec<&'static str> {
    let expected = Expected {
        known_version: onceward_migrations::LATEST,
        long_transaction: Duration::ZERO,
        ..Expected::default()
    };
    let findings = schema::judge(facts, &expected);
    let codes = findings.iter().map(|finding| finding.code);
    codes.filter(|code| *code != "fsync_off").collect()
}

#[tokio::test]
async fn a_fresh_schema_is_sound_for_each_role() {
    let database = migrated().await;

    for (role, duty) in [
        ("reset role", Duty::Relay),
        ("set role onceward_relay", Duty::Relay),
        ("set role onceward_admin", Duty::Administer),
        ("set role onceward_consumer", Duty::Consume),
        ("set role onceward_writer", Duty::Write),
    ] {
        let facts = facts(&database, role, duty).await;

        assert_eq!(codes(&facts), [""; 0], "{role}: {facts:?}");
        assert_eq!(facts.version, Some(onceward_migrations::LATEST));
        assert_eq!(facts.indexes.len(), 24 + 24 + 22);
    }
}

#[tokio::test]
async fn a_database_without_the_schema_is_told() {
    let database = Postgres::shared().await.database().await;

    let facts = facts(&database, "reset role", Duty::Relay).await;

    assert_eq!(codes(&facts), ["no_schema"]);
    assert!(facts.server.version >= 140_000);
    assert!(facts.server.timeline.is_some());
}

#[tokio::test]
async fn a_user_without_rights_is_told_which_and_nothing_fails() {
    let database = migrated().await;

    for (role, duty) in [
        ("set role onceward_writer", Duty::Relay),
        ("set role onceward_consumer", Duty::Administer),
        ("set role onceward_relay", Duty::Write),
        ("set role onceward_relay", Duty::Administer),
        ("set role pg_monitor", Duty::Relay),
        ("set role pg_monitor", Duty::Write),
    ] {
        let facts = facts(&database, role, duty).await;

        assert!(codes(&facts).contains(&"rights"), "{role}: {facts:?}");
    }
    let writer = facts(&database, "set role onceward_writer", Duty::Relay).await;
    let truncate = |right: &schema::MissingRight| {
        right.privilege == "TRUNCATE" && right.object == "messages_11"
    };
    assert!(writer.missing_rights.iter().any(truncate));
}

#[tokio::test]
async fn a_copy_that_left_the_sequence_behind_is_found() {
    let database = migrated().await;
    let mut owner = PgConnection::connect(database.url()).await.unwrap();
    Outbox::new()
        .enqueue_many(&mut owner, (0..9).map(|_| Message::bytes("t", "x")))
        .await
        .unwrap();
    run(&mut owner, "select setval('onceward.messages_seq_seq', 5)").await;

    let facts = facts(&database, "reset role", Duty::Relay).await;

    assert_eq!(codes(&facts), ["sequence_behind"]);
}

#[tokio::test]
async fn a_sequence_that_was_set_back_under_an_empty_log_is_found() {
    let database = migrated().await;
    let mut owner = PgConnection::connect(database.url()).await.unwrap();
    run(
        &mut owner,
        "insert into onceward.streams (stream) values ('events');
         insert into onceward.cursors (stream, lane, last_seq, snapshot) values ('events', 1, 2, pg_current_snapshot());
         select setval('onceward.messages_seq_seq', 1)",
    )
    .await;

    let facts = facts(&database, "reset role", Duty::Relay).await;

    let findings = schema::judge(&facts, &Expected::default());
    let found = findings.iter().find(|f| f.code == "sequence_behind");
    assert!(
        found
            .unwrap()
            .text
            .contains("is at 1, and 2 was given before")
    );
}

#[tokio::test]
async fn open_and_prepared_transactions_are_named() {
    let server = Postgres::start(
        onceward_testkit::postgres::Options::default().config("max_prepared_transactions", "5"),
    )
    .await;
    let database = server.database().await;
    onceward_migrations::run(database.pool()).await.unwrap();
    let mut owner = PgConnection::connect(database.url()).await.unwrap();
    run(
        &mut owner,
        "begin; select onceward.enqueue('t', 'x'); prepare transaction 'left behind'",
    )
    .await;

    let facts = facts(&database, "reset role", Duty::Relay).await;

    // A transaction is listed as open after a minute only, a prepared one at once.
    assert_eq!(codes(&facts), ["prepared_transaction"]);
    assert_eq!(facts.prepared[0].name, "left behind");
    run(&mut owner, "rollback prepared 'left behind'").await;
}

#[tokio::test]
async fn a_standby_is_told_apart() {
    let server = Postgres::start(onceward_testkit::postgres::Options::default()).await;
    let database = server.database().await;
    onceward_migrations::run(database.pool()).await.unwrap();
    let standby = server.standby("copy").await;
    let mut connection = PgConnection::connect(&standby.url(database.name()))
        .await
        .unwrap();

    let facts = schema::inspect(&mut connection, &Schema::default(), Duty::Relay)
        .await
        .unwrap();

    assert_eq!(codes(&facts), ["standby"]);
    assert_eq!(facts.server.timeline, None);
    let mut primary = PgConnection::connect(database.url()).await.unwrap();
    let facts = schema::inspect(&mut primary, &Schema::default(), Duty::Relay)
        .await
        .unwrap();
    assert_eq!(facts.server.standbys.len(), 1);
    assert_eq!(facts.server.standbys[0].name.as_deref(), Some("copy"));
}

#[tokio::test]
async fn the_overview_shows_depth_and_age_late_rows_included() {
    let database = migrated().await;
    let mut owner = PgConnection::connect(database.url()).await.unwrap();
    let mut late = database.pool().begin().await.unwrap();
    let outbox = Outbox::new();
    outbox
        .enqueue(&mut late, Message::bytes("t", "late"))
        .await
        .unwrap();
    outbox
        .enqueue(&mut owner, Message::bytes("t", "read"))
        .await
        .unwrap();
    run(
        &mut owner,
        "insert into onceward.streams (stream, topics, owner, lease_until, paused)
         values ('events', '{orders.*}', 'relay-1', clock_timestamp() + interval '10 s', '[{\"topic\": \"t\"}]');
         insert into onceward.cursors (stream, lane, last_seq, snapshot)
         values ('events', 1, 2, pg_current_snapshot());
         insert into onceward.unrouted (slot, lane, topic) values (1, 1, 'audit'), (2, 1, 'audit');
         insert into onceward.parked (stream, seq, lane, id, topic, type, headers, payload, created_at, error_kind, error)
         values ('events', 2, 1, gen_random_uuid(), 't', 't', '{}', '', now(), 'rejected', 'no')",
    )
    .await;
    let read = async |owner: &mut PgConnection| {
        let mut streams = schema::overview(owner, &Schema::default()).await.unwrap();
        streams.remove(0)
    };

    let behind = read(&mut owner).await;
    late.commit().await.unwrap();
    let with_late = read(&mut owner).await;
    outbox
        .enqueue(&mut owner, Message::bytes("t", "new"))
        .await
        .unwrap();
    let with_new = read(&mut owner).await;

    assert_eq!(
        (behind.cursors[0].depth, behind.cursors[0].oldest_seconds),
        (0, None)
    );
    assert!(behind.lease_seconds.unwrap() > 0.0);
    assert_eq!(behind.parked[0].count, 1);
    assert_eq!(with_late.cursors[0].depth, 0);
    assert!(with_late.cursors[0].oldest_seconds.is_some());
    assert_eq!(with_new.cursors[0].depth, 1);
    assert!(with_new.cursors[0].oldest_seconds >= with_late.cursors[0].oldest_seconds);
    let facts = facts(&database, "reset role", Duty::Administer).await;
    assert_eq!(facts.unrouted[0].slots, 2);
    let expected = Expected {
        known_version: onceward_migrations::LATEST,
        ..Expected::default()
    };
    let worst = schema::judge(&facts, &expected)[0].severity;
    assert_eq!(worst, Severity::Warning);
}

#[tokio::test]
async fn the_age_of_a_late_row_is_told_as_far_as_rows_may_be_late() {
    let database = migrated().await;
    let mut owner = PgConnection::connect(database.url()).await.unwrap();
    let outbox = Outbox::new();
    for payload in ["late", "read"] {
        let draft = Message::bytes("t", payload);
        outbox.enqueue(&mut owner, draft).await.unwrap();
    }
    // As if the transaction of the first had had its id, and had not ended, when the second was read.
    run(
        &mut owner,
        "insert into onceward.streams (stream) values ('events');
         insert into onceward.cursors (stream, lane, last_seq, snapshot)
         select 'events', 1, 2, format('%1$s:%1$s:', min(txid::text::bigint))::pg_snapshot from onceward.messages",
    )
    .await;

    // What is not below the id that is known is not looked at.
    let first = "select min(txid::text::bigint) from onceward.messages";
    let first: i64 = sqlx::query_scalar(first)
        .fetch_one(&mut owner)
        .await
        .unwrap();
    for (known, is_found) in [
        ("late_upto = null, late_below = null".to_owned(), true),
        (format!("late_upto = 2, late_below = '{}'", first + 1), true),
        (format!("late_upto = 2, late_below = '{first}'"), false),
    ] {
        run(&mut owner, &format!("update onceward.cursors set {known}")).await;

        let streams = schema::overview(&mut owner, &Schema::default()).await;

        let cursor = &streams.unwrap()[0].cursors[0];
        assert_eq!(
            (cursor.depth, cursor.oldest_seconds.is_some()),
            (0, is_found),
            "{known}"
        );
    }
}

async fn read_the_log(connection: &mut PgConnection) {
    let schema = Schema::default();
    schema::inspect(&mut *connection, &schema, Duty::Relay)
        .await
        .unwrap();
    schema::overview(&mut *connection, &schema).await.unwrap();
    schema::recent_topics(connection, &schema, 100)
        .await
        .unwrap();
}

async fn settings(connection: &mut PgConnection) -> Vec<(String, String)> {
    sqlx::query_as("select name, setting from pg_settings order by name")
        .fetch_all(connection)
        .await
        .unwrap()
}

#[tokio::test]
async fn whoever_reads_the_log_leaves_no_setting_on_the_caller_s_connection() {
    let database = migrated().await;
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    let before = settings(&mut connection).await;

    read_the_log(&mut connection).await;

    assert_eq!(settings(&mut connection).await, before);
    run(&mut connection, "create table ours ()").await;
}

#[tokio::test]
async fn whoever_reads_the_log_leaves_no_setting_in_the_caller_s_transaction() {
    let database = migrated().await;
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    let mut transaction = connection.begin().await.unwrap();
    run(&mut transaction, "create table ours ()").await;
    let before = settings(&mut transaction).await;

    read_the_log(&mut transaction).await;

    assert_eq!(settings(&mut transaction).await, before);
    run(&mut transaction, "insert into ours default values").await;
    transaction.commit().await.unwrap();
    run(&mut connection, "drop table ours").await;
}

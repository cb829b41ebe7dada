use onceward_testkit::postgres::Database;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

const FORBIDDEN: &str = "42501";

/// A connection that acts as one of the roles.
async fn acting_as(database: &Database, role: &'static str) -> PgConnection {
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    run(&mut connection, &format!("set role {role}"))
        .await
        .unwrap();
    connection
}

async fn run(connection: &mut PgConnection, sql: &str) -> Result<u64, sqlx::Error> {
    let done = sqlx::query(AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}

const COLUMNS: &str = "lane, id, topic, key, type, headers, payload";
const VALUES: &str = "1, gen_random_uuid(), 't', 'k', 't', '{}', ''";

#[tokio::test]
async fn a_writer_may_insert_a_message_and_call_the_functions() {
    let database = super::migrated().await;
    let mut writer = acting_as(&database, "onceward_writer").await;

    for sql in [
        format!("insert into onceward.messages ({COLUMNS}) values ({VALUES})"),
        format!(
            "insert into onceward.messages ({COLUMNS}) values ({VALUES}) on conflict do nothing"
        ),
        "select onceward.enqueue('t', 'x')".to_owned(),
        "select onceward.enqueue_json('t', '{}')".to_owned(),
        "select onceward.enqueue_many('[{\"topic\":\"t\",\"payload\":1}]')".to_owned(),
    ] {
        assert_eq!(run(&mut writer, &sql).await.unwrap(), 1, "{sql}");
    }
}

#[tokio::test]
async fn a_writer_cannot_forge_what_the_log_relies_on() {
    let database = super::migrated().await;
    let mut writer = acting_as(&database, "onceward_writer").await;

    for (column, value) in [
        ("txid", "'999999999'"),
        ("slot", "3"),
        ("slot", "default"),
        ("created_at", "now()"),
        ("seq", "-5"),
    ] {
        for overriding in ["", "overriding system value"] {
            let sql = format!(
                "insert into onceward.messages ({COLUMNS}, {column}) {overriding} values ({VALUES}, {value})"
            );
            let code = super::code(run(&mut writer, &sql).await);
            // 428C9: seq is "generated always".
            assert!(code == FORBIDDEN || code == "428C9", "{code}: {sql}");
        }
    }
    for lane in ["7", "-1", "null"] {
        let sql = format!(
            "insert into onceward.messages ({COLUMNS}) values ({lane}, gen_random_uuid(), 't', 'k', 't', '{{}}', '')"
        );
        let code = super::code(run(&mut writer, &sql).await);
        assert!(["23514", "23502"].contains(&code.as_str()), "{code}: {sql}");
    }
}

#[tokio::test]
async fn a_writer_can_neither_read_nor_change_the_log() {
    let database = super::migrated().await;
    let mut writer = acting_as(&database, "onceward_writer").await;

    for sql in [
        &format!("insert into onceward.messages ({COLUMNS}) values ({VALUES}) returning seq"),
        &format!("insert into onceward.messages_3 ({COLUMNS}) values ({VALUES})"),
        "select from onceward.messages",
        "select from onceward.messages_3",
        "update onceward.messages set lane = 0",
        "delete from onceward.messages",
        "truncate onceward.messages",
        "truncate onceward.messages_3",
        "select nextval('onceward.messages_seq_seq')",
        "select setval('onceward.messages_seq_seq', 1)",
        "update onceward.settings set max_payload = 1",
        "select from onceward.parked",
        "select from onceward.streams",
        "select from onceward.processed_messages",
        "select from onceward.dead_letters",
        "select from onceward.retries",
        "select from onceward.held_keys",
        "select from onceward.consumer_positions",
        "select from onceward.key_sequences",
        "select from onceward.consumers",
        "insert into onceward.migrations (version, name, checksum) values (9, '', '')",
        "create table onceward.mine ()",
        "select onceward.grant_rights()",
        "select onceward.is_held('billing', gen_random_uuid())",
    ] {
        assert_eq!(super::code(run(&mut writer, sql).await), FORBIDDEN, "{sql}");
    }
}

#[tokio::test]
async fn rows_that_no_reader_could_take_are_refused_whoever_writes_them() {
    let database = super::migrated().await;
    let mut owner = PgConnection::connect(database.url()).await.unwrap();

    for values in [
        "1, gen_random_uuid(), '', 'k', 't', '{}', ''",
        "1, gen_random_uuid(), repeat('x', 250), 'k', 't', '{}', ''",
        "1, gen_random_uuid(), 'a b', 'k', 't', '{}', ''",
        "1, gen_random_uuid(), 'a..b', 'k', 't', '{}', ''",
        "1, gen_random_uuid(), 't', '', 't', '{}', ''",
        "1, gen_random_uuid(), 't', repeat('k', 1025), 't', '{}', ''",
        "1, gen_random_uuid(), 't', 'k', '', '{}', ''",
        "1, gen_random_uuid(), 't', 'k', repeat('t', 256), '{}', ''",
        "1, gen_random_uuid(), 't', 'k', 't', '[1]', ''",
        "1, gen_random_uuid(), 't', 'k', 't', 'null', ''",
    ] {
        let sql = format!("insert into onceward.messages ({COLUMNS}) values ({values})");
        assert_eq!(super::code(run(&mut owner, &sql).await), "23514", "{sql}");
    }
}

#[tokio::test]
async fn a_relay_may_do_its_work_and_not_write_the_log() {
    let database = super::migrated().await;
    let mut relay = acting_as(&database, "onceward_relay").await;

    for sql in [
        "select from onceward.messages",
        "select last_value from onceward.messages_seq_seq",
        "insert into onceward.streams (stream) values ('events')",
        "insert into onceward.cursors (stream, lane, snapshot) values ('events', 1, pg_current_snapshot())",
        "update onceward.streams set lease_until = now()",
        "insert into onceward.unrouted (slot, lane, topic) values (1, 1, 't')",
        "delete from onceward.unrouted",
        "lock table only onceward.messages_3 in access exclusive mode",
        "truncate onceward.messages_3",
        "delete from onceward.streams",
    ] {
        let result = sqlx::raw_sql(AssertSqlSafe(format!("begin; {sql}; commit")))
            .execute(&mut relay)
            .await;
        assert!(result.is_ok(), "{sql}: {result:?}");
    }
    for sql in [
        &format!("insert into onceward.messages ({COLUMNS}) values ({VALUES})"),
        "delete from onceward.messages",
        "truncate onceward.messages",
        "select from onceward.dead_letters",
    ] {
        assert_eq!(super::code(run(&mut relay, sql).await), FORBIDDEN, "{sql}");
    }
}

#[tokio::test]
async fn a_consumer_may_mark_and_give_up_and_not_touch_the_log() {
    let database = super::migrated().await;
    let mut consumer = acting_as(&database, "onceward_consumer").await;

    for sql in [
        "insert into onceward.processed_messages (slot, consumer, message_id, outcome)
         select onceward.mark_slot(id), 'billing', id, 0 from (select gen_random_uuid() as id) m",
        "update onceward.processed_messages set outcome = 0",
        "delete from onceward.processed_messages",
        "truncate onceward.processed_messages_3",
        "insert into onceward.dead_letters (consumer, message_id, topic, payload, reason)
         values ('billing', gen_random_uuid(), 't', '', 'rejected')",
        "select from onceward.dead_letters",
        "update onceward.dead_letters set state = 'dead'",
        "insert into onceward.held_keys (consumer, line, topic, due_at) values ('billing', gen_random_uuid(), 't', now())",
        "insert into onceward.retries (consumer, line, message_id, mark_slot, topic, type, payload, due_at)
         values ('billing', gen_random_uuid(), gen_random_uuid(), 0, 't', 't', '', now())",
        "select from onceward.retries for update skip locked",
        "select from onceward.held_keys for share",
        "select onceward.is_held('billing', gen_random_uuid())",
        "update onceward.retries set attempts = 1",
        "update onceward.held_keys set due_at = now()",
        "delete from onceward.retries",
        "delete from onceward.held_keys",
        "insert into onceward.paused_types (consumer, type, probe_at) values ('billing', 't', now())",
        "select from onceward.paused_types for key share",
        "update onceward.paused_types set probe_at = now()",
        "delete from onceward.paused_types",
        "insert into onceward.starts (consumer, message_id, member) values ('billing', gen_random_uuid(), gen_random_uuid())",
        "update onceward.starts set alone = true",
        "delete from onceward.starts",
        "insert into onceward.consumer_positions (consumer, partition, highest_settled) values ('billing', 'orders/0', 7)",
        "update onceward.consumer_positions set highest_settled = highest_settled",
        "insert into onceward.key_sequences (consumer, line, topic, key, high, high_mark, seen, seen_at)
         values ('billing', gen_random_uuid(), 't', 'k', 1, gen_random_uuid(), 1, now())",
        "select from onceward.key_sequences for no key update",
        "update onceward.key_sequences set high = 2",
        "insert into onceward.consumers (consumer) values ('billing') on conflict (consumer) do update set started_at = now()",
        "select version from onceward.migrations",
    ] {
        assert!(run(&mut consumer, sql).await.is_ok(), "{sql}");
    }
    for sql in [
        "select from onceward.messages",
        "select from onceward.cursors",
        "delete from onceward.dead_letters",
        "truncate onceward.retries",
        "delete from onceward.consumers",
        "delete from onceward.consumer_positions",
        "delete from onceward.key_sequences",
        "select onceward.enqueue('t', 'x')",
    ] {
        assert_eq!(
            super::code(run(&mut consumer, sql).await),
            FORBIDDEN,
            "{sql}"
        );
    }
}

#[tokio::test]
async fn a_consumer_sees_whether_a_line_is_held() {
    let database = super::migrated().await;
    let mut consumer = acting_as(&database, "onceward_consumer").await;
    let hold = "insert into onceward.held_keys (consumer, line, topic, due_at) values ('billing', gen_random_uuid(), 't', now())";
    run(&mut consumer, hold).await.unwrap();

    for (name, held) in [("billing", true), ("shipping", false)] {
        let is_held: bool =
            sqlx::query_scalar("select onceward.is_held($1, line) from onceward.held_keys")
                .bind(name)
                .fetch_one(&mut consumer)
                .await
                .unwrap();

        assert_eq!(is_held, held, "{name}");
    }
}

#[tokio::test]
async fn whoever_was_granted_nothing_may_not_use_the_schema() {
    let database = super::migrated().await;
    // One that every server has.
    let mut stranger = acting_as(&database, "pg_monitor").await;

    for call in [
        "onceward.is_held('billing', gen_random_uuid())",
        "onceward.mark_slot(gen_random_uuid())",
        "onceward.uuid_v7()",
        "onceward.enqueue('t', 'x')",
        "onceward.grant_rights()",
    ] {
        let called = run(&mut stranger, &format!("select {call}")).await;
        assert_eq!(super::code(called), FORBIDDEN, "{call}");
    }
}

#[tokio::test]
async fn an_admin_may_look_at_everything_and_change_what_waits_for_a_person() {
    let database = super::migrated().await;
    let mut admin = acting_as(&database, "onceward_admin").await;

    for sql in [
        "select from onceward.messages",
        "select from onceward.messages_3",
        "select last_value from onceward.messages_seq_seq",
        "select from onceward.processed_messages",
        "select from onceward.streams, onceward.cursors, onceward.unrouted, onceward.settings, onceward.migrations",
        "update onceward.parked set state = 'due'",
        "delete from onceward.parked",
        "update onceward.dead_letters set state = 'discarded'",
        "delete from onceward.streams",
        "delete from onceward.consumers where consumer = 'gone'",
        "delete from onceward.consumer_positions where consumer = 'gone'",
        "update onceward.paused_types set resumed_at = now() where consumer = 'billing' and type = 't'",
        "delete from onceward.key_sequences where consumer = 'gone'",
        "insert into onceward.processed_messages (slot, consumer, message_id, outcome)
         select onceward.mark_slot(id), 'billing', id, 1 from (select gen_random_uuid() as id) m",
        "update onceward.processed_messages set outcome = 1",
        "insert into onceward.held_keys (consumer, line, topic, due_at) values ('billing', gen_random_uuid(), 't', now())",
        "update onceward.held_keys set line = line",
        "insert into onceward.retries (consumer, line, message_id, mark_slot, topic, type, payload, due_at)
         values ('billing', gen_random_uuid(), gen_random_uuid(), 0, 't', 't', '', now())",
        "select onceward.enqueue('t', 'x')",
    ] {
        assert!(run(&mut admin, sql).await.is_ok(), "{sql}");
    }
    for sql in [
        "delete from onceward.messages",
        "truncate onceward.messages_3",
        "update onceward.cursors set last_seq = 0",
        "delete from onceward.processed_messages",
        "delete from onceward.retries",
        "update onceward.retries set attempts = 1",
        "update onceward.paused_types set probe_at = now()",
        "delete from onceward.starts",
    ] {
        assert_eq!(super::code(run(&mut admin, sql).await), FORBIDDEN, "{sql}");
    }
}

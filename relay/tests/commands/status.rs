use std::time::{Duration, Instant};

use onceward_testkit::postgres::Database;
use serde_json::json;
use sqlx::{Connection, Executor, PgConnection};

use crate::{execute, migrated, with_parked};

#[tokio::test]
async fn status_of_a_database_without_streams_says_so() {
    let (_database, shell) = migrated().await;

    let people = shell.ok(&["status"]).await;
    let programs = shell.json(&["status"]).await;

    assert!(people.contains("no streams yet"), "{people}");
    assert_eq!(
        programs,
        json!({ "streams": [], "unrouted": [], "dead_letters": [], "paused_types": [] })
    );
}

#[tokio::test]
async fn status_shows_lease_depth_age_and_what_waits() {
    let (database, shell) = migrated().await;
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

/// Holds the key of the first parked message, as the lease holder does where a stream holds keys.
pub(crate) const HOLD: &str = "
    insert into onceward.cursors (stream, lane, detour, snapshot)
    select 'events', 1, 'key:orders.created:k7', pg_current_snapshot();
    update onceward.parked set parked_at = clock_timestamp() - interval '2 hours 5 minutes' where seq = 7";

#[tokio::test]
async fn status_tells_what_waits_for_a_person_and_the_command_to_run() {
    let (database, shell) = with_parked().await;
    execute(database.pool(), HOLD).await;

    let people = shell.ok(&["status"]).await;
    let programs = shell.json(&["status"]).await;

    for part in [
        "2 parked messages wait for a person in the stream events, the oldest for 2 h 5 m",
        "later messages of 1 key are held",
        "to do: onceward parked list --stream events",
    ] {
        assert!(people.contains(part), "{part:?} is not in {people}");
    }
    let stream = &programs["streams"][0];
    assert_eq!(
        (&stream["parked"], &stream["held_keys"]),
        (&json!(2), &json!(1))
    );
    assert!(stream["parked_seconds"].as_f64().unwrap() > 7_000.0);
}

#[tokio::test]
async fn a_destination_that_is_paused_as_a_whole_is_told_as_that() {
    let (database, shell) = with_parked().await;
    execute(
        database.pool(),
        r#"
        update onceward.streams
        set paused = '[{"topic": "", "reason": "nobody answers", "since": "2026-01-01T00:00:00Z"}]'
        "#,
    )
    .await;

    let status = shell.ok(&["status"]).await;

    assert!(status.contains("events     (all)  2026"), "{status}");
    assert!(status.contains("to do: onceward doctor"), "{status}");
    assert!(!status.contains("detour_after"), "{status}");
}

#[tokio::test]
async fn times_are_told_to_the_second() {
    let (database, shell) = with_parked().await;
    execute(
        database.pool(),
        r#"
        update onceward.streams
        set paused = '[{"topic": "orders.slow", "reason": "no such topic", "since": "2026-01-01T00:00:00.123456789Z"}]'
        "#,
    )
    .await;

    let status = shell.ok(&["status"]).await;
    let parked = shell.ok(&["parked", "list"]).await;

    assert!(status.contains("2026-01-01T00:00:00Z"), "{status}");
    let fractions = |text: &str| {
        text.split_whitespace()
            .any(|word| word.contains("T") && word.contains('.') && word.ends_with('Z'))
    };
    assert!(
        !fractions(&status) && !fractions(&parked),
        "{status}{parked}"
    );
}

/// A log of 20,000 messages, all of which are published, or none. Nothing but these statements renews its statistics: one while it is empty, and one
/// once it is full.
async fn fill(database: &Database, [empty, full]: [&'static str; 2], published: bool) {
    let keep_statistics = "
        do $$ begin
          for slot in 0..11 loop
            execute format('alter table onceward.messages_%s set (autovacuum_enabled = off)', slot);
          end loop;
        end $$";
    let messages = "
        insert into onceward.streams (stream) values ('events');
        insert into onceward.messages (lane, id, topic, key, type, payload)
        select 1, gen_random_uuid(), 'orders', 'k', 'orders', 'x' from generate_series(1, 20000)";
    // As of the moment at which the messages were committed and nothing else ran on the server: none of them is late.
    let cursors = "
        insert into onceward.cursors (stream, lane, last_seq, snapshot)
        select 'events', lane, 20000, format('%1$s:%1$s:', next)::pg_snapshot
        from (select txid::text::bigint + 1 as next from onceward.messages limit 1) m, generate_series(0, 2) lane";
    // As of the moment before.
    let backlog = "
        update onceward.cursors
        set last_seq = 0, snapshot = format('%1$s:%1$s:', next)::pg_snapshot
        from (select txid::text as next from onceward.messages limit 1) m";
    let backlog = if published { "" } else { backlog };
    for sql in [keep_statistics, empty, messages, cursors, backlog, full] {
        execute(database.pool(), sql).await;
    }
}

/// How many scans of the log, and how many rows of it, sessions have counted that have ended.
async fn reads(counting: &mut PgConnection) -> (i64, i64) {
    // What a session has counted is there once it has ended, which may be after its program has.
    let ended = "
        select count(*) = 0
        from pg_stat_activity
        where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()";
    let deadline = Instant::now() + Duration::from_secs(10);
    while !sqlx::query_scalar::<_, bool>(ended)
        .fetch_one(&mut *counting)
        .await
        .unwrap()
    {
        assert!(Instant::now() < deadline, "a session does not end");
    }
    let reads = "
        select coalesce(sum(seq_scan), 0)::bigint, coalesce(sum(seq_tup_read + idx_tup_fetch), 0)::bigint
        from pg_stat_user_tables
        where relname ~ '^messages_[0-9]+$'";
    sqlx::query_as(reads).fetch_one(counting).await.unwrap()
}

#[tokio::test]
async fn status_of_a_large_log_scans_none_of_it() {
    let analyze = "analyze onceward.messages";
    // Left to itself the planner scans partitions where it knows that they were empty, and where it knows nothing it takes whole lanes by
    // their index.
    let statistics = [["", ""], [analyze, ""], ["", analyze]];
    for (analyzed, published) in statistics.iter().flat_map(|a| [(*a, true), (*a, false)]) {
        let case = format!("{analyzed:?}, published: {published}");
        let (database, shell) = migrated().await;
        fill(&database, analyzed, published).await;
        // One session that counts, and none of the pool's: they would not end.
        database.pool().close().await;
        let mut counting = PgConnection::connect(database.url()).await.unwrap();
        let before = reads(&mut counting).await;

        shell.ok(&["status"]).await;
        shell.ok(&["doctor"]).await;

        let after = reads(&mut counting).await;
        assert_eq!(after.0, before.0, "{case}");
        // The newest 10,000 are asked for their topics; of a backlog each of the two looks at 1,000.
        let most = if published { 11_000 } else { 13_000 };
        let rows = after.1 - before.1;
        assert!((10_000..most).contains(&rows), "{rows} rows, {case}");
        // What is counted at all.
        let mut other = PgConnection::connect(database.url()).await.unwrap();
        other
            .execute("set enable_indexscan = off; set enable_indexonlyscan = off; set enable_bitmapscan = off; select count(*) from onceward.messages")
            .await
            .unwrap();
        other.close().await.unwrap();
        assert!(reads(&mut counting).await.0 > after.0);
    }
}

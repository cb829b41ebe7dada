//! Tables and indexes that somebody has altered.

use onceward::schema::Duty;
use sqlx::{Connection, PgConnection};

use crate::{codes, facts, migrated, run};

#[tokio::test]
async fn what_would_lose_messages_in_silence_is_found() {
    let database = migrated().await;
    let mut owner = PgConnection::connect(database.url()).await.unwrap();
    for sql in [
        "alter table onceward.messages enable row level security",
        "create function drop_it() returns trigger language plpgsql as 'begin return null; end'",
        "create trigger audit before insert on onceward.messages_3 for each row execute function drop_it()",
        "create rule copy as on insert to onceward.parked do also nothing",
        "alter sequence onceward.messages_seq_seq cache 20",
        "drop index onceward.messages_lane_txid_seq",
        "alter table onceward.messages drop column txid",
        "alter table onceward.messages add column txid xid8 not null default pg_current_xact_id()",
        "alter table onceward.messages_5 set unlogged",
        "grant insert on onceward.messages to onceward_writer",
        "drop table onceward.unrouted",
    ] {
        run(&mut owner, sql).await;
    }

    let facts = facts(&database, "reset role", Duty::Relay).await;

    let mut found = codes(&facts);
    found.dedup();
    for code in [
        "row_security",
        "trigger",
        "rule",
        "sequence",
        "columns",
        "index_missing",
        "unlogged",
        "full_writers",
        "table_missing",
    ] {
        assert!(found.contains(&code), "{code}: {found:?}");
    }
}

#[tokio::test]
async fn a_trigger_or_a_rule_that_is_disabled_is_no_fault() {
    let database = migrated().await;
    let mut owner = PgConnection::connect(database.url()).await.unwrap();
    for sql in [
        "create function drop_it() returns trigger language plpgsql as 'begin return null; end'",
        "create trigger off before insert on onceward.messages_3 for each row execute function drop_it()",
        "alter table onceward.messages_3 disable trigger off",
        "create trigger everywhere before insert on onceward.messages for each row execute function drop_it()",
        "alter table onceward.messages disable trigger everywhere",
        "create rule off as on insert to onceward.parked do also nothing",
        "alter table onceward.parked disable rule off",
    ] {
        run(&mut owner, sql).await;
    }

    let facts = facts(&database, "reset role", Duty::Administer).await;

    let found = codes(&facts);
    assert!(
        !found.contains(&"trigger") && !found.contains(&"rule"),
        "{found:?}"
    );
}

#[tokio::test]
async fn a_trigger_that_is_disabled_for_a_table_and_not_for_its_partitions_is_found() {
    let database = migrated().await;
    let mut owner = PgConnection::connect(database.url()).await.unwrap();
    for sql in [
        "create function drop_it() returns trigger language plpgsql as 'begin return null; end'",
        "create trigger lose before insert on onceward.messages for each row execute function drop_it()",
        "alter table only onceward.messages disable trigger lose",
    ] {
        run(&mut owner, sql).await;
    }

    let facts = facts(&database, "reset role", Duty::Relay).await;

    assert_eq!(codes(&facts), ["trigger"]);
}

#[tokio::test]
async fn an_invalid_index_counts_as_missing() {
    let database = migrated().await;
    let mut owner = PgConnection::connect(database.url()).await.unwrap();
    run(
        &mut owner,
        "update pg_index set indisvalid = false
         where indexrelid = 'onceward.messages_7_lane_seq_idx'::regclass",
    )
    .await;

    let facts = facts(&database, "reset role", Duty::Relay).await;

    assert_eq!(codes(&facts), ["index_missing"]);
}

//! What the ledger sees of claims: checkpoints under a token that is not valid, and copies that no takeover explains.

use onceward_testkit::ledger::{Ledger, Tap, append};
use onceward_testkit::nats::Nats;
use onceward_testkit::postgres::Database;
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;

use crate::{database, log, publish, stream};

/// Connections of one process: none but their claims tells them apart.
async fn connections<const N: usize>(database: &Database) -> [PgConnection; N] {
    let mut connections = Vec::new();
    for _ in 0..N {
        let url = format!("{}?application_name=relay", database.url());
        connections.push(PgConnection::connect(&url).await.unwrap());
    }
    connections.try_into().unwrap()
}

async fn run(connection: &mut PgConnection, statement: &'static str) {
    sqlx::raw_sql(statement).execute(connection).await.unwrap();
}

const CLAIM: &str = "update onceward.streams set lease_token = gen_random_uuid()";
const RENEW: &str = "update onceward.streams set lease_until = clock_timestamp()";
const FORWARD: &str = "update onceward.cursors set last_seq = last_seq + 1";
const PASS_ALL: &str = "
    update onceward.cursors
    set last_seq = (select max(seq) from onceward.messages), snapshot = pg_current_snapshot()";
const BACK: &str = "update onceward.cursors set last_seq = last_seq - 1";

/// A database whose ledger watches a stream that nobody has claimed.
async fn fenced() -> (Database, Ledger, String) {
    let (database, nats) = (database().await, Nats::shared().await);
    let stream = stream(nats).await;
    let ledger = Ledger::open(database.pool(), Tap::nats(nats.url(), &[&stream]))
        .await
        .with_fence()
        .await;
    let [mut connection] = connections(&database).await;
    let begin = "
        insert into onceward.streams (stream) values ('s');
        insert into onceward.cursors (stream, lane, snapshot) values ('s', 1, pg_current_snapshot())";
    run(&mut connection, begin).await;
    (database, ledger, stream)
}

#[tokio::test]
async fn a_checkpoint_under_the_token_of_an_earlier_claim_turns_the_ledger_red() {
    let (database, ledger, _) = fenced().await;
    let [mut old, mut new] = connections(&database).await;

    run(&mut old, CLAIM).await;
    run(&mut old, FORWARD).await;
    // The process claims its own lease over another connection.
    run(&mut new, CLAIM).await;
    run(&mut new, RENEW).await;
    run(&mut new, FORWARD).await;
    assert!(ledger.verdict().await.is_green());

    run(&mut old, BACK).await;

    let verdict = ledger.verdict().await;
    assert_eq!(
        (
            verdict.claims,
            verdict.stale_checkpoints,
            verdict.cursor_regressions
        ),
        (2, 1, 1),
        "{verdict}"
    );
}

#[tokio::test]
async fn a_checkpoint_without_a_valid_lease_turns_the_ledger_red() {
    let (database, ledger, _) = fenced().await;
    let [mut holder, mut stranger, mut late] = connections(&database).await;
    let stale = async || ledger.verdict().await.stale_checkpoints;

    run(&mut holder, CLAIM).await;
    run(&mut stranger, FORWARD).await;
    assert_eq!(stale().await, 1);

    // A claim that is rolled back gives no right.
    run(&mut late, "begin").await;
    run(&mut late, CLAIM).await;
    run(&mut late, "rollback").await;
    run(&mut late, FORWARD).await;
    assert_eq!(stale().await, 2);

    run(&mut holder, FORWARD).await;
    assert_eq!(stale().await, 2);
    run(
        &mut holder,
        "update onceward.streams set lease_token = null",
    )
    .await;
    run(&mut holder, FORWARD).await;
    assert_eq!(stale().await, 3);
}

#[tokio::test]
async fn a_copy_that_no_takeover_explains_turns_the_ledger_red() {
    let (database, mut ledger, stream) = fenced().await;
    ledger.only_takeovers_repeat();
    let nats = Nats::shared().await;
    let [mut writer, mut old, mut new] = connections(&database).await;
    run(&mut old, CLAIM).await;
    for payload in [b"1", b"2"] {
        append(&mut writer, "orders.created", "k", payload)
            .await
            .unwrap();
    }
    run(&mut old, PASS_ALL).await;
    append(&mut writer, "orders.created", "k", b"3")
        .await
        .unwrap();
    let first = log(&database).await;
    for message in &first {
        publish(nats, &stream, message).await;
    }

    run(&mut new, CLAIM).await;
    publish(nats, &stream, &first[2]).await;
    assert!(ledger.verdict().await.is_green());

    // Once more; what the cursor had passed; what was committed after the takeover.
    append(&mut writer, "orders.created", "k", b"4")
        .await
        .unwrap();
    let all = log(&database).await;
    for n in [2, 1, 3, 3] {
        publish(nats, &stream, &all[n]).await;
    }
    let verdict = ledger.verdict().await;
    assert_eq!(
        (verdict.copies_without_takeover, verdict.duplicates),
        (3, 4),
        "{verdict}"
    );
}

#[tokio::test]
async fn what_commits_behind_the_stored_cursor_may_be_repeated_by_a_takeover() {
    let (database, mut ledger, stream) = fenced().await;
    ledger.only_takeovers_repeat();
    let nats = Nats::shared().await;
    let [mut late, mut early, mut old, mut new] = connections(&database).await;
    run(&mut old, CLAIM).await;
    run(&mut late, "begin").await;
    append(&mut late, "orders.created", "late", b"1")
        .await
        .unwrap();
    append(&mut early, "orders.created", "early", b"2")
        .await
        .unwrap();
    run(&mut old, PASS_ALL).await;
    run(&mut late, "commit").await;
    let all = log(&database).await;

    run(&mut new, CLAIM).await;
    for message in [&all[1], &all[0], &all[0]] {
        publish(nats, &stream, message).await;
    }

    let verdict = ledger.verdict().await;
    assert!(verdict.is_green() && verdict.duplicates == 1, "{verdict}");
}

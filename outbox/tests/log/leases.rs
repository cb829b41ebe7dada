//! Who may move a stream's cursors.

use std::time::Duration;

use onceward::{
    Checkpoint, Claim, Claiming, Keeper, Lane, LogError, Renewed, Snapshot, Start, Unrouted,
};
use onceward_core::{Topic, TopicGlob};
use sqlx::{Connection, Row};

use crate::support::{
    claim, claim_of, connection, enqueue, execute, log_of, migrated, read, shown, stream,
};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(200);

fn only(lane: usize, cursor: &onceward::Cursor) -> Checkpoint {
    let mut checkpoint = Checkpoint::default();
    checkpoint.cursors[lane] = Some(cursor.clone());
    checkpoint
}

#[tokio::test]
async fn a_claim_creates_the_stream_with_a_cursor_for_each_lane() {
    let database = migrated().await;
    let mut keeper = Keeper::connect(&log_of(&database)).await.unwrap();

    let claimed = claim(&mut keeper, &claim_of("events", LONG)).await;

    assert_eq!(claimed.cursors.map(|cursor| cursor.last), [0, 0, 0]);
    assert!(claimed.parked.is_empty());
    let rows = sqlx::query("select count(*) from onceward.cursors")
        .fetch_one(database.pool())
        .await
        .unwrap();
    assert_eq!(rows.get::<i64, _>(0), 3);
}

#[tokio::test]
async fn a_held_stream_is_not_claimed_and_tells_who_holds_it() {
    let database = migrated().await;
    let mut holder = Keeper::connect(&log_of(&database)).await.unwrap();
    let mut other = Keeper::connect(&log_of(&database)).await.unwrap();
    claim(&mut holder, &claim_of("events", LONG)).await;

    let claiming = other.claim(&claim_of("events", LONG)).await.unwrap();

    match claiming {
        Claiming::Taken { owner, expires_in } => {
            assert_eq!(owner, "a test");
            assert!(expires_in > LONG / 2 && expires_in <= LONG);
        }
        Claiming::Claimed(_) => panic!("two holders"),
    }
    assert!(matches!(other.renew().await, Err(LogError::Fenced)));
}

#[tokio::test]
async fn a_holder_whose_connection_failed_claims_its_own_lease_at_once_and_fences_the_old_connection()
 {
    let database = migrated().await;
    let mut before = Keeper::connect(&log_of(&database)).await.unwrap();
    let claimed = claim(&mut before, &claim_of("events", LONG)).await;
    let mut again = Keeper::connect(&log_of(&database)).await.unwrap();
    let own = Claim {
        previous: before.token(),
        ..claim_of("events", LONG)
    };

    let reclaimed = claim(&mut again, &own).await;

    assert_eq!(reclaimed, claimed);
    assert_ne!(again.token(), own.previous);
    let late = before.checkpoint(&only(1, &claimed.cursors[1])).await;
    assert!(matches!(late, Err(LogError::Fenced)));
}

#[tokio::test]
async fn of_many_that_claim_at_once_one_wins() {
    let database = migrated().await;
    let mut claims = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let log = log_of(&database);
        claims.spawn(async move {
            let mut keeper = Keeper::connect(&log).await.unwrap();
            matches!(
                keeper.claim(&claim_of("events", LONG)).await.unwrap(),
                Claiming::Claimed(_)
            )
        });
    }

    let won = claims
        .join_all()
        .await
        .into_iter()
        .filter(|won| *won)
        .count();

    assert_eq!(won, 1);
}

#[tokio::test]
async fn a_released_stream_is_claimed_at_once_and_goes_on_where_it_was() {
    let database = migrated().await;
    let (mut reader, mut keeper, mut cursors) = stream(&database).await;
    let mut writer = connection(&database).await;
    enqueue(&mut writer, "k", "1").await;
    read(&mut reader, Lane::Standard, &mut cursors[1], 10).await;
    keeper.checkpoint(&only(1, &cursors[1])).await.unwrap();
    keeper.release().await.unwrap();

    let mut next = Keeper::connect(&log_of(&database)).await.unwrap();
    let claimed = claim(&mut next, &claim_of("events", LONG)).await;

    assert_eq!(claimed.cursors[1], cursors[1]);
    assert!(matches!(keeper.renew().await, Err(LogError::Fenced)));
}

#[tokio::test]
async fn a_cursor_in_the_middle_of_its_pages_is_stored_whole() {
    let database = migrated().await;
    let (mut reader, mut keeper, mut cursors) = stream(&database).await;
    let (mut slow, mut quick) = (connection(&database).await, connection(&database).await);
    let mut transaction = slow.begin().await.unwrap();
    for n in 0..4 {
        enqueue(&mut transaction, "large", &n.to_string()).await;
    }
    enqueue(&mut quick, "b", "1").await;
    read(&mut reader, Lane::Standard, &mut cursors[1], 2).await;
    transaction.commit().await.unwrap();
    read(&mut reader, Lane::Standard, &mut cursors[1], 2).await;
    assert!(cursors[1].paging.is_some());
    keeper.checkpoint(&only(1, &cursors[1])).await.unwrap();
    keeper.release().await.unwrap();

    let claimed = claim(&mut keeper, &claim_of("events", LONG)).await;
    let mut cursor = claimed.cursors[1].clone();

    assert_eq!(cursor, cursors[1]);
    let rest = shown(read(&mut reader, Lane::Standard, &mut cursor, 2).await);
    assert_eq!(
        rest.into_iter()
            .map(|(_, payload)| payload)
            .collect::<Vec<_>>(),
        ["2", "3"]
    );
}

#[tokio::test]
async fn a_holder_whose_lease_was_taken_over_can_store_nothing_any_more() {
    let database = migrated().await;
    let mut old = Keeper::connect(&log_of(&database)).await.unwrap();
    let mut new = Keeper::connect(&log_of(&database)).await.unwrap();
    let claimed = claim(&mut old, &claim_of("events", SHORT)).await;
    let mut ahead = claimed.cursors[1].clone();
    ahead.last = 999;

    // Each claim that is refused says how long the lease still lasts.
    loop {
        match new.claim(&claim_of("events", LONG)).await.unwrap() {
            Claiming::Claimed(_) => break,
            Claiming::Taken { expires_in, .. } => tokio::time::sleep(expires_in.min(SHORT)).await,
        }
    }

    assert!(matches!(
        old.checkpoint(&only(1, &ahead)).await,
        Err(LogError::Fenced)
    ));
    assert!(matches!(old.park(&[]).await, Err(LogError::Fenced)));
    let last: i64 = sqlx::query_scalar("select max(last_seq) from onceward.cursors")
        .fetch_one(database.pool())
        .await
        .unwrap();
    assert_eq!(last, 0);
}

#[tokio::test]
async fn every_statement_under_the_lease_renews_it() {
    let database = migrated().await;
    let mut keeper = Keeper::connect(&log_of(&database)).await.unwrap();
    claim(&mut keeper, &claim_of("events", LONG)).await;
    execute(
        database.pool(),
        "update onceward.streams set lease_until = clock_timestamp()",
    )
    .await;
    let before = keeper.lease().unwrap().deadline();

    keeper.checkpoint(&Checkpoint::default()).await.unwrap();

    assert!(keeper.lease().unwrap().deadline() > before);
    let held: bool = sqlx::query_scalar(
        "select lease_until > clock_timestamp() + interval '50 s' from onceward.streams",
    )
    .fetch_one(database.pool())
    .await
    .unwrap();
    assert!(held);
}

#[tokio::test]
async fn a_stream_that_starts_at_the_latest_delivers_what_commits_from_then_on() {
    let database = migrated().await;
    let (mut slow, mut quick) = (connection(&database).await, connection(&database).await);
    let mut transaction = slow.begin().await.unwrap();
    enqueue(&mut transaction, "a", "commits later").await;
    enqueue(&mut quick, "b", "was there").await;
    let mut keeper = Keeper::connect(&log_of(&database)).await.unwrap();
    let mut reader = onceward::LogReader::connect(&log_of(&database))
        .await
        .unwrap();

    let latest = Claim {
        start: Start::Latest,
        ..claim_of("events", LONG)
    };
    let claimed = claim(&mut keeper, &latest).await;
    transaction.commit().await.unwrap();
    enqueue(&mut quick, "b", "is new").await;

    let mut cursor = claimed.cursors[1].clone();
    let rows = shown(read(&mut reader, Lane::Standard, &mut cursor, 10).await);
    assert_eq!(
        rows.into_iter()
            .map(|(_, payload)| payload)
            .collect::<Vec<_>>(),
        ["commits later", "is new"]
    );
}

#[tokio::test]
async fn renewing_tells_what_all_streams_read_and_an_id_that_was_given_since() {
    let database = migrated().await;
    let mut one = Keeper::connect(&log_of(&database)).await.unwrap();
    let mut two = Keeper::connect(&log_of(&database)).await.unwrap();
    let with = |stream: &str, topics: &str| Claim {
        topics: vec![TopicGlob::try_from(topics).unwrap()],
        ..claim_of(stream, LONG)
    };
    claim(&mut one, &with("one", "orders.*")).await;
    claim(&mut two, &with("two", "payments.*")).await;

    let before: Snapshot = sqlx::query_scalar::<_, String>("select pg_current_snapshot()::text")
        .fetch_one(database.pool())
        .await
        .unwrap()
        .parse()
        .unwrap();
    let Renewed { globs, txid } = one.renew().await.unwrap();

    assert!(txid >= before.xmax(), "{txid} is of after {before}");
    assert!(globs.read("orders.paid") && globs.read("payments.made"));
    assert!(!globs.read("users.created"));
}

#[tokio::test]
async fn topics_that_nobody_reads_are_noted_once() {
    let database = migrated().await;
    let mut keeper = Keeper::connect(&log_of(&database)).await.unwrap();
    claim(&mut keeper, &claim_of("events", LONG)).await;
    let note = Unrouted {
        slot: 3,
        lane: Lane::Bulk,
        topic: Topic::try_from("lost").unwrap(),
    };
    let checkpoint = Checkpoint {
        unrouted: vec![note.clone(), note],
        ..Checkpoint::default()
    };

    keeper.checkpoint(&checkpoint).await.unwrap();
    keeper.checkpoint(&checkpoint).await.unwrap();

    let rows = sqlx::query("select slot, lane, topic from onceward.unrouted")
        .fetch_all(database.pool())
        .await
        .unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].get::<String, _>(2), "lost");
}

#[tokio::test]
async fn a_dropped_stream_fences_its_holder() {
    let database = migrated().await;
    let mut keeper = Keeper::connect(&log_of(&database)).await.unwrap();
    claim(&mut keeper, &claim_of("events", LONG)).await;

    execute(database.pool(), "delete from onceward.streams").await;

    assert!(matches!(keeper.renew().await, Err(LogError::Fenced)));
}

#[tokio::test]
async fn the_relays_role_has_the_rights_for_all_of_it() {
    let database = migrated().await;
    let name = database.name().to_owned();
    execute(
        database.pool(),
        &format!("create role relay_{name} login; grant onceward_relay to relay_{name}"),
    )
    .await;
    let url = database.url_as(&format!("relay_{name}"));
    let log = onceward::LogDatabase::new(url.parse().unwrap(), onceward::Schema::default());

    let mut keeper = Keeper::connect(&log).await.unwrap();
    let mut reader = onceward::LogReader::connect(&log).await.unwrap();
    keeper.check_reader(&reader).unwrap();
    let mut cursors = claim(&mut keeper, &claim_of("events", LONG)).await.cursors;
    read(&mut reader, Lane::Standard, &mut cursors[1], 10).await;
    keeper.checkpoint(&only(1, &cursors[1])).await.unwrap();
    keeper.sweep_parked(Duration::ZERO).await.unwrap();
    keeper.due(0, 10).await.unwrap();
    keeper.release().await.unwrap();

    execute(database.pool(), &format!("drop role relay_{name}")).await;
}

//! Readers that share what they read.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::poll;
use onceward::{
    Brought, Cursor, CursorRead, Interest, Lane, LogReader, Part, PublishAfter, Read, SharedReads,
};
use onceward_testkit::postgres::Database;
use onceward_testkit::wait;
use tokio::time::timeout;

use crate::support::{PLENTY, connection, enqueue, execute, log_of, migrated, stream};

const SOON: Duration = Duration::from_secs(20);

/// One that reads along with others.
struct Sharer {
    reader: LogReader,
    part: Part,
}

impl Sharer {
    async fn read(&mut self, cursor: &Cursor) -> Result<Brought, onceward::LogError> {
        self.read_with(cursor, Interest::Own).await
    }

    /// As one that only passes over what comes.
    async fn pass(&mut self, cursor: &Cursor) -> Result<Brought, onceward::LogError> {
        self.read_with(cursor, Interest::Passing).await
    }

    async fn read_with(
        &mut self,
        cursor: &Cursor,
        interest: Interest,
    ) -> Result<Brought, onceward::LogError> {
        let ask = CursorRead {
            lane: Lane::Standard,
            cursor: cursor.clone(),
            limit: 10,
            bytes: PLENTY,
        };
        let (reader, after) = (&mut self.reader, &PublishAfter::Flushed);
        self.part.read(reader, &[ask], after, interest).await
    }
}

async fn sharers<const N: usize>(database: &Database) -> [Sharer; N] {
    let shared = SharedReads::default();
    let log = log_of(database);
    let sharers = std::array::from_fn(|_| async {
        Sharer {
            reader: LogReader::connect(&log).await.unwrap(),
            part: shared.take_part(),
        }
    });
    let sharers: [_; N] = sharers;
    let connected: Vec<Sharer> = join_all(sharers).await;
    connected.try_into().ok().unwrap()
}

/// A database with three messages, and a cursor before them.
async fn with_messages() -> (Database, Cursor) {
    let database = migrated().await;
    let (_, _, [_, cursor, _]) = stream(&database).await;
    let mut writer = connection(&database).await;
    for payload in ["a", "b", "c"] {
        enqueue(&mut writer, "k", payload).await;
    }
    (database, cursor)
}

fn rows(brought: &Brought) -> usize {
    brought.as_ref().steps[0].rows.len()
}

fn shared(brought: Brought) -> Arc<Read> {
    match brought {
        Brought::Shared(read) | Brought::Passed(read) => read,
        Brought::Own(read) => panic!("read alone: {read:?}"),
    }
}

#[tokio::test]
async fn readers_that_ask_the_same_at_once_get_the_answer_of_one_read() {
    let (database, cursor) = with_messages().await;
    let mut sharers = sharers::<5>(&database).await;

    let asking = sharers.iter_mut().map(|sharer| sharer.read(&cursor));
    let answers = join_all(asking).await;

    let reads: Vec<_> = answers.into_iter().map(|a| shared(a.unwrap())).collect();
    assert_eq!(reads[0].steps[0].rows.len(), 3);
    assert!(reads.iter().all(|read| Arc::ptr_eq(read, &reads[0])));
}

#[tokio::test]
async fn a_reader_that_comes_a_little_later_takes_what_was_read_and_stands_behind_it() {
    let (database, cursor) = with_messages().await;
    let [mut one, mut other] = sharers(&database).await;

    let first = shared(one.read(&cursor).await.unwrap());
    let taken = shared(other.read(&cursor).await.unwrap());
    let rest = other.read(&taken.steps[0].after).await.unwrap();

    assert!(Arc::ptr_eq(&first, &taken));
    assert_eq!(rows(&rest), 0);
}

#[tokio::test]
async fn what_was_committed_since_an_answer_was_asked_for_is_read_behind_it_and_the_answer_tells_when()
 {
    let (database, cursor) = with_messages().await;
    let [mut one, mut other] = sharers(&database).await;
    let mut writer = connection(&database).await;
    let before = Instant::now();
    let first = shared(one.read(&cursor).await.unwrap());
    let asked = Instant::now();
    enqueue(&mut writer, "k", "d").await;

    let taken = shared(other.read(&cursor).await.unwrap());
    let rest = other.read(&taken.steps[0].after).await.unwrap();

    assert!(Arc::ptr_eq(&first, &taken));
    assert!(before <= taken.begun && taken.begun <= taken.came && taken.came <= asked);
    assert_eq!(rows(&rest), 1);
    assert!(asked <= rest.as_ref().begun);
}

#[tokio::test]
async fn an_empty_answer_is_not_used_again_once_something_is_committed() {
    let (database, mut cursor) = with_messages().await;
    let [mut one, mut other] = sharers(&database).await;
    cursor = shared(one.read(&cursor).await.unwrap()).steps[0]
        .after
        .clone();
    assert_eq!(rows(&one.read(&cursor).await.unwrap()), 0);

    enqueue(&mut connection(&database).await, "k", "d").await;

    assert_eq!(rows(&other.read(&cursor).await.unwrap()), 1);
}

#[tokio::test]
async fn readers_behind_the_same_row_come_into_step_though_they_read_it_at_different_times() {
    let (database, cursor) = with_messages().await;
    let [mut one, mut other] = sharers(&database).await;
    let last = shared(one.read(&cursor).await.unwrap()).steps[0]
        .after
        .clone();
    // Others commit; each of the two has an empty read of its own.
    execute(database.pool(), "create table elsewhere (n int)").await;
    let ones = shared(one.read(&last).await.unwrap()).steps[0]
        .after
        .clone();
    execute(database.pool(), "drop table elsewhere").await;
    let others = shared(other.read(&last).await.unwrap()).steps[0]
        .after
        .clone();
    assert_ne!(ones, others);
    enqueue(&mut connection(&database).await, "k", "d").await;

    let first = shared(one.read(&ones).await.unwrap());
    let taken = shared(other.read(&others).await.unwrap());

    assert_eq!(first.steps[0].rows.len(), 1);
    assert!(Arc::ptr_eq(&first, &taken));
}

/// One that has published all messages and one that passes, and where both stand.
async fn side_by_side(database: &Database, cursor: &Cursor) -> ([Sharer; 2], Cursor) {
    let mut sharers = sharers(database).await;
    let read = shared(sharers[0].read(cursor).await.unwrap());
    (sharers, read.steps[0].after.clone())
}

#[tokio::test]
async fn one_that_only_passes_lets_one_that_publishes_read_for_both() {
    let (database, cursor) = with_messages().await;
    let ([mut publishes, mut passes], end) = side_by_side(&database, &cursor).await;
    let mut passing = pin!(passes.pass(&end));
    assert!(poll!(passing.as_mut()).is_pending());
    enqueue(&mut connection(&database).await, "k", "d").await;

    let read = shared(publishes.read(&end).await.unwrap());
    let taken = shared(timeout(SOON, passing).await.unwrap().unwrap());

    assert_eq!(read.steps[0].rows.len(), 1);
    assert!(Arc::ptr_eq(&read, &taken));
}

#[tokio::test]
async fn one_that_only_passes_reads_itself_if_nobody_else_does_soon() {
    let (database, cursor) = with_messages().await;
    let ([_publishes, mut passes], end) = side_by_side(&database, &cursor).await;
    enqueue(&mut connection(&database).await, "k", "d").await;
    let begun = Instant::now();

    let brought = timeout(SOON, passes.pass(&end)).await.unwrap().unwrap();

    assert_eq!(rows(&brought), 1);
    let waited = brought.as_ref().begun - begun;
    assert!(waited >= Duration::from_millis(50), "{waited:?}");
}

#[tokio::test]
async fn a_reader_without_others_reads_alone() {
    let (database, cursor) = with_messages().await;
    let [mut one, other] = sharers(&database).await;
    drop(other);

    let brought = one.read(&cursor).await.unwrap();

    assert!(matches!(brought, Brought::Own(_)));
}

#[tokio::test]
async fn whoever_waits_for_a_reader_that_is_dropped_reads_itself() {
    let (database, cursor) = with_messages().await;
    let [mut one, mut other] = sharers(&database).await;

    let brought = {
        let mut waiting = pin!(other.read(&cursor));
        {
            let mut reading = pin!(one.read(&cursor));
            assert!(poll!(reading.as_mut()).is_pending());
            assert!(poll!(waiting.as_mut()).is_pending());
        }
        timeout(SOON, waiting).await.unwrap().unwrap()
    };

    assert_eq!(rows(&brought), 3);
}

#[tokio::test]
async fn whoever_waits_for_a_reader_that_fails_reads_itself() {
    let (database, cursor) = with_messages().await;
    let [mut one, mut other] = sharers(&database).await;
    let mut lock = database.pool().begin().await.unwrap();
    execute_in(
        &mut lock,
        "lock table onceward.messages in access exclusive mode",
    )
    .await;
    let (from, behind) = (cursor.clone(), cursor);
    let reading = tokio::spawn(async move { one.read(&from).await });
    let waits = "select pid from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock'";
    let pid: i32 = wait::until(SOON, "the read to wait for the lock", async || {
        let found = sqlx::query_scalar(waits).fetch_optional(database.pool());
        found.await.unwrap()
    })
    .await;
    let mut waiting = pin!(other.read(&behind));
    assert!(poll!(waiting.as_mut()).is_pending());

    let ended = sqlx::query("select pg_terminate_backend($1)").bind(pid);
    ended.execute(database.pool()).await.unwrap();
    let failed = reading.await.unwrap();
    lock.rollback().await.unwrap();
    let brought = timeout(SOON, waiting).await.unwrap().unwrap();

    assert!(failed.is_err());
    assert_eq!(rows(&brought), 3);
}

#[tokio::test]
async fn whoever_waits_for_a_reader_that_hangs_reads_itself_after_a_second() {
    let (database, cursor) = with_messages().await;
    let [mut one, mut other] = sharers(&database).await;
    let mut reading = pin!(one.read(&cursor));
    assert!(poll!(reading.as_mut()).is_pending());

    // Whoever reads is not polled again.
    let brought = timeout(SOON, other.read(&cursor)).await.unwrap().unwrap();

    assert_eq!(rows(&brought), 3);
}

async fn execute_in(connection: &mut sqlx::PgConnection, sql: &'static str) {
    sqlx::raw_sql(sql).execute(connection).await.unwrap();
}

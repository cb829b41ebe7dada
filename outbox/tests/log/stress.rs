//! Many writers at once, doing everything that a cursor could stumble over.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use onceward::{
    Checkpoint, Claim, Cursor, CursorRead, Keeper, Lane, LateBelow, LogReader, PublishAfter,
};
use onceward_testkit::postgres::{Options, Postgres};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor};
use tokio::task::JoinSet;

use crate::support::{claim, claim_of};

const KEYS: u32 = 120;
const WRITERS: u32 = 10;
const BIG: u32 = 50_000;
const LIMIT: usize = 50;
const LEASE: Duration = Duration::from_secs(600);

/// How long the writers run: more in a long run by `ONCEWARD_STRESS_SECONDS`.
fn seconds() -> u64 {
    let told = std::env::var("ONCEWARD_STRESS_SECONDS").ok();
    told.and_then(|text| text.parse().ok()).unwrap_or(12)
}

/// A small generator of its own, so that a run can be told apart by its seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

async fn run(connection: &mut PgConnection, sql: String) -> Result<(), sqlx::Error> {
    connection
        .execute(sqlx::raw_sql(AssertSqlSafe(sql)))
        .await
        .map(drop)
}

/// One change of a key, with its message.
fn change(dice: &mut Dice, key: u64) -> String {
    let number = key % 3;
    let lane = ["critical", "standard", "bulk"][usize::try_from(number).unwrap()];
    let changed =
        format!("with changed as (update keys set v = v + 1 where k = {key} returning v)");
    if dice.percent(2) {
        // As around midnight, and for a row that comes after its day: a slot is in use that was not.
        let slot = dice.below(12);
        return format!(
            "{changed}
             insert into onceward.messages (slot, lane, id, topic, key, type, payload)
             select {slot}, {number}, gen_random_uuid(), 't', '{key}', 't', v::text::bytea from changed"
        );
    }
    format!(
        "{changed} select onceward.enqueue('t', v::text::bytea, '{key}', lane => '{lane}') from changed"
    )
}

/// One transaction. Each message carries the number of its key's change, so that what arrives must count 1, 2, 3 …
async fn transaction(
    connection: &mut PgConnection,
    dice: &mut Dice,
    name: &str,
) -> Result<(), sqlx::Error> {
    run(connection, "begin".to_owned()).await?;
    if dice.percent(30) {
        run(connection, "select pg_current_xact_id()".to_owned()).await?;
        pause(dice.below(30)).await;
    }
    let mut keys: Vec<u64> = (0..=dice.below(3))
        .map(|_| 1 + dice.below(u64::from(KEYS)))
        .collect();
    // In one order, so that no two wait for each other.
    keys.sort_unstable();
    keys.dedup();
    for key in keys {
        let change = change(dice, key);
        if dice.percent(15) {
            run(
                connection,
                format!("savepoint s; {change}; rollback to savepoint s"),
            )
            .await?;
        }
        if dice.percent(15) {
            run(
                connection,
                format!("savepoint s; {change}; release savepoint s"),
            )
            .await?;
        } else {
            run(connection, change).await?;
        }
        if dice.percent(10) {
            pause(dice.below(30)).await;
        }
    }
    match dice.below(1_000) {
        0..4 => pause(2_000).await,
        4..100 => return run(connection, "rollback".to_owned()).await,
        100..160 => {
            run(connection, format!("prepare transaction '{name}'")).await?;
            pause(dice.below(100)).await;
            let end = if dice.percent(80) {
                "commit"
            } else {
                "rollback"
            };
            return run(connection, format!("{end} prepared '{name}'")).await;
        }
        _ => {}
    }
    run(connection, "commit".to_owned()).await
}

async fn pause(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

async fn writer(url: String, seed: u32, stop: Arc<AtomicBool>) {
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let mut dice = Dice(u64::from(seed) + 1);
    let mut count = 0;
    while !stop.load(Ordering::SeqCst) {
        count += 1;
        transaction(&mut connection, &mut dice, &format!("w{seed}_{count}"))
            .await
            .unwrap();
    }
}

/// One transaction of many messages that commits long after others have passed it.
async fn big(url: String) {
    let mut connection = PgConnection::connect(&url).await.unwrap();
    run(&mut connection, "begin".to_owned()).await.unwrap();
    let part = BIG / 50;
    for n in 0..50 {
        let insert = format!(
            "insert into onceward.messages (lane, id, topic, key, type, payload)
             select 1, gen_random_uuid(), 't', 'big', 't', i::text::bytea
             from generate_series({}, {}) i",
            n * part + 1,
            (n + 1) * part
        );
        run(&mut connection, insert).await.unwrap();
        pause(50).await;
    }
    pause(1_000).await;
    run(&mut connection, "commit".to_owned()).await.unwrap();
}

/// Everything that arrived, by key.
#[derive(Default)]
struct Arrived {
    by_key: HashMap<String, Vec<u32>>,
    count: usize,
    pages: usize,
}

async fn read_on(
    reader: &mut LogReader,
    cursors: &mut [Cursor; 3],
    arrived: &mut Arrived,
) -> usize {
    let asks: Vec<CursorRead> = Lane::ALL
        .into_iter()
        .zip(cursors.iter())
        .map(|(lane, cursor)| CursorRead {
            lane,
            cursor: cursor.clone(),
            limit: LIMIT,
            bytes: 1 << 20,
        })
        .collect();
    let read = reader.read(&asks, &PublishAfter::Visible).await.unwrap();
    let mut rows = 0;
    for (step, cursor) in read.steps.into_iter().zip(cursors) {
        rows += step.rows.len();
        arrived.pages += usize::from(step.after.paging.is_some());
        *cursor = step.after;
        for row in step.rows {
            let message = row.into_message();
            let number = std::str::from_utf8(&message.payload)
                .unwrap()
                .parse()
                .unwrap();
            let key = message.key.unwrap().as_str().to_owned();
            arrived.by_key.entry(key).or_default().push(number);
        }
    }
    arrived.count += rows;
    rows
}

/// Before about half of the reads, some of the cursors learn what was given since they were read; now and then by being stored and claimed anew.
async fn inform(keeper: &mut Keeper, cursors: &mut [Cursor; 3], dice: &mut Dice) {
    if dice.percent(50) {
        let given = cursors.iter().map(|cursor| cursor.last).max().unwrap();
        let txid = keeper.renew().await.unwrap().txid;
        for cursor in cursors.iter_mut().filter(|_| dice.percent(70)) {
            cursor.learn(given, txid);
        }
    }
    if dice.percent(2) {
        let checkpoint = Checkpoint {
            cursors: cursors.clone().map(Some),
            ..Checkpoint::default()
        };
        keeper.checkpoint(&checkpoint).await.unwrap();
        let again = Claim {
            previous: keeper.token(),
            ..claim_of("events", LEASE)
        };
        let claimed = claim(keeper, &again).await.cursors;
        assert_eq!(claimed, *cursors);
        let knows = |cursor: &Cursor| cursor.late_below != LateBelow::default();
        assert!(claimed.iter().all(knows), "{claimed:?}");
        *cursors = claimed;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn under_stress_nothing_is_lost_doubled_or_out_of_order() {
    let options = Options {
        fsync: false,
        ..Options::default()
    };
    let server = Postgres::start(options.config("max_prepared_transactions", "30")).await;
    let url = server.url("postgres");
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    onceward_migrations::run(&pool).await.unwrap();
    let keys = "create table keys (k int primary key, v int not null default 0);
        insert into keys select i from generate_series(1, 120) i";
    pool.execute(sqlx::raw_sql(keys)).await.unwrap();
    let log = onceward::LogDatabase::new(url.parse().unwrap(), onceward::Schema::default());
    let mut keeper = Keeper::connect(&log).await.unwrap();
    let mut reader = LogReader::connect(&log).await.unwrap();
    let mut cursors = claim(&mut keeper, &claim_of("events", LEASE)).await.cursors;

    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for seed in 0..WRITERS {
        writers.spawn(writer(url.clone(), seed, stop.clone()));
    }
    writers.spawn(big(url.clone()));
    let (mut arrived, mut dice) = (Arrived::default(), Dice(0));
    let end = Instant::now() + Duration::from_secs(seconds());
    while !writers.is_empty() {
        if Instant::now() >= end {
            stop.store(true, Ordering::SeqCst);
        }
        inform(&mut keeper, &mut cursors, &mut dice).await;
        read_on(&mut reader, &mut cursors, &mut arrived).await;
        while let Some(done) = writers.try_join_next() {
            done.unwrap();
        }
        pause(1).await;
    }
    while read_on(&mut reader, &mut cursors, &mut arrived).await > 0 {}

    verify(&pool, &arrived).await;
}

/// Each key's messages must count 1, 2, 3 … up to what its row says.
async fn verify(pool: &sqlx::PgPool, arrived: &Arrived) {
    let mut expected: HashMap<String, u32> =
        sqlx::query_as("select k::text, v from keys where v > 0")
            .fetch_all(pool)
            .await
            .unwrap()
            .into_iter()
            .map(|(key, v): (String, i32)| (key, v.unsigned_abs()))
            .collect();
    expected.insert("big".to_owned(), BIG);
    assert_eq!(arrived.by_key.len(), expected.len());
    for (key, last) in expected {
        let wrong = arrived.by_key[&key]
            .iter()
            .zip(1..)
            .find(|(number, place)| *number != place);
        assert!(wrong.is_none(), "key {key}: {wrong:?}");
        assert_eq!(
            arrived.by_key[&key].len(),
            usize::try_from(last).unwrap(),
            "key {key}"
        );
    }
    assert!(
        arrived.pages > 100,
        "late rows were paged {} times",
        arrived.pages
    );
    println!(
        "{} messages, {} pages of late rows",
        arrived.count, arrived.pages
    );
}

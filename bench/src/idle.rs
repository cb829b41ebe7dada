//! W6: what a relay costs that has nothing to do, and how soon it is back at work: a single message now and then.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use onceward::{Message, Outbox};
use onceward_testkit::cpu;
use onceward_testkit::postgres::{Database, Postgres};
use sqlx::PgPool;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::Arguments;
use crate::backlog::{TOPIC, payload};
use crate::broker::{self, Broker, IdIn};
use crate::outcome::Outcome;
use crate::relay::Relay;
use crate::results::Results;
use crate::world::World;

/// How long nothing happens.
const IDLE: Duration = Duration::from_secs(10);

/// Single messages.
const MESSAGES: u64 = 100;

/// How long nothing happens before each, at least and at most, in milliseconds: a moment at random.
const PAUSE: std::ops::Range<u64> = 50..250;

/// One that takes longer is lost.
const PATIENCE: Duration = Duration::from_secs(20);

/// Messages as a reader sees them.
pub(crate) type Arrivals = UnboundedReceiver<(Uuid, Instant)>;

pub(crate) async fn measure(
    world: &World,
    arguments: &Arguments,
    results: &mut Results,
) -> Outcome {
    // A server of its own, which counts statements: that has a cost, and no other workload is to pay it.
    let counting = ("shared_preload_libraries", "pg_stat_statements");
    let postgres = World::postgres(&[counting, ("pg_stat_statements.max", "10000")]).await;
    for _ in 0..arguments.repeats {
        for broker in Broker::ALL {
            one(world, &postgres, arguments, broker, results).await?;
        }
    }
    Ok(())
}

async fn one(
    world: &World,
    postgres: &Postgres,
    arguments: &Arguments,
    broker: Broker,
    results: &mut Results,
) -> Outcome {
    let database = postgres.database().await;
    onceward_migrations::run(database.pool()).await?;
    sqlx::raw_sql("create extension pg_stat_statements")
        .execute(database.pool())
        .await?;
    let route = broker.route(world).await?;
    let to = (broker, route.as_str());
    let relay = Relay::start(&arguments.relay, world, database.url(), "idle", to)?;
    let (seen, mut arrivals) = mpsc::unbounded_channel();
    let _reader = broker::read(world, to, IdIn::Header, seen).await?;
    // The first one says that the relay is at work, and is no figure.
    send(database.pool(), TOPIC, &mut arrivals).await?;

    let at = ("W6", broker.name());
    let idle = watch(&database, &relay).await?;
    results.add(at, "onceward", ("cpu_relay", "% of a core"), idle.relay);
    results.add(
        at,
        "onceward",
        ("cpu_postgres", "% of a core"),
        idle.postgres,
    );
    results.add(at, "onceward", ("statements", "1/s"), idle.statements);
    results.add(
        at,
        "onceward",
        ("connections", "connections"),
        idle.connections,
    );

    results.add(at, "onceward", ("rss_mib", "MiB"), relay.peak_memory()?);

    for (metric, millis) in now_and_then(database.pool(), TOPIC, &mut arrivals, MESSAGES).await? {
        results.add(at, "onceward", (metric, "ms"), millis);
    }
    Ok(())
}

/// Commits single messages, each after a pause: within how many milliseconds half and 99 of 100 of them can be read.
pub(crate) async fn now_and_then(
    pool: &PgPool,
    topic: &str,
    arrivals: &mut Arrivals,
    messages: u64,
) -> Outcome<[(&'static str, f64); 2]> {
    let mut histogram = Histogram::<u64>::new(3)?;
    for _ in 0..messages {
        sleep(Duration::from_millis(fastrand::u64(PAUSE))).await;
        let took = send(pool, topic, arrivals).await?;
        histogram.record(u64::try_from(took.as_micros())?.max(1))?;
    }
    #[expect(clippy::cast_precision_loss, reason = "microseconds of one run")]
    let millis = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
    Ok([
        ("first_p50_ms", millis(0.5)),
        ("first_p99_ms", millis(0.99)),
    ])
}

/// What doing nothing costs.
struct Idle {
    relay: f64,
    postgres: f64,
    statements: f64,
    /// To PostgreSQL.
    connections: f64,
}

async fn watch(database: &Database, relay: &Relay) -> Outcome<Idle> {
    let pool = database.pool();
    let backends = backends(pool).await?;
    let (begun, before) = (Instant::now(), relay.cpu_seconds()?);
    let (of_backends, counted) = (of(&backends)?, statements(pool).await?);
    sleep(IDLE).await;
    // The count before is itself a statement.
    let counted = statements(pool).await? - counted - 1;
    let relay = relay.cpu_seconds()? - before;
    let postgres = of(&backends)? - of_backends;
    let seconds = begun.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    Ok(Idle {
        relay: 100.0 * relay / seconds,
        postgres: 100.0 * postgres / seconds,
        statements: counted as f64 / seconds,
        connections: backends.len() as f64,
    })
}

/// The processes of the server that serve the relay: all of this database that are not of our own pool.
async fn backends(pool: &PgPool) -> Outcome<Vec<u32>> {
    let sql = "
select pid
from pg_stat_activity
where datname = current_database()
  and backend_type = 'client backend'
  and application_name like 'onceward%'";
    let pids: Vec<i32> = sqlx::query_scalar(sql).fetch_all(pool).await?;
    if pids.is_empty() {
        return Err("the relay has no connection under its name".into());
    }
    Ok(pids
        .into_iter()
        .map(u32::try_from)
        .collect::<Result<_, _>>()?)
}

fn of(backends: &[u32]) -> Outcome<f64> {
    let used = backends.iter().map(|pid| cpu::of_process(*pid));
    Ok(used.sum::<std::io::Result<Duration>>()?.as_secs_f64())
}

/// Statements that this database has run so far.
async fn statements(pool: &PgPool) -> Outcome<i64> {
    let sql = "
select coalesce(sum(calls), 0)::bigint
from pg_stat_statements
where dbid = (select oid from pg_database where datname = current_database())";
    Ok(sqlx::query_scalar(sql).fetch_one(pool).await?)
}

/// Commits one message, and gives the time until it could be read.
pub(crate) async fn send(pool: &PgPool, topic: &str, arrivals: &mut Arrivals) -> Outcome<Duration> {
    let mut connection = pool.acquire().await?;
    let id = Uuid::now_v7();
    let draft = Message::bytes(topic, payload()).key("k").id(id);
    // One statement, one transaction: its return is the commit's.
    Outbox::new().enqueue(&mut connection, draft).await?;
    let committed = Instant::now();
    loop {
        let arrival = timeout(PATIENCE, arrivals.recv()).await?;
        let (seen, at) = arrival.ok_or("the reader ended")?;
        if seen == id {
            return Ok(at.saturating_duration_since(committed));
        }
    }
}

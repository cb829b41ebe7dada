//! W2: from the return of a commit until the message can be read at the broker, at a steady rate.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use onceward::{Message, Outbox};
use onceward_testkit::postgres::Database;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use uuid::Uuid;

use crate::Arguments;
use crate::backlog::{KEYS, TOPIC, payload};
use crate::broker::{self, Broker};
use crate::outcome::Outcome;
use crate::relay::Relay;
use crate::results::Results;
use crate::world::World;

/// Messages a second, one a transaction.
const RATE: u64 = 1_000;

/// Connections that write.
const WRITERS: u64 = 8;

/// Seconds at the beginning that do not count.
const WARM_UP: u64 = 2;

/// How long the last message may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// When each message was committed and when it could be read. A lock, as writers and the reader meet here once a message
/// and neither waits for the other.
#[derive(Debug, Default)]
struct Times {
    committed: HashMap<Uuid, Instant>,
    read: HashMap<Uuid, Instant>,
}

pub(crate) async fn measure(
    world: &World,
    arguments: &Arguments,
    results: &mut Results,
) -> Outcome {
    for run in 0..arguments.repeats {
        for broker in Broker::ALL {
            let database = world.database().await?;
            let route = broker.route(world).await?;
            let stream = format!("latency_{run}");
            let relay = Relay::start(
                &arguments.relay,
                world,
                database.url(),
                &stream,
                (broker, &route),
            )?;
            let histogram = one(world, &database, (broker, &route), arguments.seconds).await?;
            let variant = format!("{}-{RATE}", broker.name());
            for (metric, quantile) in [
                ("p50_ms", 0.5),
                ("p99_ms", 0.99),
                ("p999_ms", 0.999),
                ("max_ms", 1.0),
            ] {
                #[expect(clippy::cast_precision_loss, reason = "microseconds of one run")]
                let millis = histogram.value_at_quantile(quantile) as f64 / 1e3;
                results.add(("W2", &variant), "onceward", (metric, "ms"), millis);
            }
            let memory = relay.peak_memory()?;
            results.add(("W2", &variant), "onceward", ("memory", "MiB"), memory);
        }
    }
    Ok(())
}

async fn one(
    world: &World,
    database: &Database,
    at: (Broker, &str),
    seconds: u64,
) -> Outcome<Histogram<u64>> {
    let times = Arc::new(Mutex::new(Times::default()));
    let total = RATE * (seconds + WARM_UP);
    let (seen, mut arrivals) = mpsc::unbounded_channel();
    let _reader = broker::read(world, at, seen).await?;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (pool, times) = (database.pool().clone(), Arc::clone(&times));
        writers.spawn(async move { write(&pool, writer, total / WRITERS, &times).await });
    }
    let expected = total / WRITERS * WRITERS;
    for _ in 0..expected {
        let arrival = timeout(PATIENCE + Duration::from_secs(seconds), arrivals.recv()).await?;
        let (id, at) = arrival.ok_or("the reader ended")?;
        times.lock().map_err(|_| "poisoned")?.read.insert(id, at);
    }
    while let Some(written) = writers.join_next().await {
        written??;
    }
    let times = times.lock().map_err(|_| "poisoned")?;
    tally(&times)
}

/// The microseconds from commit to readable, without those of the warm-up.
fn tally(times: &Times) -> Outcome<Histogram<u64>> {
    let first = times
        .committed
        .values()
        .min()
        .ok_or("nothing was committed")?;
    let warm = *first + Duration::from_secs(WARM_UP);
    let mut histogram = Histogram::new(3)?;
    for (id, committed) in &times.committed {
        let read = times.read.get(id).ok_or("a message never arrived")?;
        if *committed >= warm {
            // A message may be readable before the commit's answer has come back to the writer.
            let took = read.saturating_duration_since(*committed);
            histogram.record(u64::try_from(took.as_micros())?.max(1))?;
        }
    }
    Ok(histogram)
}

/// Writes at a steady pace, also when the database stalls: the next ones are late then, not left out.
async fn write(pool: &sqlx::PgPool, writer: u64, messages: u64, times: &Mutex<Times>) -> Outcome {
    let mut connection = pool.acquire().await?;
    let outbox = Outbox::new();
    let mut pace = interval(Duration::from_micros(1_000_000 * WRITERS / RATE));
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for n in 0..messages {
        pace.tick().await;
        let id = Uuid::now_v7();
        let key = format!("k{}", (n * WRITERS + writer) % KEYS);
        let draft = Message::bytes(TOPIC, payload()).key(key).id(id);
        // One statement, one transaction: its return is the commit's.
        outbox.enqueue(&mut connection, draft).await?;
        let now = Instant::now();
        times
            .lock()
            .map_err(|_| "poisoned")?
            .committed
            .insert(id, now);
    }
    Ok(())
}

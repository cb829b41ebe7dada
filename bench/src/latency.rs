//! W2: from the return of a commit until the message can be read at the broker, at a steady rate.

mod poller;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use onceward::{Message, Outbox};
use onceward_testkit::postgres::Database;
use sqlx::AssertSqlSafe;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{self, MissedTickBehavior, interval_at, timeout};
use uuid::Uuid;

use crate::Arguments;
use crate::backlog::{KEYS, TOPIC, payload, payload_of};
use crate::broker::bare::Single;
use crate::broker::{self, Broker, IdIn, Witness};
use crate::cost::{Figure, bytes_each, each};
use crate::outcome::Outcome;
use crate::producer::wal;
use crate::relay::{Relay, Streams};
use crate::results::Results;
use crate::world::World;

/// Connections that write.
const WRITERS: u64 = 8;

/// Transactions a second of the run that does not wait for PostgreSQL's disk, and from which on a bare poll is measured.
const RATE: u64 = 1_000;

/// The stream's name.
const STREAM: &str = "latency";

/// Seconds at the beginning that do not count, for a relay of ours.
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
    for _ in 0..arguments.repeats {
        for rate in &arguments.rates {
            for broker in Broker::ALL {
                let variant = format!("{}-{rate}", broker.name());
                let figures = one(world, arguments, broker, *rate).await?;
                for (metric, unit, value) in figures {
                    results.add(("W2", &variant), "onceward", (metric, unit), value);
                }
                for (metric, unit, value) in bare(world, arguments, broker, *rate).await? {
                    results.add(("W2", &variant), "raw-client", (metric, unit), value);
                }
                // Below that the pause between two polls is all that it would tell.
                if *rate >= RATE {
                    for (metric, unit, value) in bare_poll(world, arguments, broker, *rate).await? {
                        results.add(("W2", &variant), "bare-poll", (metric, unit), value);
                    }
                }
            }
        }
        // What of it is the wait for PostgreSQL's disk.
        let streams = Streams {
            publish_after: "visible",
            ..Streams::one(STREAM)
        };
        let figures = one_with_streams(world, arguments, Broker::Kafka, RATE, &streams).await?;
        let variant = format!("kafka-{RATE} visible");
        for (metric, unit, value) in figures {
            results.add(("W2", &variant), "onceward", (metric, unit), value);
        }
    }
    Ok(())
}

/// One run at so many transactions a second, one message each.
pub(crate) async fn one(
    world: &World,
    arguments: &Arguments,
    broker: Broker,
    rate: u64,
) -> Outcome<Vec<Figure>> {
    one_with_streams(world, arguments, broker, rate, &Streams::one(STREAM)).await
}

async fn one_with_streams(
    world: &World,
    arguments: &Arguments,
    broker: Broker,
    rate: u64,
    streams: &Streams<'_>,
) -> Outcome<Vec<Figure>> {
    let database = world.database().await?;
    let route = broker.route(world).await?;
    let to = (broker, route.as_str());
    let url = world.relays_url(&database);
    let relay = Relay::start_with(&arguments.relay, world, &url, streams, to)?;
    let load = Load::enqueued(rate, arguments.seconds);
    run(world, &database, to, &load, &relay).await
}

/// The same without a relay: each message is enqueued, and published by the broker's own client when the commit has returned. The CPU of
/// that client is not told: it is in this process, as writers and the reader are.
async fn bare(
    world: &World,
    arguments: &Arguments,
    broker: Broker,
    rate: u64,
) -> Outcome<Vec<Figure>> {
    let database = world.database().await?;
    let (route, client) = fresh(world, broker).await?;
    let load = Load {
        how: How::EnqueueAndPublish(client),
        ..Load::enqueued(rate, arguments.seconds)
    };
    let (figures, _) = measured(world, &database, (broker, &route), &load).await?;
    Ok(figures)
}

/// The same, published by the broker's own client once a bare poll has found it.
async fn bare_poll(
    world: &World,
    arguments: &Arguments,
    broker: Broker,
    rate: u64,
) -> Outcome<Vec<Figure>> {
    let database = world.database().await?;
    let (route, client) = fresh(world, broker).await?;
    let mut poller = poller::poll(database.url(), client).await?;
    let load = Load::enqueued(rate, arguments.seconds);
    tokio::select! {
        figures = measured(world, &database, (broker, &route), &load) => Ok(figures?.0),
        Some(ended) = poller.join_next() => ended?.map(|never| match never {}),
    }
}

/// A fresh route, and a client that publishes there.
async fn fresh(world: &World, broker: Broker) -> Outcome<(String, Arc<Single>)> {
    let route = broker.route(world).await?;
    let client = Single::connect(world, (broker, &route)).await?;
    Ok((route, Arc::new(client)))
}

/// How a message is written.
#[derive(Clone)]
pub(crate) enum How {
    /// By Onceward.
    Enqueue,
    /// By Onceward, and published at once without waiting for a relay.
    EnqueueAndPublish(Arc<Single>),
    /// By a statement with the id, the key and the payload, which holds both.
    Insert(String),
}

/// What is written.
#[derive(Clone)]
pub(crate) struct Load {
    /// Transactions a second.
    pub(crate) rate: u64,
    /// Seconds that count.
    pub(crate) seconds: u64,
    /// Seconds before them that do not.
    pub(crate) warm_up: u64,
    pub(crate) how: How,
    /// Messages that are at the broker before.
    pub(crate) already: usize,
}

impl Load {
    /// Messages of ours, to a fresh route.
    pub(crate) const fn enqueued(rate: u64, seconds: u64) -> Self {
        Self {
            rate,
            seconds,
            warm_up: WARM_UP,
            how: How::Enqueue,
            already: 0,
        }
    }

    /// How many messages are written.
    pub(crate) const fn messages(&self) -> u64 {
        self.rate * (self.seconds + self.warm_up) / WRITERS * WRITERS
    }

    const fn id_in(&self) -> IdIn {
        match self.how {
            How::Enqueue | How::EnqueueAndPublish(_) => IdIn::Header,
            How::Insert(_) => IdIn::Payload,
        }
    }
}

/// One run with a relay that has just been started.
pub(crate) async fn run(
    world: &World,
    database: &Database,
    to: (Broker, &str),
    load: &Load,
    relay: &Relay,
) -> Outcome<Vec<Figure>> {
    let before = relay.cpu_seconds()?;
    let (mut figures, messages) = measured(world, database, to, load).await?;
    let cpu = relay.cpu_seconds()? - before;
    figures.extend([
        ("rss_mib", "MiB", relay.peak_memory()?),
        ("cpu_us_relay", "us/msg", each(cpu, messages)),
    ]);
    Ok(figures)
}

/// One run with whoever publishes, and how many messages that were.
///
/// PostgreSQL's CPU and its write-ahead log are those of the whole server, writers included, and the broker's CPU is with the reader: what
/// a relay adds to them is the difference to the run of the bare client, where all else is the same.
async fn measured(
    world: &World,
    database: &Database,
    to: (Broker, &str),
    load: &Load,
) -> Outcome<(Vec<Figure>, u64)> {
    let (messages, meter) = (load.messages(), world.meter(to.0));
    let (written, before) = (wal(database.pool()).await?, meter.used()?);
    let histogram = write_and_read(world, database, to, load).await?;
    let used = meter.used()?.each_since(before, messages);
    let written = wal(database.pool()).await? - written;
    // The reader has had each message once; what the broker holds beyond are copies.
    let held = Witness::of(world, to).await?.held().await?;
    let copies = held.saturating_sub(messages + u64::try_from(load.already)?);
    let mut figures = quantiles(&histogram).to_vec();
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    figures.extend([
        ("cpu_us_postgres", "us/msg", used.postgres),
        ("cpu_us_broker", "us/msg", used.broker),
        ("wal", "B/msg", bytes_each(written, messages)),
        ("duplicates", "msg", copies as f64),
    ]);
    Ok((figures, messages))
}

fn quantiles(histogram: &Histogram<u64>) -> [Figure; 4] {
    #[expect(clippy::cast_precision_loss, reason = "microseconds of one run")]
    let millis = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
    [
        ("p50_ms", "ms", millis(0.5)),
        ("p99_ms", "ms", millis(0.99)),
        ("p999_ms", "ms", millis(0.999)),
        ("max_ms", "ms", millis(1.0)),
    ]
}

async fn write_and_read(
    world: &World,
    database: &Database,
    at: (Broker, &str),
    load: &Load,
) -> Outcome<Histogram<u64>> {
    let (rate, total) = (load.rate, load.messages());
    let times = Arc::new(Mutex::new(Times::default()));
    let (seen, mut arrivals) = mpsc::unbounded_channel();
    let _reader = broker::read(world, at, load.id_in(), seen).await?;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (pool, times) = (database.pool().clone(), Arc::clone(&times));
        let pace = Duration::from_micros(1_000_000 * WRITERS / rate);
        let share = total / WRITERS;
        let how = load.how.clone();
        writers.spawn(async move { write(&pool, writer, &how, (share, pace), &times).await });
    }
    let last = Duration::from_secs(total / rate) + PATIENCE;
    let mut missing = usize::try_from(total)? + load.already;
    while missing > 0 {
        let arrival = timeout(last, arrivals.recv()).await?;
        let (id, at) = arrival.ok_or("the reader ended")?;
        // The first copy counts.
        if let Entry::Vacant(first) = times.lock().map_err(|_| "poisoned")?.read.entry(id) {
            first.insert(at);
            missing -= 1;
        }
    }
    while let Some(written) = writers.join_next().await {
        written??;
    }
    let times = times.lock().map_err(|_| "poisoned")?;
    tally(&times, Duration::from_secs(load.warm_up))
}

/// The microseconds from commit to readable, without those of the warm-up.
fn tally(times: &Times, warm_up: Duration) -> Outcome<Histogram<u64>> {
    let first = times
        .committed
        .values()
        .min()
        .ok_or("nothing was committed")?;
    let warm = *first + warm_up;
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

/// Writes at a steady pace, also when the database stalls: the next ones are late then, not left out. Writers take turns, as far as a timer
/// of a millisecond can: together they would write eight messages at once, and nothing until the next eight.
async fn write(
    pool: &sqlx::PgPool,
    writer: u64,
    how: &How,
    (messages, pace): (u64, Duration),
    times: &Mutex<Times>,
) -> Outcome {
    let mut connection = pool.acquire().await?;
    let outbox = Outbox::new();
    let turn = pace * u32::try_from(writer)? / u32::try_from(WRITERS)?;
    let mut pace = interval_at(time::Instant::now() + turn, pace);
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for n in 0..messages {
        pace.tick().await;
        let id = Uuid::now_v7();
        let key = format!("k{}", (n * WRITERS + writer) % KEYS);
        // One statement, one transaction: its return is the commit's.
        match how {
            How::Enqueue | How::EnqueueAndPublish(_) => {
                let draft = Message::bytes(TOPIC, payload()).key(key.as_str()).id(id);
                outbox.enqueue(&mut connection, draft).await?;
            }
            How::Insert(statement) => {
                let insert = sqlx::query(AssertSqlSafe(statement.as_str())).bind(id);
                let insert = insert.bind(&key).bind(payload_of(id, &key));
                insert.execute(&mut *connection).await?;
            }
        }
        let now = Instant::now();
        if let How::EnqueueAndPublish(client) = how {
            client.send(id, &key).await?;
        }
        times
            .lock()
            .map_err(|_| "poisoned")?
            .committed
            .insert(id, now);
    }
    Ok(())
}

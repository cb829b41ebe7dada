//! W2: from the return of a commit until the message can be read at the broker, at a steady rate.

mod load;
mod poller;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use onceward_testkit::postgres::Database;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use self::load::write;
pub(crate) use self::load::{How, Load};
use crate::Arguments;
use crate::broker::bare::Single;
use crate::broker::{self, Broker, Witness};
use crate::cost::{Figure, Meter, Used, bytes_each, each, per_second};
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
    measured(world, &database, (broker, &route), &load, None).await
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
        figures = measured(world, &database, (broker, &route), &load, None) => figures,
        Some(ended) = poller.join_next() => ended?.map(|never| match never {}),
    }
}

/// A fresh route, and a client that publishes there.
async fn fresh(world: &World, broker: Broker) -> Outcome<(String, Arc<Single>)> {
    let route = broker.route(world).await?;
    let client = Single::connect(world, (broker, &route)).await?;
    Ok((route, Arc::new(client)))
}

/// One run with a relay that has just been started.
pub(crate) async fn run(
    world: &World,
    database: &Database,
    to: (Broker, &str),
    load: &Load,
    relay: &Relay,
) -> Outcome<Vec<Figure>> {
    let mut figures = measured(world, database, to, load, Some(relay)).await?;
    figures.push(("rss_mib", "MiB", relay.peak_memory()?));
    Ok(figures)
}

/// What was used so far: CPU of all but the relay, CPU seconds of the relay, and the position in the write-ahead log.
async fn look(
    meter: Meter,
    database: &Database,
    relay: Option<&Relay>,
) -> Outcome<(Used, f64, i64)> {
    let relay = relay.map(Relay::cpu_seconds).transpose()?;
    let written = wal(database.pool()).await?;
    Ok((meter.used()?, relay.unwrap_or_default(), written))
}

/// One run with whoever publishes. The time before all is warm counts for nothing but duplicates.
///
/// PostgreSQL's CPU and its write-ahead log are those of the whole server, writers included, and the broker's CPU is with the reader: what
/// a relay adds to them is the difference to the run of the bare client, where all else is the same.
async fn measured(
    world: &World,
    database: &Database,
    to: (Broker, &str),
    load: &Load,
    relay: Option<&Relay>,
) -> Outcome<Vec<Figure>> {
    let meter = world.meter(to.0);
    let run = Run::begin(world, database, to, load).await?;
    sleep(Duration::from_secs(load.warm_up)).await;
    let (used, of_relay, written) = look(meter, database, relay).await?;
    let (histogram, committed) = run.end(load).await?;
    let (used_after, of_relay_after, written_after) = look(meter, database, relay).await?;

    let messages = histogram.len();
    let used = used_after.each_since(used, messages);
    // The reader has had each message once; what the broker holds beyond are copies.
    let held = Witness::of(world, to).await?.held().await?;
    let copies = held.saturating_sub(load.messages() + u64::try_from(load.already)?);
    let mut figures = quantiles(&histogram).to_vec();
    if relay.is_some() {
        let cpu = each(of_relay_after - of_relay, messages);
        figures.push(("cpu_us_relay", "us/msg", cpu));
    }
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    figures.extend([
        ("committed", "tx/s", committed),
        ("cpu_us_postgres", "us/msg", used.postgres),
        ("cpu_us_broker", "us/msg", used.broker),
        (
            "wal",
            "B/msg",
            bytes_each(written_after - written, messages),
        ),
        ("duplicates", "msg", copies as f64),
    ]);
    Ok(figures)
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

/// A run that has begun: messages are written, and read at the broker.
struct Run {
    times: Arc<Mutex<Times>>,
    writers: JoinSet<Outcome>,
    arrivals: UnboundedReceiver<(Uuid, Instant)>,
    _reader: JoinSet<Outcome>,
}

impl Run {
    async fn begin(
        world: &World,
        database: &Database,
        at: (Broker, &str),
        load: &Load,
    ) -> Outcome<Self> {
        let times = Arc::new(Mutex::new(Times::default()));
        let (seen, arrivals) = mpsc::unbounded_channel();
        let reader = broker::read(world, at, load.id_in(), seen).await?;
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let (pool, times) = (database.pool().clone(), Arc::clone(&times));
            let pace = Duration::from_micros(1_000_000 * WRITERS / load.rate);
            let share = load.messages() / WRITERS;
            let how = load.how.clone();
            writers.spawn(async move { write(&pool, writer, &how, (share, pace), &times).await });
        }
        Ok(Self {
            times,
            writers,
            arrivals,
            _reader: reader,
        })
    }

    /// Once all is written and read: the microseconds of each message, and how many were committed in a second.
    async fn end(mut self, load: &Load) -> Outcome<(Histogram<u64>, f64)> {
        let total = load.messages();
        let last = Duration::from_secs(total / load.rate) + PATIENCE;
        let mut missing = usize::try_from(total)? + load.already;
        while missing > 0 {
            let arrival = timeout(last, self.arrivals.recv()).await?;
            let (id, at) = arrival.ok_or("the reader ended")?;
            // The first copy counts.
            let mut times = self.times.lock().map_err(|_| "poisoned")?;
            if let Entry::Vacant(first) = times.read.entry(id) {
                first.insert(at);
                missing -= 1;
            }
        }
        while let Some(written) = self.writers.join_next().await {
            written??;
        }
        let times = self.times.lock().map_err(|_| "poisoned")?;
        tally(&times, Duration::from_secs(load.warm_up))
    }
}

/// The microseconds from commit to readable and the commits a second, without those of the warm-up.
fn tally(times: &Times, warm_up: Duration) -> Outcome<(Histogram<u64>, f64)> {
    let commits = || times.committed.values();
    let (first, last) = commits()
        .min()
        .zip(commits().max())
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
    let committed = per_second(histogram.len(), last.saturating_duration_since(warm));
    Ok((histogram, committed))
}

//! W1: a committed backlog is drained. The witness is what the broker holds, not the relay's own word.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use onceward_testkit::postgres::Database;
use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::Arguments;
use crate::backlog;
use crate::broker::bare::{With, drain_to_kafka};
use crate::broker::{self, Broker, IdIn, Witness};
use crate::cost::{Figure, Stage, bytes_each, each, per_second};
use crate::outcome::Outcome;
use crate::producer::wal;
use crate::relay::Relay;
use crate::results::Results;
use crate::world::World;

/// How often the broker is asked.
const SAMPLE_EVERY: Duration = Duration::from_millis(50);

/// A drain that takes longer has failed, unless there is more to drain than this slowest of rates could.
const DEADLINE: Duration = Duration::from_secs(300);
const SLOWEST: u64 = 10_000;

/// Where the backlog goes: the name, the broker, and partitions, which only Kafka has.
const TARGETS: [(&str, Broker, u16); 3] = [
    ("kafka-1p", Broker::Kafka, 1),
    ("kafka-12p", Broker::Kafka, 12),
    ("nats", Broker::Nats, 1),
];

/// The rows of the backlog, copied to nowhere as the server finds them.
const COPY: &str = "copy (select seq, id, topic, key, type, headers, payload, created_at from onceward.messages where lane = 1) to stdout (format binary)";

/// The same in the order in which a relay reads, by one statement for all.
const ORDERED_READ: &str = "copy (select seq, id, topic, key, type, headers, payload, created_at from onceward.messages where lane = 1 order by seq) to stdout (format binary)";

/// What is measured beside the drains: each stage by itself, as fast as it goes.
#[derive(Debug, Clone, Copy)]
struct Reads {
    copy: Stage,
    ordered: Stage,
}

/// What the second half of a drain came to: whoever has to get warm is warm then.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Warm {
    pub(crate) rate: f64,
    /// CPU microseconds of the relay for each message.
    pub(crate) cpu: f64,
}

/// What one drain came to.
#[derive(Debug)]
pub(crate) struct Drained {
    pub(crate) rate: f64,
    /// The second half of the messages; none if there was no look between.
    pub(crate) warm: Option<Warm>,
    pub(crate) figures: Vec<Figure>,
}

pub(crate) async fn measure(
    world: &World,
    arguments: &Arguments,
    results: &mut Results,
) -> Outcome {
    for per_transaction in [1, 1_000] {
        let database = world.database().await?;
        backlog::fill(database.pool(), arguments.messages, per_transaction).await?;
        for run in 0..arguments.repeats {
            let reads = reads(world, database.pool(), arguments.messages).await?;
            for (name, broker, partitions) in TARGETS {
                let variant = format!("{name} {per_transaction}/tx");
                let at = ("W1", variant.as_str());
                let bare = bare(world, (broker, partitions), arguments.messages).await?;
                add_read(results, at, "copy", reads.copy);
                add_read(results, at, "ordered-read", reads.ordered);
                add_client(results, at, "raw-client", bare);
                if broker == Broker::Kafka && per_transaction > 1 {
                    let without = bare_without_headers(world, partitions, arguments.messages);
                    add_client(results, at, "raw-client-without-headers", without.await?);
                }

                let route = broker.route_of(world, partitions).await?;
                // A stream of a new name reads the same log from its beginning.
                let stream = format!("{}_{run}", name.replace('-', "_"));
                let to = (broker, route.as_str());
                let what = (arguments.relay.as_path(), arguments.messages);
                let drained = drain(world, what, &database, &stream, to).await?;
                add(results, at, &drained, ceiling(reads.ordered, bare)?);
                broker.forget(world, &route).await?;
            }
        }
    }
    Ok(())
}

/// One drain of so many messages, 1,000 a transaction, as the share of its combined ceiling.
pub(crate) async fn share(
    world: &World,
    relay: &Path,
    (broker, partitions): (Broker, u16),
    messages: u64,
) -> Outcome<f64> {
    let database = world.database().await?;
    backlog::fill(database.pool(), messages, 1_000).await?;
    let ordered = read_rows(world, database.pool(), ORDERED_READ, messages).await?;
    let bare = bare(world, (broker, partitions), messages).await?;
    let route = broker.route_of(world, partitions).await?;
    let to = (broker, route.as_str());
    let drained = drain(world, (relay, messages), &database, "share", to).await?;
    broker.forget(world, &route).await?;
    Ok(drained.rate / ceiling(ordered, bare)?)
}

fn add_read(results: &mut Results, at: (&'static str, &str), name: &'static str, read: Stage) {
    results.add(at, name, ("rate", "msg/s"), read.rate);
    results.add(at, name, ("cpu_us_client", "us/msg"), read.used.here);
    results.add(at, name, ("cpu_us_postgres", "us/msg"), read.used.postgres);
}

fn add_client(results: &mut Results, at: (&'static str, &str), name: &'static str, client: Stage) {
    results.add(at, name, ("rate", "msg/s"), client.rate);
    results.add(at, name, ("cpu_us_client", "us/msg"), client.used.here);
    results.add(at, name, ("cpu_us_broker", "us/msg"), client.used.broker);
}

fn add(results: &mut Results, at: (&'static str, &str), drained: &Drained, ceiling: f64) {
    results.add(at, "onceward", ("rate", "msg/s"), drained.rate);
    let fraction = drained.rate / ceiling;
    results.add(at, "onceward", ("fraction_of_ceiling", "ratio"), fraction);
    for (metric, unit, value) in &drained.figures {
        results.add(at, "onceward", (metric, unit), *value);
    }
}

/// What no relay can exceed here: the slower of both stages that it goes through, the ordered read and the publishing, and all cores with
/// nothing to do but these. The unordered copy bounds no more than the ordered one does.
#[expect(clippy::cast_precision_loss, reason = "a machine has few cores")]
fn ceiling(ordered: Stage, bare: Stage) -> Outcome<f64> {
    let cores = std::thread::available_parallelism()?.get() as f64;
    let reading = ordered.used.here + ordered.used.postgres;
    let publishing = bare.used.here + bare.used.broker;
    let by_cpu = cores / ((reading + publishing) / 1e6);
    Ok(ordered.rate.min(bare.rate).min(by_cpu))
}

async fn reads(world: &World, pool: &PgPool, messages: u64) -> Outcome<Reads> {
    Ok(Reads {
        copy: read_rows(world, pool, COPY, messages).await?,
        ordered: read_rows(world, pool, ORDERED_READ, messages).await?,
    })
}

/// The rows, copied out of the server as fast as it goes.
async fn read_rows(
    world: &World,
    pool: &PgPool,
    statement: &'static str,
    messages: u64,
) -> Outcome<Stage> {
    use futures_util::TryStreamExt;
    let mut connection = pool.acquire().await?;
    let clock = world.meter_with(None).start()?;
    let mut rows = connection.copy_out_raw(statement).await?;
    let mut bytes = 0;
    while let Some(chunk) = rows.try_next().await? {
        bytes += chunk.len();
    }
    if bytes == 0 {
        return Err("COPY gave nothing".into());
    }
    clock.stop(messages)
}

/// The same records, published by the bare client as fast as it goes.
async fn bare(world: &World, (broker, partitions): (Broker, u16), messages: u64) -> Outcome<Stage> {
    let route = broker.route_of(world, partitions).await?;
    let published = broker.publish_bare(world, &route, messages).await?;
    broker.forget(world, &route).await?;
    Ok(published)
}

/// The same without headers, on Kafka. No ceiling, as a relay sends them: it tells what they cost.
async fn bare_without_headers(world: &World, partitions: u16, messages: u64) -> Outcome<Stage> {
    let route = Broker::Kafka.route_of(world, partitions).await?;
    let published = drain_to_kafka(world, &route, messages, With::Nothing).await?;
    Broker::Kafka.forget(world, &route).await?;
    Ok(published)
}

/// Drains the log of a database by a stream of that name, and reads back what the broker holds.
pub(crate) async fn drain(
    world: &World,
    (binary, messages): (&Path, u64),
    database: &Database,
    stream: &str,
    at: (Broker, &str),
) -> Outcome<Drained> {
    let url = world.relays_url(database);
    let start = || Relay::start(binary, world, &url, stream, at);
    let (mut drained, relay) = run(world, database.pool(), (at, messages), start).await?;
    drained.figures.push(duplicates(world, at, messages).await?);
    drop(relay);
    Ok(drained)
}

/// Has a relay publish so many messages; it goes on then.
pub(crate) async fn run(
    world: &World,
    pool: &PgPool,
    (at, messages): ((Broker, &str), u64),
    start: impl FnOnce() -> Outcome<Relay>,
) -> Outcome<(Drained, Relay)> {
    let meter = world.meter(at.0);
    let (written, before) = (wal(pool).await?, meter.used()?);
    let relay = start()?;
    let (rate, warm) = watch(world, &relay, at, messages).await?;
    let (cpu, memory) = (relay.cpu_seconds()?, relay.peak_memory()?);
    let used = meter.used()?.each_since(before, messages);
    let written = wal(pool).await? - written;
    let figures = vec![
        ("cpu_us_relay", "us/msg", each(cpu, messages)),
        ("cpu_us_postgres", "us/msg", used.postgres),
        ("cpu_us_broker", "us/msg", used.broker),
        ("rss_mib", "MiB", memory),
        ("wal", "B/msg", bytes_each(written, messages)),
    ];
    let drained = Drained {
        rate,
        warm,
        figures,
    };
    Ok((drained, relay))
}

/// Waits until the broker holds all messages; the clock of the rate runs from the first sample that shows one.
async fn watch(
    world: &World,
    relay: &Relay,
    at: (Broker, &str),
    messages: u64,
) -> Outcome<(f64, Option<Warm>)> {
    let mut witness = Witness::of(world, at).await?;
    let patience = DEADLINE.max(Duration::from_secs(messages / SLOWEST));
    let deadline = Instant::now() + patience;
    let (mut first, mut half) = (None, None);
    loop {
        let held = witness.held().await?;
        if held > 0 && first.is_none() {
            first = Some((Instant::now(), held));
        }
        if held >= messages {
            break;
        }
        if held >= messages / 2 && half.is_none() {
            half = Some((Instant::now(), held, relay.cpu_seconds()?));
        }
        if let Some(why) = relay.ended() {
            return Err(why.into());
        }
        if Instant::now() > deadline {
            return Err(format!("{held} of {messages} after {patience:?}").into());
        }
        sleep(SAMPLE_EVERY).await;
    }
    let between = first.filter(|(_, already)| *already < messages);
    let (begun, already) = between.ok_or("the backlog went in one sample; drain more messages")?;
    let rate = per_second(messages - already, begun.elapsed());
    let Some((begun, already, cpu)) = half else {
        return Ok((rate, None));
    };
    let left = messages - already;
    let warm = Warm {
        rate: per_second(left, begun.elapsed()),
        cpu: each(relay.cpu_seconds()? - cpu, left),
    };
    Ok((rate, Some(warm)))
}

/// Reads all that the broker holds; gives how many messages it holds more than once. One that it does not hold is an error.
pub(crate) async fn duplicates(
    world: &World,
    at: (Broker, &str),
    messages: u64,
) -> Outcome<Figure> {
    let (held, ids) = read_back(world, at, IdIn::Header).await?;
    let distinct = u64::try_from(ids.len())?;
    if distinct < messages {
        return Err(format!("{} of {messages} messages are lost", messages - distinct).into());
    }
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    Ok(("duplicates", "msg", (held - distinct) as f64))
}

/// Reads all that the broker holds: how much that is, and the ids in it.
pub(crate) async fn read_back(
    world: &World,
    at: (Broker, &str),
    id_in: IdIn,
) -> Outcome<(u64, HashSet<Uuid>)> {
    let held = Witness::of(world, at).await?.held().await?;
    let (seen, mut arrivals) = mpsc::unbounded_channel();
    let _reader = broker::read(world, at, id_in, seen).await?;
    let mut ids = HashSet::new();
    for _ in 0..held {
        let arrival = timeout(DEADLINE, arrivals.recv()).await?;
        ids.insert(arrival.ok_or("the reader ended")?.0);
    }
    Ok((held, ids))
}

//! W5: what grows with a log that is large, whose database is in trouble, or that many streams read. Each run stands beside a bare
//! one: the same backlog and the same latency, in a fresh database with one stream.
//!
//! Kafka only: what grows is PostgreSQL's part. The servers are of this workload alone, so that what it wrote goes with them.

mod condition;

use std::convert::Infallible;
use std::time::Duration;

use clap::Args;
use onceward::{Message, Outbox};
use onceward_testkit::postgres::Database;
use sqlx::{PgPool, Postgres, Transaction};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use self::condition::{Condition, retained_variant};
use crate::Arguments;
use crate::backlog::{self, Care, TOPIC, payload};
use crate::broker::{self, Broker, IdIn};
use crate::cost::Figure;
use crate::drain::{self, Drained};
use crate::idle;
use crate::latency::{self, Load};
use crate::outcome::Outcome;
use crate::relay::{Relay, Streams, topic_of_other};
use crate::results::Results;
use crate::world::World;

/// Partitions of a topic.
const PARTITIONS: u16 = 12;

/// Transactions a second of the latency.
const RATE: u64 = 1_000;

/// The name of the stream that publishes.
const STREAM: &str = "growth";

/// Single messages of a stream that passes over those of another one.
const OWN_MESSAGES: u64 = 50;

/// How long a relay may take to begin a stream.
const PATIENCE: Duration = Duration::from_secs(30);

/// How much is written in W5.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// W5: messages that are published and still in the log, such as `50000000`; each step adds to the one before.
    #[arg(
        long,
        env = "ONCEWARD_BENCH_RETAINED",
        value_delimiter = ',',
        default_value = "1000000,10000000,20000000"
    )]
    retained: Vec<u64>,
    /// W5: messages of the backlog that is drained in each run.
    #[arg(long, default_value_t = 500_000)]
    pub(crate) growth_messages: u64,
    /// W5: messages of the backlog after an outage; none of it for 0.
    #[arg(long, default_value_t = 10_000_000)]
    outage: u64,
    /// W5: seconds of each latency.
    #[arg(long, default_value_t = 8)]
    pub(crate) growth_seconds: u64,
}

/// What a drain and a latency came to.
#[derive(Debug)]
struct Turn {
    drained: Drained,
    latency: Vec<Figure>,
    /// Milliseconds of an own message of one that passes over all others.
    passer: Vec<(&'static str, f64)>,
}

impl Turn {
    fn p99(&self) -> f64 {
        let p99 = self.latency.iter().find(|(name, ..)| *name == "p99_ms");
        p99.map_or(f64::NAN, |(_, _, value)| *value)
    }
}

pub(crate) async fn measure(arguments: &Arguments, results: &mut Results) -> Outcome {
    let world = World::start().await;
    let settings = &arguments.growth;
    broker::warm_up(&world, settings.growth_messages).await?;

    let grown = Log::new(&world, arguments, Condition::Retained).await?;
    let mut have = 0;
    for wanted in &settings.retained {
        grown.retain(wanted.saturating_sub(have)).await?;
        have = *wanted;
        for _ in 0..arguments.repeats {
            let bare = bare(&world, arguments).await?;
            let turn = grown.turn(settings.growth_messages).await?;
            add(results, &retained_variant(*wanted), &turn, &bare);
            grown.forget(&turn).await?;
        }
    }
    drop(grown);
    for _ in 0..arguments.repeats {
        let bare = bare(&world, arguments).await?;
        for condition in Condition::FRESH {
            let log = Log::new(&world, arguments, condition).await?;
            let turn = log.turn(settings.growth_messages).await?;
            add(results, &condition.variant(), &turn, &bare);
        }
    }
    if settings.outage > 0 {
        outage(&world, arguments, results).await?;
    }
    Ok(())
}

async fn bare(world: &World, arguments: &Arguments) -> Outcome<Turn> {
    let log = Log::new(world, arguments, Condition::Bare).await?;
    log.turn(arguments.growth.growth_messages).await
}

/// The backlog of an outage and the latency behind it, once: it takes its time.
async fn outage(world: &World, arguments: &Arguments, results: &mut Results) -> Outcome {
    let bare = bare(world, arguments).await?;
    let log = Log::new(world, arguments, Condition::Bare).await?;
    let turn = log.turn(arguments.growth.outage).await?;
    add(results, "kafka after an outage", &turn, &bare);
    Ok(())
}

fn add(results: &mut Results, variant: &str, turn: &Turn, bare: &Turn) {
    let at = ("W5", variant);
    for (contestant, turn) in [("onceward", turn), ("bare-run", bare)] {
        add_drained(results, at, contestant, &turn.drained);
        for (metric, unit, value) in turn.latency.iter().filter(|(_, unit, _)| *unit == "ms") {
            results.add(at, contestant, (metric, unit), *value);
        }
        for (metric, millis) in &turn.passer {
            results.add(at, contestant, (metric, "ms"), *millis);
        }
    }
    let fraction = turn.drained.rate / bare.drained.rate;
    results.add(at, "onceward", ("fraction_of_bare", "ratio"), fraction);
    let times = turn.p99() / bare.p99();
    results.add(at, "onceward", ("p99_of_bare", "ratio"), times);
}

fn add_drained(
    results: &mut Results,
    at: (&'static str, &str),
    contestant: &'static str,
    drained: &Drained,
) {
    results.add(at, contestant, ("rate", "msg/s"), drained.rate);
    for (metric, unit, value) in &drained.figures {
        results.add(at, contestant, (metric, unit), *value);
    }
}

/// Commits a message of the stream that publishes every millisecond, for ever.
async fn commit_steadily(pool: &PgPool) -> Outcome<Infallible> {
    let mut connection = pool.acquire().await?;
    let outbox = Outbox::new();
    let mut pace = interval(Duration::from_secs(1) / u32::try_from(RATE)?);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pace.tick().await;
        let draft = Message::bytes(TOPIC, payload()).key("k");
        outbox.enqueue(&mut connection, draft).await?;
    }
}

/// A log under a condition, with streams that have begun.
struct Log<'a> {
    world: &'a World,
    arguments: &'a Arguments,
    database: Database,
    condition: Condition,
}

impl<'a> Log<'a> {
    async fn new(
        world: &'a World,
        arguments: &'a Arguments,
        condition: Condition,
    ) -> Outcome<Self> {
        let database = world.database().await?;
        if condition.care() == Care::None {
            backlog::without_autovacuum(database.pool()).await?;
        }
        let log = Self {
            world,
            arguments,
            database,
            condition,
        };
        log.begin().await?;
        Ok(log)
    }

    /// Has a relay begin all streams, while there is nothing to publish.
    async fn begin(&self) -> Outcome {
        let route = Broker::Kafka.route_of(self.world, PARTITIONS).await?;
        let relay = self.relay(&route)?;
        let streams = i64::from(self.condition.others()) + 1;
        let sql = "select count(distinct stream) from onceward.cursors";
        let begun = async {
            loop {
                let count: i64 = sqlx::query_scalar(sql)
                    .fetch_one(self.database.pool())
                    .await?;
                if count == streams {
                    return Outcome::Ok(());
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, begun).await??;
        relay.stop().await
    }

    fn relay(&self, route: &str) -> Outcome<Relay> {
        let (binary, url) = (&self.arguments.relay, self.world.relays_url(&self.database));
        let mut streams = Streams::one(STREAM);
        streams.others = self.condition.others();
        let to = (Broker::Kafka, route);
        Relay::start_with(binary, self.world, &url, &streams, to)
    }

    /// Adds messages that have been published and are kept.
    async fn retain(&self, messages: u64) -> Outcome {
        let pool = self.database.pool();
        backlog::retain(pool, messages).await?;
        let sql = "
update onceward.cursors
set last_seq = (select coalesce(max(seq), 0) from onceward.messages),
  snapshot = pg_current_snapshot(),
  pinned = null,
  late_pos = null,
  late_upto = (select coalesce(max(seq), 0) from onceward.messages),
  late_below = pg_current_xact_id()";
        sqlx::raw_sql(sql).execute(pool).await?;
        Ok(())
    }

    /// The drain of so many messages, and the latency behind it.
    async fn turn(&self, messages: u64) -> Outcome<Turn> {
        let held = match self.condition {
            Condition::HeldOpen => Some(self.hold().await?),
            Condition::Bare
            | Condition::Retained
            | Condition::Streams(_)
            | Condition::DeadAutovacuum => None,
        };
        let drained = self.drain(messages).await?;
        let route = Broker::Kafka.route_of(self.world, PARTITIONS).await?;
        let relay = self.relay(&route)?;
        let to = (Broker::Kafka, route.as_str());
        let load = Load::enqueued(RATE, self.arguments.growth.growth_seconds);
        let latency = latency::run(self.world, &self.database, to, &load, &relay).await?;
        let passer = match self.condition.others() {
            0 => Vec::new(),
            _ => self.of_a_passer(to).await?,
        };
        relay.stop().await?;
        if let Some(held) = held {
            held.rollback().await?;
        }
        Ok(Turn {
            drained,
            latency,
            passer,
        })
    }

    /// How soon own messages of a stream are readable, one now and then, while it passes over those of another one.
    async fn of_a_passer(&self, to: (Broker, &str)) -> Outcome<Vec<(&'static str, f64)>> {
        let (seen, mut arrivals) = mpsc::unbounded_channel();
        let _reader = broker::read(self.world, to, IdIn::Header, seen).await?;
        let pool = self.database.pool();
        let topic = topic_of_other(0);
        // The first one opens a session at the broker, and is no figure.
        idle::send(pool, &topic, &mut arrivals).await?;
        let own = idle::now_and_then(pool, &topic, &mut arrivals, OWN_MESSAGES);
        tokio::select! {
            figures = own => Ok(figures?.to_vec()),
            ended = commit_steadily(pool) => ended.map(|never| match never {}),
        }
    }

    /// A transaction that has written to the log, and waits.
    async fn hold(&self) -> Outcome<Transaction<'static, Postgres>> {
        let mut held = self.database.pool().begin().await?;
        sqlx::raw_sql("select onceward.enqueue('bench.events', 'never', 'k0')")
            .execute(&mut *held)
            .await?;
        Ok(held)
    }

    /// Drains a backlog to a route of its own, which is read back.
    async fn drain(&self, messages: u64) -> Outcome<Drained> {
        let care = self.condition.care();
        backlog::write(self.database.pool(), messages, 1_000, care).await?;
        let route = Broker::Kafka.route_of(self.world, PARTITIONS).await?;
        let to = (Broker::Kafka, route.as_str());
        let start = || self.relay(&route);
        let (mut drained, relay) =
            drain::run(self.world, self.database.pool(), (to, messages), start).await?;
        relay.stop().await?;
        let copies = drain::duplicates(self.world, to, messages).await?;
        drained.figures.push(copies);
        Ok(drained)
    }

    /// Takes the messages of a turn out of the log again, as the next one is to find it as this one did.
    async fn forget(&self, turn: &Turn) -> Outcome {
        let drained = self.arguments.growth.growth_messages;
        let written =
            drained + Load::enqueued(RATE, self.arguments.growth.growth_seconds).messages();
        eprintln!(
            "  taking {written} messages out again, after {:.0} msg/s",
            turn.drained.rate
        );
        backlog::take_last(self.database.pool(), written).await
    }
}

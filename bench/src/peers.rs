//! Other relays beside ours, in turn, on Kafka: W1, W2 at 1,000 a second, and W1 again with a network between the relay and the broker. Each has the table, the settings and the way to write
//! that its own documentation gives, and a fresh database for each run.

mod debezium;
mod peer;

use std::collections::HashSet;
use std::time::Duration;

use onceward_testkit::postgres::Database;
use sqlx::{AssertSqlSafe, PgPool};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

pub(crate) use peer::Programs;

use crate::Arguments;
use crate::backlog;
use crate::broker::{self, Broker, IdIn, Witness};
use crate::drain::{self, Drained};
use crate::latency::{self, How, Load};
use crate::machine::{self, Machine};
use crate::outcome::Outcome;
use crate::relay::{self, Relay};
use crate::results::{Keep, Results};
use crate::world::World;
use peer::{Peer, Place};

/// Transactions a second of the latency.
const RATE: u64 = 1_000;

/// Seconds of the latency that do not count: a virtual machine compiles meanwhile.
const WARM_UP: u64 = 10;

/// Peers that send one message and wait for its ack get this share of the backlog: their rate does not depend on it.
const SHARE_OF_SLOW: u64 = 5;

/// The same with a network between.
const SHARE_OF_SLOW_AFAR: u64 = 50;

/// How far the broker is then, each way.
const AFAR: Duration = Duration::from_micros(250);

/// How long a peer may take until its first message is at the broker.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often a row is written until the first one is there.
const FIRST_EVERY: Duration = Duration::from_millis(500);

/// Measures ours and all peers that are there.
pub(crate) async fn measure(arguments: &Arguments, programs: &Programs) -> Outcome {
    relay::look_for(&arguments.relay)?;
    let peers = programs.there()?;
    let world = World::start().await;
    let machine = Machine::look(&world).await?;
    let mut results = Results::default();
    let mut measured = Vec::new();
    broker::warm_up(&world, arguments.messages).await?;
    if arguments.wants("W1") {
        let at = ("W1", "kafka-4p 1/tx", SHARE_OF_SLOW);
        drains(&world, arguments, (programs, &peers), (at, &mut results)).await?;
        measured.push("W1 peers");
    }
    if arguments.wants("W2") {
        latencies(&world, arguments, (programs, &peers), &mut results).await?;
        measured.push("W2 peers");
    }
    // Two sets of servers would share the cores.
    drop(world);
    if arguments.wants("W7") {
        let world = World::start_distant().await;
        broker::warm_up(&world, arguments.messages).await?;
        world.set_distance(AFAR, Duration::ZERO);
        let at = ("W7", "kafka-4p 1/tx broker 0.25 ms", SHARE_OF_SLOW_AFAR);
        drains(&world, arguments, (programs, &peers), (at, &mut results)).await?;
        measured.push("W7 peers");
    }
    println!("{results}");
    results.write(&arguments.output, Keep::OtherVariants)?;
    machine::write(&arguments.machine, arguments, &measured, &machine)?;
    println!("written to {}", arguments.output.display());
    Ok(())
}

async fn drains(
    world: &World,
    arguments: &Arguments,
    (programs, peers): (&Programs, &[Peer]),
    ((workload, variant, share_of_slow), results): ((&'static str, &str, u64), &mut Results),
) -> Outcome {
    let at = (workload, variant);
    let ours = world.database().await?;
    backlog::fill(ours.pool(), arguments.messages, 1).await?;
    for run in 0..arguments.repeats {
        let route = Broker::Kafka.route(world).await?;
        let to = (Broker::Kafka, route.as_str());
        let what = (arguments.relay.as_path(), arguments.messages);
        let drained = drain::drain(world, what, &ours, &format!("peers_{run}"), to).await?;
        add(results, at, "onceward", &drained);
        for peer in peers {
            let messages = match peer.waits_for_each() {
                true => arguments.messages.div_ceil(share_of_slow),
                false => arguments.messages,
            };
            let drained = drain_by(world, messages, programs, *peer).await?;
            add(results, at, peer.name(), &drained);
        }
    }
    Ok(())
}

fn add(results: &mut Results, at: (&'static str, &str), name: &'static str, drained: &Drained) {
    results.add(at, name, ("rate", "msg/s"), drained.rate);
    if let Some(warm) = drained.warm {
        results.add(at, name, ("rate_warm", "msg/s"), warm.rate);
        results.add(at, name, ("cpu_us_relay_warm", "us/msg"), warm.cpu);
    }
    for (metric, unit, value) in &drained.figures {
        results.add(at, name, (metric, unit), *value);
    }
}

async fn latencies(
    world: &World,
    arguments: &Arguments,
    (programs, peers): (&Programs, &[Peer]),
    results: &mut Results,
) -> Outcome {
    let variant = format!("kafka-{RATE} beside peers");
    let at = ("W2", variant.as_str());
    for _ in 0..arguments.repeats {
        for (metric, unit, value) in latency::one(world, arguments, Broker::Kafka, RATE).await? {
            results.add(at, "onceward", (metric, unit), value);
        }
        for peer in peers {
            let run = Run::new(world, programs, *peer).await?;
            let route = Broker::Kafka.route(world).await?;
            let relay = run.start(&route)?;
            let (already, _) = run.first(&relay, &route).await?;
            let load = Load {
                rate: RATE,
                seconds: arguments.seconds,
                warm_up: WARM_UP,
                how: How::Insert(peer.insert(&route, ["$1", "$2", "$3"])),
                already: usize::try_from(already)?,
            };
            let to = (Broker::Kafka, route.as_str());
            let figures = latency::run(world, &run.database, to, &load, &relay).await?;
            for (metric, unit, value) in figures {
                results.add(at, peer.name(), (metric, unit), value);
            }
            run.end(relay).await?;
        }
    }
    Ok(())
}

async fn drain_by(
    world: &World,
    messages: u64,
    programs: &Programs,
    peer: Peer,
) -> Outcome<Drained> {
    let run = Run::new(world, programs, peer).await?;
    let mut first = HashSet::new();
    if peer.reads_the_wal() {
        // Its slot and its offsets are to be there before the backlog is.
        let route = Broker::Kafka.route(world).await?;
        let relay = run.start(&route)?;
        (_, first) = run.first(&relay, &route).await?;
        relay.end().await;
    }
    let route = Broker::Kafka.route(world).await?;
    run.fill(&route, messages).await?;
    let to = (Broker::Kafka, route.as_str());
    let start = || run.start(&route);
    let (mut drained, relay) =
        drain::run(world, run.database.pool(), (to, messages), start).await?;
    let (held, mut ids) = drain::read_back(world, to, IdIn::Payload).await?;
    ids.retain(|id| !first.contains(id));
    let distinct = u64::try_from(ids.len())?;
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let (copies, lost) = (
        held.saturating_sub(distinct) as f64,
        messages.saturating_sub(distinct) as f64,
    );
    drained.figures.push(("duplicates", "msg", copies));
    drained.figures.push(("lost", "msg", lost));
    run.end(relay).await?;
    Ok(drained)
}

/// A peer with a database of its own.
struct Run<'a> {
    world: &'a World,
    programs: &'a Programs,
    peer: Peer,
    database: Database,
    /// Where the peer keeps what it keeps, from one start to the next.
    files: onceward_testkit::Scratch,
}

impl<'a> Run<'a> {
    async fn new(world: &'a World, programs: &'a Programs, peer: Peer) -> Outcome<Self> {
        let database = world.postgres.database().await;
        sqlx::raw_sql(peer.table()).execute(database.pool()).await?;
        Ok(Self {
            world,
            programs,
            peer,
            database,
            files: onceward_testkit::Scratch::new("bench-peer"),
        })
    }

    fn start(&self, route: &str) -> Outcome<Relay> {
        let place = Place {
            port: self.world.postgres.port(),
            database: self.database.name(),
            url: self.database.url(),
            brokers: self.world.kafka.brokers(),
            topic: route,
            files: self.files.path(),
        };
        let command = self.peer.command(self.programs, &place)?;
        Ok(Relay::of(self.peer.name(), &command))
    }

    /// Writes rows until one is at the broker and nothing follows it for a while. Who reads the write-ahead log has missed what
    /// was written before its slot was there. Gives how many are at the broker, and the ids of all.
    async fn first(&self, relay: &Relay, route: &str) -> Outcome<(u64, HashSet<Uuid>)> {
        let mut witness = Witness::of(self.world, (Broker::Kafka, route)).await?;
        let mut written = HashSet::new();
        let insert = self.peer.insert(route, ["$1", "$2", "$3"]);
        let settled = async {
            let mut before = 0;
            loop {
                let held = witness.held().await?;
                if held > 0 && held == before {
                    return Outcome::Ok(held);
                }
                before = held;
                if let Some(why) = relay.ended() {
                    return Err(why.into());
                }
                if held == 0 {
                    let id = Uuid::now_v7();
                    sqlx::query(AssertSqlSafe(insert.clone()))
                        .bind(id)
                        .bind("k0")
                        .bind(backlog::payload_of(id, "k0"))
                        .execute(self.database.pool())
                        .await?;
                    written.insert(id);
                }
                sleep(FIRST_EVERY).await;
            }
        };
        let Ok(held) = timeout(PATIENCE, settled).await else {
            let (name, said) = (self.peer.name(), relay.said());
            return Err(format!("nothing of {name} within {PATIENCE:?}: {said}").into());
        };
        // Debezium stores its offsets once a second.
        sleep(Duration::from_secs(2)).await;
        Ok((held?, written))
    }

    /// Writes a backlog, one message a transaction.
    async fn fill(&self, route: &str, messages: u64) -> Outcome {
        eprintln!(
            "filling the table of {}: {messages} messages …",
            self.peer.name()
        );
        let insert = self.peer.insert(route, ["id", "key", "payload"]);
        let procedure = format!(
            "create procedure fill(messages bigint) language plpgsql as $fill$
             declare id uuid; key text; payload text;
             begin
               for n in 0 .. messages - 1 loop
                 id := gen_random_uuid();
                 key := 'k' || n % {keys};
                 payload := '{{\"id\":\"' || id || '\",\"key\":\"' || key || '\",\"note\":\"' || repeat('x', {padding}) || '\"}}';
                 {insert};
                 commit;
               end loop;
             end $fill$",
            keys = backlog::KEYS,
            padding = backlog::PADDING,
        );
        let mut connection = self.database.pool().acquire().await?;
        let fill = format!("call fill({messages})");
        for statement in [
            procedure.as_str(),
            "set synchronous_commit = off",
            &fill,
            "reset synchronous_commit",
            "vacuum analyze",
            "checkpoint",
        ] {
            sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
                .execute(&mut *connection)
                .await?;
        }
        Ok(())
    }

    async fn end(self, relay: Relay) -> Outcome {
        relay.end().await;
        drop_slots(self.database.pool()).await
    }
}

/// Drops what would keep the database from being dropped, as soon as nobody reads it.
async fn drop_slots(pool: &PgPool) -> Outcome {
    let sql = "
select count(pg_drop_replication_slot(slot_name))
from pg_replication_slots
where database = current_database() and not active";
    let left = "select count(*) from pg_replication_slots where database = current_database()";
    let all = async {
        loop {
            sqlx::raw_sql(sql).execute(pool).await?;
            let left: i64 = sqlx::query_scalar(left).fetch_one(pool).await?;
            if left == 0 {
                return Outcome::Ok(());
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, all).await?
}

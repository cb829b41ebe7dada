//! W7: the drain and the latency again, with the brokers or PostgreSQL some milliseconds away from the relay.
//!
//! Proxies on loopback delay what passes, each way. Readers of the broker go the relay's way; whoever writes is beside PostgreSQL. What
//! distance costs is told against a drain of the same repeat that passes no proxy, on servers of its own: Kafka tells its clients where to connect.

use std::time::Duration;

use onceward_testkit::postgres::Database;

use crate::Arguments;
use crate::backlog;
use crate::broker::{self, Broker};
use crate::drain::drain;
use crate::latency;
use crate::outcome::Outcome;
use crate::results::Results;
use crate::world::World;

/// What is how far away, in milliseconds each way.
const WAYS: [(&str, u64, u64); 5] = [
    ("no delay", 0, 0),
    ("broker 1 ms", 1, 0),
    ("broker 5 ms", 5, 0),
    ("postgres 1 ms", 0, 1),
    ("postgres 5 ms", 0, 5),
];

/// Transactions a second of the latency.
const RATE: u64 = 1_000;

/// Partitions of a topic on Kafka.
const PARTITIONS: u16 = 12;

pub(crate) async fn measure(arguments: &Arguments, results: &mut Results) -> Outcome {
    let (near, distant) = (World::start().await, World::start_distant().await);
    let (near, distant) = (
        Place::fill(&near, arguments).await?,
        Place::fill(&distant, arguments).await?,
    );
    for run in 0..arguments.repeats {
        for broker in Broker::ALL {
            let direct = format!("{} direct", broker.name());
            let to = broker.route_of(near.world, PARTITIONS).await?;
            let local = near.drain(&direct, run, (broker, &to), results).await?;
            for (way, brokers, postgres) in WAYS {
                let millis = Duration::from_millis;
                let world = distant.world;
                world.set_distance(Duration::ZERO, Duration::ZERO);
                let to = broker.route_of(world, PARTITIONS).await?;
                world.set_distance(millis(brokers), millis(postgres));
                let variant = format!("{} {way}", broker.name());
                let rate = distant.drain(&variant, run, (broker, &to), results).await?;
                let at = ("W7", variant.as_str());
                results.add(
                    at,
                    "onceward",
                    ("fraction_of_direct", "ratio"),
                    rate / local,
                );
                for (metric, unit, value) in latency::one(world, arguments, broker, RATE).await? {
                    // What it costs is told of the drain.
                    if unit == "ms" {
                        results.add(at, "onceward", (metric, unit), value);
                    }
                }
            }
        }
    }
    Ok(())
}

/// Servers, and a backlog there.
struct Place<'a> {
    world: &'a World,
    arguments: &'a Arguments,
    database: Database,
}

impl<'a> Place<'a> {
    async fn fill(world: &'a World, arguments: &'a Arguments) -> Outcome<Self> {
        let database = world.database().await?;
        backlog::fill(database.pool(), arguments.messages, 1_000).await?;
        broker::warm_up(world, arguments.messages).await?;
        Ok(Self {
            world,
            arguments,
            database,
        })
    }

    /// Drains it by a stream of its own, and gives the rate.
    async fn drain(
        &self,
        variant: &str,
        run: usize,
        to: (Broker, &str),
        results: &mut Results,
    ) -> Outcome<f64> {
        let at = ("W7", variant);
        let stream = format!("{}_{run}", variant.replace(' ', "_"));
        let what = (self.arguments.relay.as_path(), self.arguments.messages);
        let drained = drain(self.world, what, &self.database, &stream, to).await?;
        results.add(at, "onceward", ("rate", "msg/s"), drained.rate);
        for (metric, unit, value) in &drained.figures {
            results.add(at, "onceward", (metric, unit), *value);
        }
        to.0.forget(self.world, to.1).await?;
        Ok(drained.rate)
    }
}

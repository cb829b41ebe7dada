//! W7: the drain and the latency again, with the brokers or PostgreSQL some milliseconds away from the relay.
//!
//! Proxies on loopback delay what passes, each way. Bare clients and readers of the broker go the relay's way; whoever writes is
//! beside PostgreSQL. What distance costs is told against the same way without a delay, as the proxies cost something too.

use std::time::Duration;

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
    let world = World::start_distant().await;
    let database = world.database().await?;
    backlog::fill(database.pool(), arguments.messages, 1_000).await?;
    broker::warm_up(&world, arguments.messages).await?;
    for run in 0..arguments.repeats {
        for broker in Broker::ALL {
            let mut local = None;
            for (number, (way, brokers, postgres)) in WAYS.into_iter().enumerate() {
                let millis = Duration::from_millis;
                world.set_distance(Duration::ZERO, Duration::ZERO);
                let route = broker.route_of(&world, PARTITIONS).await?;
                world.set_distance(millis(brokers), millis(postgres));
                let variant = format!("{} {way}", broker.name());
                let at = ("W7", variant.as_str());

                let stream = format!("{}_{run}_{number}", broker.name());
                let to = (broker, route.as_str());
                let what = (arguments.relay.as_path(), arguments.messages);
                let drained = drain(&world, what, &database, &stream, to).await?;
                results.add(at, "onceward", ("rate", "msg/s"), drained.rate);
                let fraction = drained.rate / *local.get_or_insert(drained.rate);
                results.add(at, "onceward", ("fraction_of_no_delay", "ratio"), fraction);
                for (metric, unit, value) in &drained.figures {
                    results.add(at, "onceward", (metric, unit), *value);
                }
                broker.forget(&world, &route).await?;

                let figures = latency::one(&world, arguments, broker, RATE).await?;
                for (metric, unit, value) in figures {
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

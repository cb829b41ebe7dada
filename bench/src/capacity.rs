//! What a load takes, from the measured cost of each message. Pure: no clock, no I/O.
//!
//! Costs are CPU microseconds, so that they may be added up and carried to other machines with a grain of salt; what was not measured
//! stays unknown through all sums.

use std::collections::BTreeMap;

use clap::Args;

use crate::results::{Row, median};

/// A relay's connections to its database, as docs/operating.md has them: for each stream, and at most beside.
const CONNECTIONS_OF_STREAM: f64 = 2.0;
const CONNECTIONS_BESIDE: f64 = 3.0;

/// What is to be carried.
#[derive(Debug, Clone, Copy, PartialEq, Args)]
pub(crate) struct Load {
    /// Services, each with a relay beside it.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) services: f64,
    /// Messages a second that each service writes.
    #[arg(long, default_value_t = 1000.0)]
    pub(crate) rate: f64,
    /// Streams of each relay.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) streams: f64,
    /// Milliseconds that a handler of a consumer takes for a message.
    #[arg(long, default_value_t = 5.0)]
    pub(crate) handler_ms: f64,
    /// Partitions that the consumers of a group share.
    #[arg(long, default_value_t = 12)]
    pub(crate) partitions: u32,
}

/// CPU microseconds of a message.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Message {
    pub(crate) relay: Option<f64>,
    pub(crate) postgres: Option<f64>,
    pub(crate) broker: Option<f64>,
}

/// What a relay takes that has nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Idle {
    /// Cores.
    pub(crate) relay: Option<f64>,
    pub(crate) postgres: Option<f64>,
    pub(crate) statements: Option<f64>,
    pub(crate) connections: Option<f64>,
    /// Resident MiB of a relay at a steady thousand a second.
    pub(crate) memory: Option<f64>,
}

/// What each message takes at a steady rate; of PostgreSQL the writers' part is in it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Steady {
    /// Messages a second.
    pub(crate) rate: f64,
    pub(crate) message: Message,
}

/// What one broker was measured with.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct OfBroker {
    /// A backlog of transactions of one message.
    pub(crate) single: Message,
    /// A backlog of transactions of a thousand.
    pub(crate) bulk: Message,
    /// The steady rates that were measured, the lowest first.
    pub(crate) steady: Vec<Steady>,
    pub(crate) idle: Idle,
    /// Messages a second that one consumer handles: one by one, and in batches.
    pub(crate) one_by_one: Option<f64>,
    pub(crate) batches: Option<f64>,
}

/// All that is known.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Costs {
    pub(crate) kafka: OfBroker,
    pub(crate) nats: OfBroker,
    /// Transactions a second of eight clients: alone, and with a message.
    pub(crate) alone: Option<f64>,
    pub(crate) enqueued: Option<f64>,
    /// Bytes of write-ahead log of a transaction: alone, and with a message.
    pub(crate) wal_alone: Option<f64>,
    pub(crate) wal_enqueued: Option<f64>,
    /// Messages a second of one member on NATS, and of four, where the handler's time binds.
    pub(crate) one_member: Option<f64>,
    pub(crate) four_members: Option<f64>,
}

impl Costs {
    /// The costs in these results.
    pub(crate) fn of(rows: &[Row]) -> Self {
        let w3 = |contestant, metric| median(rows, ("W3", "8 clients"), contestant, metric);
        let spread = |contestant| median(rows, ("W4", "nats-spread"), contestant, "rate");
        Self {
            kafka: of_broker(rows, "kafka", "kafka-12p"),
            nats: of_broker(rows, "nats", "nats"),
            alone: w3("transaction-alone", "rate"),
            enqueued: w3("onceward", "rate"),
            wal_alone: w3("transaction-alone", "wal"),
            wal_enqueued: w3("onceward", "wal"),
            one_member: spread("one-member"),
            four_members: spread("onceward"),
        }
    }
}

fn of_broker(rows: &[Row], broker: &str, drained: &str) -> OfBroker {
    let message = |workload, variant: &str| {
        let cpu = |metric| median(rows, (workload, variant), "onceward", metric);
        Message {
            relay: cpu("cpu_us_relay"),
            postgres: cpu("cpu_us_postgres"),
            broker: cpu("cpu_us_broker"),
        }
    };
    let idle = |metric| median(rows, ("W6", broker), "onceward", metric);
    let of_core = |percent: f64| percent / 100.0;
    let thousand = format!("{broker}-1000");
    let handled = |variant: &str| median(rows, ("W4", variant), "onceward", "rate");
    OfBroker {
        single: message("W1", &format!("{drained} 1/tx")),
        bulk: message("W1", &format!("{drained} 1000/tx")),
        steady: steady_rates(rows, broker)
            .into_iter()
            .map(|(rate, variant)| Steady {
                rate,
                message: message("W2", variant),
            })
            .collect(),
        idle: Idle {
            relay: idle("cpu_relay").map(of_core),
            postgres: idle("cpu_postgres").map(of_core),
            statements: idle("statements"),
            connections: idle("connections"),
            memory: median(rows, ("W2", &thousand), "onceward", "rss_mib"),
        },
        one_by_one: handled(broker),
        batches: handled(&format!("{broker} batches")),
    }
}

/// The steady rates of W2 and their variants, the lowest first.
fn steady_rates<'a>(rows: &'a [Row], broker: &str) -> Vec<(f64, &'a str)> {
    let of_broker = rows.iter().filter(|row| row.workload == "W2");
    let rates = of_broker.filter_map(|row| {
        let rate = row.variant.strip_prefix(broker)?.strip_prefix('-')?;
        Some((rate.parse::<u32>().ok()?, row.variant.as_str()))
    });
    let rates: BTreeMap<u32, &str> = rates.collect();
    rates
        .into_iter()
        .map(|(rate, variant)| (rate.into(), variant))
        .collect()
}

/// The cores that one part takes at a steady rate: between two that were measured as on a line between them, below the lowest as much a message
/// as there. None beyond the highest.
pub(crate) fn steady_cores(
    of: &OfBroker,
    rate: f64,
    part: fn(&Message) -> Option<f64>,
) -> Option<f64> {
    let at = |steady: &Steady| Some((steady.rate, cores(steady.rate, part(&steady.message)?)));
    let mut below = (0.0, 0.0);
    for above in of.steady.iter().filter_map(at) {
        if rate <= above.0 {
            let share = (rate - below.0) / (above.0 - below.0);
            return Some(below.1 + share * (above.1 - below.1));
        }
        below = above;
    }
    None
}

/// How many of something one core carries in a second, if each takes so many microseconds of it.
pub(crate) fn of_one_core(microseconds: f64) -> Option<f64> {
    (microseconds > 0.0).then(|| 1e6 / microseconds)
}

/// The cores that so many a second take.
pub(crate) fn cores(rate: f64, microseconds: f64) -> f64 {
    rate * microseconds / 1e6
}

/// What relays beside their services take of all they touch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Fleet {
    /// Of all relays together.
    pub(crate) relays: Option<f64>,
    /// Of all databases together, the writers' part in it unless nothing is written.
    pub(crate) databases: Option<f64>,
    /// Of all brokers together, by what one takes while messages come: also what it would have taken without them, so that this is the most. None
    /// where none come: that was not measured.
    pub(crate) brokers: Option<f64>,
    /// To all databases together.
    pub(crate) connections: f64,
    /// Statements a second of the relays that have nothing to do.
    pub(crate) statements: Option<f64>,
    /// GiB of all relays together.
    pub(crate) memory: Option<f64>,
}

/// What idle relays take, and what the messages take at a steady rate on top of it.
pub(crate) fn fleet(broker: &OfBroker, load: &Load) -> Fleet {
    let Load {
        services,
        rate,
        streams,
        ..
    } = *load;
    let sum = |idle: Option<f64>, part| {
        let busy = if rate > 0.0 {
            steady_cores(broker, rate, part)?
        } else {
            0.0
        };
        Some(services * (idle? * streams + busy))
    };
    let idle = &broker.idle;
    Fleet {
        relays: sum(idle.relay, |message| message.relay),
        databases: sum(idle.postgres, |message| message.postgres),
        brokers: sum((rate > 0.0).then_some(0.0), |message| message.broker),
        connections: services * connections(streams),
        statements: idle.statements.map(|each| services * streams * each),
        memory: idle.memory.map(|each| services * each / 1024.0),
    }
}

/// A relay's connections to its database, at most.
pub(crate) fn connections(streams: f64) -> f64 {
    CONNECTIONS_OF_STREAM * streams + CONNECTIONS_BESIDE
}

/// What one member of a consumer group handles in a second: no more than it was measured to with a handler that does nothing, and no
/// more than its handlers can, of which so many run at a time.
pub(crate) fn member(measured: f64, handler_ms: f64, handlers: f64) -> f64 {
    if handler_ms > 0.0 {
        measured.min(handlers * 1000.0 / handler_ms)
    } else {
        measured
    }
}

/// The members that a rate needs.
pub(crate) fn members(rate: f64, of_one: f64) -> Option<f64> {
    (of_one > 0.0).then(|| (rate / of_one).ceil().max(1.0))
}

/// The bytes of write-ahead log that messages add in a second.
pub(crate) fn added_wal(rate: f64, costs: &Costs) -> Option<f64> {
    Some(rate * (costs.wal_enqueued? - costs.wal_alone?))
}

/// The part of a database that writes transactions with a message each, as a share of what the measured machine could.
pub(crate) fn share_of_writes(rate: f64, costs: &Costs) -> Option<f64> {
    let most = costs.enqueued?;
    (most > 0.0).then(|| rate / most)
}

#[cfg(test)]
#[path = "capacity_tests.rs"]
mod tests;

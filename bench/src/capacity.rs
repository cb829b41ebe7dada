//! What a load takes, from the measured cost of each message. Pure: no clock, no I/O.
//!
//! Costs are CPU microseconds, so that they may be added up and carried to other machines with a grain of salt; what was not measured
//! stays unknown through all sums.

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

/// What one broker was measured with.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct OfBroker {
    /// A backlog of transactions of one message.
    pub(crate) single: Message,
    /// A backlog of transactions of a thousand.
    pub(crate) bulk: Message,
    /// At the lowest steady rate that was measured; of PostgreSQL the writers' part is in it.
    pub(crate) trickle: Message,
    pub(crate) idle: Idle,
    /// Messages a second that one consumer handles: one by one, and in batches.
    pub(crate) one_by_one: Option<f64>,
    pub(crate) batches: Option<f64>,
}

/// All that is known.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Costs {
    pub(crate) kafka: OfBroker,
    pub(crate) nats: OfBroker,
    /// Transactions a second of eight clients: alone, and with a message.
    pub(crate) alone: Option<f64>,
    pub(crate) enqueued: Option<f64>,
    /// Bytes of write-ahead log of a transaction: alone, and with a message.
    pub(crate) wal_alone: Option<f64>,
    pub(crate) wal_enqueued: Option<f64>,
}

impl Costs {
    /// The costs in these results.
    pub(crate) fn of(rows: &[Row]) -> Self {
        let w3 = |contestant, metric| median(rows, ("W3", "8 clients"), contestant, metric);
        Self {
            kafka: of_broker(rows, "kafka", "kafka-12p"),
            nats: of_broker(rows, "nats", "nats"),
            alone: w3("transaction-alone", "rate"),
            enqueued: w3("onceward", "rate"),
            wal_alone: w3("transaction-alone", "wal"),
            wal_enqueued: w3("onceward", "wal"),
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
    let steady = format!("{broker}-1000");
    let handled = |variant: &str| median(rows, ("W4", variant), "onceward", "rate");
    OfBroker {
        single: message("W1", &format!("{drained} 1/tx")),
        bulk: message("W1", &format!("{drained} 1000/tx")),
        trickle: message("W2", &lowest_rate(rows, broker).unwrap_or_default()),
        idle: Idle {
            relay: idle("cpu_relay").map(of_core),
            postgres: idle("cpu_postgres").map(of_core),
            statements: idle("statements"),
            connections: idle("connections"),
            memory: median(rows, ("W2", &steady), "onceward", "rss_mib"),
        },
        one_by_one: handled(broker),
        batches: handled(&format!("{broker} batches")),
    }
}

/// The variant of W2 with the fewest messages a second.
fn lowest_rate(rows: &[Row], broker: &str) -> Option<String> {
    let of_broker = rows.iter().filter(|row| row.workload == "W2");
    let rates = of_broker.filter_map(|row| {
        let rate = row.variant.strip_prefix(broker)?.strip_prefix('-')?;
        Some((rate.parse::<u64>().ok()?, row.variant.clone()))
    });
    rates.min().map(|(_, variant)| variant)
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
    /// To all databases together.
    pub(crate) connections: f64,
    /// Statements a second of the relays that have nothing to do.
    pub(crate) statements: Option<f64>,
    /// GiB of all relays together.
    pub(crate) memory: Option<f64>,
}

/// An upper bound: what idle relays take, and what each message takes where few come at a time.
pub(crate) fn fleet(broker: &OfBroker, load: &Load) -> Fleet {
    let Load {
        services,
        rate,
        streams,
        ..
    } = *load;
    let sum = |idle: Option<f64>, message: Option<f64>| {
        let busy = if rate > 0.0 {
            cores(rate, message?)
        } else {
            0.0
        };
        Some(services * (idle? * streams + busy))
    };
    let idle = &broker.idle;
    Fleet {
        relays: sum(idle.relay, broker.trickle.relay),
        databases: sum(idle.postgres, broker.trickle.postgres),
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
mod tests {
    use super::*;

    const KNOWN: OfBroker = OfBroker {
        single: Message {
            relay: Some(10.0),
            postgres: Some(5.0),
            broker: Some(2.0),
        },
        bulk: Message {
            relay: None,
            postgres: None,
            broker: None,
        },
        trickle: Message {
            relay: Some(100.0),
            postgres: Some(300.0),
            broker: None,
        },
        idle: Idle {
            relay: Some(0.01),
            postgres: Some(0.02),
            statements: Some(40.0),
            connections: Some(4.0),
            memory: Some(16.0),
        },
        one_by_one: Some(2_000.0),
        batches: None,
    };

    const LOAD: Load = Load {
        services: 1_000.0,
        rate: 0.0,
        streams: 1.0,
        handler_ms: 5.0,
        partitions: 12,
    };

    fn near(found: Option<f64>, wanted: f64) -> bool {
        found.is_some_and(|found| (found - wanted).abs() < 1e-9)
    }

    #[test]
    fn what_one_core_carries_is_the_inverse_of_what_each_takes() {
        assert!(near(of_one_core(10.0), 100_000.0));
        assert_eq!(of_one_core(0.0), None);
    }

    #[test]
    fn a_fleet_with_nothing_to_do_takes_what_idle_relays_take() {
        let fleet = fleet(&KNOWN, &LOAD);

        assert!(near(fleet.relays, 10.0), "{fleet:?}");
        assert!(near(fleet.databases, 20.0), "{fleet:?}");
        assert!(near(fleet.statements, 40_000.0), "{fleet:?}");
        assert!(near(fleet.memory, 15.625), "{fleet:?}");
        assert!(near(Some(fleet.connections), 5_000.0), "{fleet:?}");
    }

    #[test]
    fn messages_come_on_top_of_idling() {
        let fleet = fleet(
            &KNOWN,
            &Load {
                rate: 100.0,
                ..LOAD
            },
        );

        assert!(near(fleet.relays, 20.0), "{fleet:?}");
        assert!(near(fleet.databases, 50.0), "{fleet:?}");
    }

    #[test]
    fn what_was_not_measured_stays_unknown() {
        let unknown = fleet(&OfBroker::default(), &LOAD);

        assert_eq!((unknown.relays, unknown.memory), (None, None));
        assert_eq!(share_of_writes(10.0, &Costs::default()), None);
    }

    #[test]
    fn a_member_is_bound_by_its_handlers_or_by_what_it_was_measured_to_do() {
        let close = |found: f64, wanted: f64| (found - wanted).abs() < 1e-9;

        assert!(close(member(2_000.0, 0.0, 16.0), 2_000.0));
        assert!(close(member(2_000.0, 1.0, 16.0), 2_000.0));
        assert!(close(member(2_000.0, 100.0, 16.0), 160.0));
    }

    #[test]
    fn members_are_whole_and_at_least_one() {
        assert!(near(members(1.0, 160.0), 1.0));
        assert!(near(members(1_000.0, 160.0), 7.0));
        assert_eq!(members(1.0, 0.0), None);
    }

    #[test]
    fn the_lowest_steady_rate_is_the_one_with_the_least_number() {
        let row = |variant: &str| Row {
            workload: "W2".to_owned(),
            variant: variant.to_owned(),
            contestant: "onceward".to_owned(),
            metric: "cpu_us_relay".to_owned(),
            unit: "us/msg".to_owned(),
            min: 1.0,
            median: 7.0,
            max: 9.0,
            runs: 3,
        };
        let rows = [row("kafka-5000"), row("kafka-100"), row("nats-1")];

        assert_eq!(lowest_rate(&rows, "kafka").as_deref(), Some("kafka-100"));
        assert_eq!(Costs::of(&rows).kafka.trickle.relay, Some(7.0));
    }
}

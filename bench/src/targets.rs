//! What Onceward wants of itself, beside what was measured. Pure.

mod figures;

use std::fmt;

use self::Bound::{AtLeast, AtMost};
use self::figures::{
    DRAIN_BESIDE_PEERS, LATENCY_BESIDE_PEERS, MB_OF_MIB, fastest_peer, is_one_stream, least,
    least_of_peers, least_ratio, most, most_cpu_of_bare, most_memory_of_bare, of_direct,
    of_one_a_key, ratio,
};
use crate::results::{OURS, Row, median};

/// What is wanted of a figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    /// Whether a figure is within it. One that is no number is not.
    fn holds(self, figure: f64) -> bool {
        match self {
            Self::AtLeast(least) => figure >= least,
            Self::AtMost(most) => figure <= most,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, "at least {least}"),
            Self::AtMost(most) => write!(f, "at most {most}"),
        }
    }
}

/// What a target came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Verdict {
    Reached(f64),
    Missed(f64),
    NotMeasured,
}

/// One thing that is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub(crate) workload: &'static str,
    pub(crate) what: &'static str,
    pub(crate) bound: Bound,
    measured: fn(&[Row]) -> Option<f64>,
}

impl Target {
    /// What it came to, by the medians: of several variants the worst one.
    pub(crate) fn verdict(&self, rows: &[Row]) -> Verdict {
        match (self.measured)(rows) {
            Some(figure) if self.bound.holds(figure) => Verdict::Reached(figure),
            Some(figure) => Verdict::Missed(figure),
            None => Verdict::NotMeasured,
        }
    }
}

const fn target(
    workload: &'static str,
    what: &'static str,
    bound: Bound,
    measured: fn(&[Row]) -> Option<f64>,
) -> Target {
    Target {
        workload,
        what,
        bound,
        measured,
    }
}

/// All that is wanted, in the order of the workloads.
pub(crate) const TARGETS: [Target; 35] = [
    target(
        "W1",
        "Kafka: warm rate ÷ that of the fastest peer",
        AtLeast(3.0),
        |rows| {
            let (_, peer) = fastest_peer(rows)?;
            Some(median(rows, DRAIN_BESIDE_PEERS, OURS, "rate_warm")? / peer)
        },
    ),
    target(
        "W1",
        "Kafka: warm CPU of the relay for a message ÷ that of the fastest peer",
        AtMost(0.25),
        |rows| {
            let (peer, _) = fastest_peer(rows)?;
            ratio(rows, DRAIN_BESIDE_PEERS, peer, "cpu_us_relay_warm")
        },
    ),
    target(
        "W1",
        "Kafka: share of the combined ceiling",
        AtLeast(0.6),
        |rows| least(rows, "W1", "kafka", "fraction_of_ceiling"),
    ),
    target(
        "W1",
        "JetStream: share of the combined ceiling",
        AtLeast(0.7),
        |rows| least(rows, "W1", "nats", "fraction_of_ceiling"),
    ),
    target("W1", "memory of the relay, MB", AtMost(64.0), |rows| {
        Some(most(rows, "W1", "", "rss_mib")? * MB_OF_MIB)
    }),
    target(
        "W2",
        "Kafka at 1,000/s: 99 of 100 within, ms",
        AtMost(2.0),
        |rows| median(rows, ("W2", "kafka-1000"), OURS, "p99_ms"),
    ),
    target(
        "W2",
        "JetStream at 1,000/s: 99 of 100 within, ms",
        AtMost(2.0),
        |rows| median(rows, ("W2", "nats-1000"), OURS, "p99_ms"),
    ),
    target(
        "W2",
        "Kafka at 1,000/s: 99 of 100 ÷ those of the best measured peer",
        AtMost(1.0),
        |rows| {
            let ours = median(rows, LATENCY_BESIDE_PEERS, OURS, "p99_ms")?;
            Some(
                ours / least_of_peers(rows, |peer| {
                    median(rows, LATENCY_BESIDE_PEERS, peer, "p99_ms")
                })?,
            )
        },
    ),
    target(
        "W2",
        "Kafka at 1,000/s: CPU of relay and PostgreSQL ÷ that of the best measured peer",
        AtMost(1.0),
        |rows| {
            let cpu = |contestant: &str| {
                let of = |metric| median(rows, LATENCY_BESIDE_PEERS, contestant, metric);
                Some(of("cpu_us_relay")? + of("cpu_us_postgres")?)
            };
            Some(cpu(OURS)? / least_of_peers(rows, cpu)?)
        },
    ),
    target(
        "W2",
        "Kafka at 5,000/s: 99 of 100 within, ms",
        AtMost(5.0),
        |rows| median(rows, ("W2", "kafka-5000"), OURS, "p99_ms"),
    ),
    target(
        "W2",
        "JetStream at 5,000/s: 99 of 100 within, ms",
        AtMost(5.0),
        |rows| median(rows, ("W2", "nats-5000"), OURS, "p99_ms"),
    ),
    target(
        "W3",
        "rate with a message ÷ that with an ordinary outbox row, 1 to 16 clients",
        AtLeast(1.0),
        |rows| {
            let clients = ["1 clients", "8 clients", "16 clients"];
            least_ratio(rows, "W3", &clients, ("ordinary-outbox-row", "rate"))
        },
    ),
    target(
        "W3",
        "write-ahead log with a message ÷ that with an ordinary outbox row, a checkpoint and the removal included",
        AtMost(1.0),
        |rows| {
            ratio(
                rows,
                ("W3", "8 clients"),
                "ordinary-outbox-row",
                "wal_period",
            )
        },
    ),
    target(
        "W4",
        "Kafka in batches, messages/s",
        AtLeast(30_000.0),
        |rows| median(rows, ("W4", "kafka batches"), OURS, "rate"),
    ),
    target(
        "W4",
        "Kafka in batches ÷ the bare client that stores ids",
        AtLeast(0.5),
        |rows| ratio(rows, ("W4", "kafka batches"), "raw-client-stores", "rate"),
    ),
    target(
        "W4",
        "Kafka in batches ÷ one by one",
        AtLeast(5.0),
        |rows| ratio(rows, ("W4", "kafka batches"), "one-by-one", "rate"),
    ),
    target(
        "W4",
        "beside 100,000 waiting retries ÷ without",
        AtLeast(0.9),
        |rows| {
            least_ratio(
                rows,
                "W4",
                &["kafka retries", "kafka batches retries"],
                ("without", "rate"),
            )
        },
    ),
    target("W4", "SQS: sending ÷ the bare SDK", AtLeast(0.9), |rows| {
        ratio(rows, ("W4", "sqs-send"), "raw-client", "rate")
    }),
    target(
        "W4",
        "SQS: handling ÷ the bare SDK's receiving and deleting",
        AtLeast(0.5),
        |rows| least_ratio(rows, "W4", &["sqs", "sqs batches"], ("raw-client", "rate")),
    ),
    target(
        "W4",
        "NATS: four members of one at a time ÷ one, handlers of 2 ms",
        AtLeast(3.0),
        |rows| ratio(rows, ("W4", "nats-spread"), "one-member", "rate"),
    ),
    target(
        "W5",
        "rate ÷ the bare run's, everywhere",
        AtLeast(0.85),
        |rows| least(rows, "W5", "", "fraction_of_bare"),
    ),
    target(
        "W5",
        "99 of 100 ÷ those of the bare run, everywhere",
        AtMost(2.0),
        |rows| most(rows, "W5", "", "p99_of_bare"),
    ),
    target(
        "W5",
        "memory of the relay ÷ the bare run's, one stream",
        AtMost(1.15),
        |rows| most_memory_of_bare(rows, is_one_stream),
    ),
    target(
        "W5",
        "memory of the relay ÷ the bare run's, three and ten streams",
        AtMost(1.15),
        |rows| most_memory_of_bare(rows, |variant| !is_one_stream(variant)),
    ),
    target(
        "W5",
        "CPU of relay and PostgreSQL for a message ÷ the bare run's, one stream",
        AtMost(1.15),
        |rows| most_cpu_of_bare(rows, is_one_stream),
    ),
    target(
        "W5",
        "CPU of relay and PostgreSQL for a message ÷ the bare run's, three and ten streams",
        AtMost(1.15),
        |rows| most_cpu_of_bare(rows, |variant| !is_one_stream(variant)),
    ),
    target(
        "W6",
        "CPU of the idle relay, % of a core",
        AtMost(1.0),
        |rows| most(rows, "W6", "", "cpu_relay"),
    ),
    target("W6", "statements a second", AtMost(60.0), |rows| {
        most(rows, "W6", "", "statements")
    }),
    target(
        "W6",
        "99 of 100 messages after a pause within, ms",
        AtMost(25.0),
        |rows| most(rows, "W6", "", "first_p99_ms"),
    ),
    target(
        "W7",
        "Kafka 1 ms away, each way: rate ÷ that without a proxy",
        AtLeast(0.8),
        |rows| of_direct(rows, "kafka broker 1 ms"),
    ),
    target(
        "W7",
        "Kafka 5 ms away: rate ÷ that without a proxy",
        AtLeast(0.6),
        |rows| of_direct(rows, "kafka broker 5 ms"),
    ),
    target(
        "W7",
        "JetStream 1 ms away: rate ÷ the lesser of that without a proxy and keys ÷ round trip",
        AtLeast(0.6),
        |rows| of_one_a_key(rows, "nats broker 1 ms", 2.0),
    ),
    target(
        "W7",
        "JetStream 5 ms away: rate ÷ the lesser of that without a proxy and keys ÷ round trip",
        AtLeast(0.6),
        |rows| of_one_a_key(rows, "nats broker 5 ms", 10.0),
    ),
    target(
        "W7",
        "PostgreSQL 1 ms away: rate to Kafka ÷ that without a proxy",
        AtLeast(0.8),
        |rows| of_direct(rows, "kafka postgres 1 ms"),
    ),
    target(
        "W7",
        "PostgreSQL 1 ms away: rate to JetStream ÷ that without a proxy",
        AtLeast(0.6),
        |rows| of_direct(rows, "nats postgres 1 ms"),
    ),
];

#[cfg(test)]
mod tests;

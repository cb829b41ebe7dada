//! What Onceward wants of itself, beside what was measured. Pure.

use std::fmt;

use self::Bound::{AtLeast, AtMost};
use crate::backlog::KEYS;
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
pub(crate) const TARGETS: [Target; 33] = [
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
        |rows| most_memory_of_bare(rows, |variant| !variant.ends_with("streams")),
    ),
    target(
        "W5",
        "memory of the relay ÷ the bare run's, three and ten streams",
        AtMost(1.15),
        |rows| most_memory_of_bare(rows, |variant| variant.ends_with("streams")),
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
        "Kafka 1 ms away, each way: rate ÷ without a delay",
        AtLeast(0.8),
        |rows| of_no_delay(rows, "kafka broker 1 ms"),
    ),
    target(
        "W7",
        "Kafka 5 ms away: rate ÷ without a delay",
        AtLeast(0.6),
        |rows| of_no_delay(rows, "kafka broker 5 ms"),
    ),
    target(
        "W7",
        "JetStream 1 ms away: rate ÷ the lesser of that without a delay and keys ÷ round trip",
        AtLeast(0.6),
        |rows| of_one_a_key(rows, "nats broker 1 ms", 2.0),
    ),
    target(
        "W7",
        "JetStream 5 ms away: rate ÷ the lesser of that without a delay and keys ÷ round trip",
        AtLeast(0.6),
        |rows| of_one_a_key(rows, "nats broker 5 ms", 10.0),
    ),
    target(
        "W7",
        "PostgreSQL 1 ms away: rate to Kafka ÷ without a delay",
        AtLeast(0.8),
        |rows| of_no_delay(rows, "kafka postgres 1 ms"),
    ),
    target(
        "W7",
        "PostgreSQL 1 ms away: rate to JetStream ÷ without a delay",
        AtLeast(0.6),
        |rows| of_no_delay(rows, "nats postgres 1 ms"),
    ),
];

/// A mebibyte in megabytes.
const MB_OF_MIB: f64 = 1.048_576;

const DRAIN_BESIDE_PEERS: (&str, &str) = ("W1", "kafka-4p 1/tx");
const LATENCY_BESIDE_PEERS: (&str, &str) = ("W2", "kafka-1000 beside peers");

/// Our median by that of another contestant.
fn ratio(rows: &[Row], at: (&str, &str), other: &str, metric: &str) -> Option<f64> {
    let other = median(rows, at, other, metric).filter(|other| *other > 0.0)?;
    Some(median(rows, at, OURS, metric)? / other)
}

/// The least of that ratio in these variants.
fn least_ratio(
    rows: &[Row],
    workload: &str,
    variants: &[&str],
    (other, metric): (&str, &str),
) -> Option<f64> {
    let ratios = variants
        .iter()
        .filter_map(|variant| ratio(rows, (workload, variant), other, metric));
    ratios.reduce(f64::min)
}

/// The peer that is the fastest once it is warm, and its rate.
fn fastest_peer(rows: &[Row]) -> Option<(&str, f64)> {
    let rates = rows.iter().filter(|row| {
        (row.workload.as_str(), row.variant.as_str()) == DRAIN_BESIDE_PEERS
            && row.contestant != OURS
            && row.metric == "rate_warm"
    });
    let rates = rates.map(|row| (row.contestant.as_str(), row.median));
    rates.max_by(|one, other| one.1.total_cmp(&other.1))
}

/// The least of what a figure of the latency comes to for each peer.
fn least_of_peers(rows: &[Row], figure: impl Fn(&str) -> Option<f64>) -> Option<f64> {
    let peers = rows.iter().filter(|row| {
        (row.workload.as_str(), row.variant.as_str()) == LATENCY_BESIDE_PEERS
            && row.contestant != OURS
    });
    let figures = peers.filter_map(|row| figure(&row.contestant));
    figures.reduce(f64::min)
}

/// What is left of the rate without a delay.
fn of_no_delay(rows: &[Row], variant: &str) -> Option<f64> {
    median(rows, ("W7", variant), OURS, "fraction_of_no_delay")
}

/// The rate by the lesser of that without a delay, and of one message a round trip of so many milliseconds for each key: that is how
/// JetStream is published to.
fn of_one_a_key(rows: &[Row], variant: &str, round_trip_ms: f64) -> Option<f64> {
    let rate = |variant| median(rows, ("W7", variant), OURS, "rate");
    #[expect(clippy::cast_precision_loss, reason = "there are a thousand keys")]
    let by_keys = KEYS as f64 * 1000.0 / round_trip_ms;
    Some(rate(variant)? / rate("nats no delay")?.min(by_keys))
}

/// The most that the relay's memory comes to in W5, by that of the bare run, in the variants that are meant.
fn most_memory_of_bare(rows: &[Row], is_meant: fn(&str) -> bool) -> Option<f64> {
    let ours = rows.iter().filter(|row| {
        row.workload == "W5"
            && row.contestant == OURS
            && row.metric == "rss_mib"
            && is_meant(&row.variant)
    });
    let ratios = ours.filter_map(|row| ratio(rows, ("W5", &row.variant), "bare-run", "rss_mib"));
    ratios.reduce(f64::max)
}

/// Our least median in the variants of a workload that begin so.
fn least(rows: &[Row], workload: &str, prefix: &str, metric: &str) -> Option<f64> {
    ours(rows, workload, prefix, metric).reduce(f64::min)
}

/// Our greatest one.
fn most(rows: &[Row], workload: &str, prefix: &str, metric: &str) -> Option<f64> {
    ours(rows, workload, prefix, metric).reduce(f64::max)
}

fn ours(rows: &[Row], workload: &str, prefix: &str, metric: &str) -> impl Iterator<Item = f64> {
    let wanted = move |row: &&Row| {
        row.workload == workload
            && row.variant.starts_with(prefix)
            && row.contestant == OURS
            && row.metric == metric
    };
    rows.iter().filter(wanted).map(|row| row.median)
}

#[cfg(test)]
#[path = "targets_tests.rs"]
mod tests;

//! What Onceward wants of itself, beside what was measured. Pure.

use std::fmt;

use self::Bound::{AtLeast, AtMost};
use crate::results::{Row, median};

const OURS: &str = "onceward";

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
pub(crate) const TARGETS: [Target; 29] = [
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
    target("W1", "memory of the relay, MiB", AtMost(64.0), |rows| {
        most(rows, "W1", "", "rss_mib")
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
        "Kafka at 1,000/s: 99 of 100 ÷ those of the best peer",
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
        "Kafka at 1,000/s: CPU of relay and PostgreSQL ÷ that of the best peer",
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
        |rows| {
            median(
                rows,
                ("W7", "kafka broker 1 ms"),
                OURS,
                "fraction_of_no_delay",
            )
        },
    ),
    target(
        "W7",
        "Kafka 5 ms away: rate ÷ without a delay",
        AtLeast(0.6),
        |rows| {
            median(
                rows,
                ("W7", "kafka broker 5 ms"),
                OURS,
                "fraction_of_no_delay",
            )
        },
    ),
    target(
        "W7",
        "JetStream 1 ms away: rate ÷ without a delay",
        AtLeast(0.6),
        |rows| {
            median(
                rows,
                ("W7", "nats broker 1 ms"),
                OURS,
                "fraction_of_no_delay",
            )
        },
    ),
    target(
        "W7",
        "PostgreSQL 1 ms away: rate to Kafka ÷ without a delay",
        AtLeast(0.8),
        |rows| {
            median(
                rows,
                ("W7", "kafka postgres 1 ms"),
                OURS,
                "fraction_of_no_delay",
            )
        },
    ),
];

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
mod tests {
    use super::*;

    fn row((workload, variant): (&str, &str), contestant: &str, metric: &str, median: f64) -> Row {
        Row {
            workload: workload.to_owned(),
            variant: variant.to_owned(),
            contestant: contestant.to_owned(),
            metric: metric.to_owned(),
            unit: String::new(),
            min: 0.0,
            median,
            max: 0.0,
            runs: 1,
        }
    }

    fn measured(what: &str, rows: &[Row]) -> Option<f64> {
        let target = TARGETS.iter().find(|target| target.what == what).unwrap();
        (target.measured)(rows)
    }

    #[test]
    fn nothing_measured_is_nothing_reached() {
        assert!(
            TARGETS
                .iter()
                .all(|target| target.verdict(&[]) == Verdict::NotMeasured)
        );
    }

    #[test]
    fn the_fastest_peer_is_the_one_that_counts() {
        let rows = [
            row(DRAIN_BESIDE_PEERS, OURS, "rate_warm", 80.0),
            row(DRAIN_BESIDE_PEERS, "slow", "rate_warm", 2.0),
            row(DRAIN_BESIDE_PEERS, "fast", "rate_warm", 20.0),
            row(DRAIN_BESIDE_PEERS, OURS, "cpu_us_relay_warm", 3.0),
            row(DRAIN_BESIDE_PEERS, "slow", "cpu_us_relay_warm", 1.0),
            row(DRAIN_BESIDE_PEERS, "fast", "cpu_us_relay_warm", 12.0),
        ];

        let rate = measured("Kafka: warm rate ÷ that of the fastest peer", &rows);
        let cpu = measured(
            "Kafka: warm CPU of the relay for a message ÷ that of the fastest peer",
            &rows,
        );

        assert_eq!((rate, cpu), (Some(4.0), Some(0.25)));
    }

    #[test]
    fn of_several_variants_the_worst_one_counts() {
        let rows = [
            row(("W5", "a"), OURS, "fraction_of_bare", 0.9),
            row(("W5", "b"), OURS, "fraction_of_bare", 0.3),
            row(("W5", "b"), "bare-run", "fraction_of_bare", 0.1),
        ];

        assert_eq!(
            measured("rate ÷ the bare run's, everywhere", &rows),
            Some(0.3)
        );
    }

    #[test]
    fn a_peer_with_half_of_its_figures_is_not_compared() {
        let cpu = "Kafka at 1,000/s: CPU of relay and PostgreSQL ÷ that of the best peer";
        let mut rows = vec![
            row(LATENCY_BESIDE_PEERS, OURS, "cpu_us_relay", 100.0),
            row(LATENCY_BESIDE_PEERS, OURS, "cpu_us_postgres", 300.0),
            row(LATENCY_BESIDE_PEERS, "peer", "cpu_us_relay", 100.0),
        ];
        assert_eq!(measured(cpu, &rows), None);

        rows.push(row(LATENCY_BESIDE_PEERS, "peer", "cpu_us_postgres", 100.0));

        assert_eq!(measured(cpu, &rows), Some(2.0));
    }

    #[test]
    fn a_bound_is_itself_well() {
        assert!(AtLeast(3.0).holds(3.0) && AtMost(3.0).holds(3.0));
        assert!(!AtLeast(3.0).holds(2.9) && !AtMost(3.0).holds(3.1));
        assert!(!AtLeast(3.0).holds(f64::NAN));
    }
}

//! What the targets look at, from the rows of the results. Pure.

use crate::backlog::KEYS;
use crate::results::{OURS, Row, median};

/// A mebibyte in megabytes.
pub(super) const MB_OF_MIB: f64 = 1.048_576;

pub(super) const DRAIN_BESIDE_PEERS: (&str, &str) = ("W1", "kafka-4p 1/tx");
pub(super) const LATENCY_BESIDE_PEERS: (&str, &str) = ("W2", "kafka-1000 beside peers");

/// Our median by that of another contestant.
pub(super) fn ratio(rows: &[Row], at: (&str, &str), other: &str, metric: &str) -> Option<f64> {
    let other = median(rows, at, other, metric).filter(|other| *other > 0.0)?;
    Some(median(rows, at, OURS, metric)? / other)
}

/// The least of that ratio in these variants.
pub(super) fn least_ratio(
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
pub(super) fn fastest_peer(rows: &[Row]) -> Option<(&str, f64)> {
    let rates = rows.iter().filter(|row| {
        (row.workload.as_str(), row.variant.as_str()) == DRAIN_BESIDE_PEERS
            && row.contestant != OURS
            && row.metric == "rate_warm"
    });
    let rates = rates.map(|row| (row.contestant.as_str(), row.median));
    rates.max_by(|one, other| one.1.total_cmp(&other.1))
}

/// The least of what a figure of the latency comes to for each peer.
pub(super) fn least_of_peers(rows: &[Row], figure: impl Fn(&str) -> Option<f64>) -> Option<f64> {
    let peers = rows.iter().filter(|row| {
        (row.workload.as_str(), row.variant.as_str()) == LATENCY_BESIDE_PEERS
            && row.contestant != OURS
    });
    let figures = peers.filter_map(|row| figure(&row.contestant));
    figures.reduce(f64::min)
}

/// What is left of the rate without a proxy.
pub(super) fn of_direct(rows: &[Row], variant: &str) -> Option<f64> {
    median(rows, ("W7", variant), OURS, "fraction_of_direct")
}

/// The rate by the lesser of that without a proxy, and of one message a round trip of so many milliseconds for each key: that is how
/// JetStream is published to.
pub(super) fn of_one_a_key(rows: &[Row], variant: &str, round_trip_ms: f64) -> Option<f64> {
    let rate = |variant| median(rows, ("W7", variant), OURS, "rate");
    #[expect(clippy::cast_precision_loss, reason = "there are a thousand keys")]
    let by_keys = KEYS as f64 * 1000.0 / round_trip_ms;
    Some(rate(variant)? / rate("nats direct")?.min(by_keys))
}

/// Whether a variant of W5 has a single stream.
pub(super) fn is_one_stream(variant: &str) -> bool {
    !variant.ends_with("streams")
}

/// The most that the relay's memory comes to in W5, by that of the bare run, in the variants that are meant.
pub(super) fn most_memory_of_bare(rows: &[Row], is_meant: fn(&str) -> bool) -> Option<f64> {
    most_of_bare(rows, is_meant, |variant, contestant| {
        median(rows, ("W5", variant), contestant, "rss_mib")
    })
}

/// The same of a message's CPU, of the relay and PostgreSQL together.
pub(super) fn most_cpu_of_bare(rows: &[Row], is_meant: fn(&str) -> bool) -> Option<f64> {
    most_of_bare(rows, is_meant, |variant, contestant| {
        let of = |metric| median(rows, ("W5", variant), contestant, metric);
        Some(of("cpu_us_relay")? + of("cpu_us_postgres")?)
    })
}

fn most_of_bare(
    rows: &[Row],
    is_meant: fn(&str) -> bool,
    figure: impl Fn(&str, &str) -> Option<f64>,
) -> Option<f64> {
    let ours = rows.iter().filter(|row| {
        row.workload == "W5"
            && row.contestant == OURS
            && row.metric == "rate"
            && is_meant(&row.variant)
    });
    let ratios = ours.filter_map(|row| {
        let bare = figure(&row.variant, "bare-run")?;
        Some(figure(&row.variant, OURS)? / bare)
    });
    ratios.reduce(f64::max)
}

/// Our least median in the variants of a workload that begin so.
pub(super) fn least(rows: &[Row], workload: &str, prefix: &str, metric: &str) -> Option<f64> {
    ours(rows, workload, prefix, metric).reduce(f64::min)
}

/// Our greatest one.
pub(super) fn most(rows: &[Row], workload: &str, prefix: &str, metric: &str) -> Option<f64> {
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

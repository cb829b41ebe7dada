//! What counts for a target.

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
    let cpu = "Kafka at 1,000/s: CPU of relay and PostgreSQL ÷ that of the best measured peer";
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
fn a_figure_that_equals_its_bound_is_within_it_and_one_that_is_no_number_is_not() {
    assert!(AtLeast(3.0).holds(3.0) && AtMost(3.0).holds(3.0));
    assert!(!AtLeast(3.0).holds(2.9) && !AtMost(3.0).holds(3.1));
    assert!(!AtLeast(3.0).holds(f64::NAN));
}

#[test]
fn jetstream_at_a_distance_is_held_to_one_message_a_round_trip_for_each_key() {
    let rows = [
        row(("W7", "nats direct"), OURS, "rate", 400_000.0),
        row(("W7", "nats broker 1 ms"), OURS, "rate", 300_000.0),
        row(("W7", "nats broker 5 ms"), OURS, "rate", 80_000.0),
    ];

    let of = |millis| {
        let what = "ms away: rate ÷ the lesser of that without a proxy and keys ÷ round trip";
        measured(&format!("JetStream {millis} {what}"), &rows)
    };

    assert_eq!((of(1), of(5)), (Some(0.75), Some(0.8)));
}

fn of_streams(variant: &str, ours: (&str, f64), bare: (&str, f64)) -> Vec<Row> {
    vec![
        row(("W5", variant), OURS, "rate", 1.0),
        row(("W5", variant), OURS, ours.0, ours.1),
        row(("W5", variant), "bare-run", bare.0, bare.1),
    ]
}

#[test]
fn memory_of_several_streams_is_told_apart() {
    let memory = |mib| ("rss_mib", mib);
    let mut rows = of_streams("10m retained", memory(55.0), memory(50.0));
    rows.extend(of_streams("10 streams", memory(75.0), memory(50.0)));

    let one = measured("memory of the relay ÷ the bare run's, one stream", &rows);
    let several = measured(
        "memory of the relay ÷ the bare run's, three and ten streams",
        &rows,
    );

    assert_eq!((one, several), (Some(1.1), Some(1.5)));
}

#[test]
fn cpu_beside_the_bare_run_is_that_of_relay_and_postgresql_together() {
    let mut rows = of_streams("10m retained", ("cpu_us_relay", 6.0), ("cpu_us_relay", 5.0));
    rows.extend(of_streams(
        "10m retained",
        ("cpu_us_postgres", 4.0),
        ("cpu_us_postgres", 3.0),
    ));

    let cpu = measured(
        "CPU of relay and PostgreSQL for a message ÷ the bare run's, one stream",
        &rows,
    );

    assert_eq!(cpu, Some(1.25));
}

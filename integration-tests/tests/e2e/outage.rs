//! A destination that is down for long costs nothing but time.

use std::time::Duration;

use onceward_testkit::ledger::Workload;
use onceward_testkit::nats::{Nats, Options};
use onceward_testkit::postgres::Postgres;

use crate::stage::{Changes, Stage, WINDOW};

/// How long the destination is down: not a wait for anything.
const DOWN: Duration = Duration::from_secs(20);
/// How much more memory an outage may cost: far less than what is written meanwhile.
const MORE_MEMORY: u64 = 24 << 20;
/// How long it may keep a processor busy: a loop without a wait would take all of the time.
const MOST_BUSY: Duration = Duration::from_secs(5);
/// How many lines a relay may log in that time.
const LINES: usize = 40;

#[tokio::test]
async fn a_destination_that_is_down_for_long_costs_nothing_but_time() {
    let nats = Nats::start(Options::default()).await;
    let stage = Stage::nats(Postgres::shared().await, &nats).await;
    let mut stage = stage.ttl("30s");
    let relay = stage.relay(&Changes::default());
    let writers = stage.write(Workload {
        messages: u64::MAX,
        per_second: Some(300),
        payload: 8_000..=12_000,
        ..stage.workload()
    });
    stage.wait_until_published(300).await;
    let (memory, lines) = (relay.resident(), relay.log().lines().count());
    let busy = relay.busy();

    nats.kill();
    tokio::time::sleep(DOWN).await;

    let (memory, lines) = (
        relay.resident().saturating_sub(memory),
        relay.log().lines().count() - lines,
    );
    let busy = relay.busy() - busy;
    eprintln!(
        "an outage of {DOWN:?} cost {memory} bytes, {lines} lines and {busy:?} of a processor"
    );
    assert!(busy < MOST_BUSY, "{busy:?}");
    assert!(memory < MORE_MEMORY, "{memory} bytes more");
    assert!(lines <= LINES, "{lines} lines:\n{}", relay.log());
    assert_eq!(stage.parked().await, 0);
    nats.start_again().await;
    let before = stage.published().await;
    stage.wait_until_published(before + 1_000).await;
    writers.stop().await;
    stage.ledger.allow_duplicates(WINDOW, 1);
    let verdict = stage.must_be_green(&[&relay]).await;
    assert_eq!(verdict.claims, 1, "{verdict}");
    assert_eq!(stage.parked().await, 0);
}

//! SIGKILL of relays and of consumers at random moments under load.

use std::time::Duration;

use fastrand::Rng;
use onceward_testkit::kafka::{self, Kafka};
use onceward_testkit::ledger::Workload;
use onceward_testkit::nats::Nats;
use onceward_testkit::postgres::Postgres;
use onceward_testkit::wait;

use crate::program::Program;
use crate::stage::{Changes, SOON, Stage, WINDOW};

/// How often each is killed.
pub(crate) fn cycles() -> u32 {
    let given = std::env::var("ONCEWARD_KILL_CYCLES").ok();
    given.map_or(30, |given| given.parse().unwrap())
}

/// Where the random moments come from, told so that a run can be repeated.
pub(crate) fn moments(of: &str) -> Rng {
    let given = std::env::var("ONCEWARD_KILL_SEED").ok();
    let seed = given.map_or_else(|| fastrand::u64(..), |given| given.parse().unwrap());
    eprintln!("{of}: ONCEWARD_KILL_SEED={seed}");
    Rng::with_seed(seed)
}

/// A random moment of the run: not a wait for anything.
pub(crate) async fn moment(rng: &mut Rng) {
    tokio::time::sleep(Duration::from_millis(rng.u64(0..400))).await;
}

/// When whoever holds the lease is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// Three times of four while it publishes, else soon after the claim.
    AnyTime,
    /// While it publishes.
    AtWork,
}

/// Kills whichever of two relays holds the lease, again and again; the other takes over. Returns both.
pub(crate) async fn kill_relays(
    stage: &Stage,
    (cycles, when): (u32, When),
    changes: &Changes,
) -> [Program; 2] {
    let mut rng = moments(&format!("kills of relays of {}", stage.name));
    let start = || stage.relay(changes);
    let mut relays = [start(), start()];
    for _ in 0..cycles {
        let [one, other] = &relays;
        let holder = stage.wait_for_holder(&[one, other]).await.pid();
        if when == When::AtWork || rng.u32(0..4) > 0 {
            let before = stage.published().await;
            stage.wait_until_published(before + 1).await;
        }
        moment(&mut rng).await;
        let victim = usize::from(other.pid() == holder);
        relays[victim].kill();
        relays[victim] = start();
    }
    relays
}

/// What three members die with while it is handled alone is given up on, rightly. So before a kill what a member has died with is waited for: a
/// start between the look and the kill may make it the second one, and then it is waited for.
pub(crate) async fn wait_until_nobody_dies_again(stage: &Stage) {
    let nobody = || async { !stage.has_killed_alone().await };
    wait::until_true(SOON, "an end of what a member died with", nobody).await;
}

/// Kills a consumer that handles, again and again; the other takes over. Returns both.
pub(crate) async fn kill_consumers(stage: &Stage, cycles: u32, changes: &Changes) -> [Program; 2] {
    let mut rng = moments("kills of consumers");
    let mut members = [stage.consumer(changes), stage.consumer(changes)];
    let mut last = usize::MAX;
    for _ in 0..cycles {
        // Whoever has handled something since it was started; of two, the one that was not killed last.
        let at_work = || async {
            let works = |n: &usize| members[*n].handles();
            let others = [0, 1].into_iter().filter(|n| *n != last);
            others.chain((last < 2).then_some(last)).find(works)
        };
        let victim = wait::until(SOON, "a consumer to handle something", at_work).await;
        let before = stage.handled().await;
        stage.wait_until_handled(before + 1).await;
        moment(&mut rng).await;
        wait_until_nobody_dies_again(stage).await;
        members[victim].kill();
        members[victim] = stage.consumer(changes);
        last = victim;
    }
    members
}

/// Kills relays and consumers side by side. Returns the stage as it was left, with the ledger green.
pub(crate) async fn kill_both(mut stage: Stage, cycles: u32, consumers: &Changes) -> Stage {
    let writers = ["critical", "standard", "bulk"].map(|lane| {
        stage.write(Workload {
            lane,
            key_prefix: lane,
            keys: 10,
            messages: u64::MAX,
            per_second: Some(60),
            ..stage.workload()
        })
    });

    let relays = Changes::default();
    let (relays, members) = tokio::join!(
        kill_relays(&stage, (cycles, When::AnyTime), &relays),
        kill_consumers(&stage, cycles, consumers)
    );

    for writers in writers {
        writers.stop().await;
    }
    stage.ledger.allow_duplicates(WINDOW, u64::from(cycles));
    stage.ledger.only_takeovers_repeat();
    let [one, other] = &relays;
    let [this, that] = &members;
    let verdict = stage.must_be_green(&[one, other, this, that]).await;
    assert!(verdict.claims >= u64::from(cycles), "{verdict}");
    eprintln!("{cycles} kills of each on the way\n{verdict}");
    stage
}

/// SIGTERM in turn to each program, as a rolling update does it.
#[tokio::test]
async fn programs_restarted_in_good_order_hand_over_at_once_and_publish_nothing_twice() {
    let stage = Stage::nats(Postgres::shared().await, Nats::shared().await).await;
    // Nobody could wait for the end of such a lease.
    let mut stage = stage.consumed().await.ttl("5m");
    let start = || stage.relay(&Changes::default());
    let mut relays = [start(), start()];
    let consumer = || stage.consumer(&Changes::default());
    let mut members = [consumer(), consumer()];
    let writers = stage.write(Workload {
        messages: u64::MAX,
        per_second: Some(200),
        ..stage.workload()
    });
    for turn in 0..6 {
        let [one, other] = &relays;
        let holder = stage.wait_for_holder(&[one, other]).await.pid();
        let (published, handled) = (stage.published().await, stage.handled().await);
        stage.wait_until_published(published + 50).await;
        stage.wait_until_handled(handled + 50).await;

        let leaves = usize::from(other.pid() == holder);
        relays[leaves].stop().await;
        relays[leaves] = start();
        members[turn % 2].stop().await;
        members[turn % 2] = consumer();
    }
    writers.stop().await;

    stage.ledger.allow_duplicates(0, 6);
    let [one, other] = &relays;
    let [this, that] = &members;
    let verdict = stage.must_be_green(&[one, other, this, that]).await;
    assert_eq!(verdict.claims, 7, "{verdict}");
}

#[tokio::test]
async fn killed_relays_and_consumers_lose_double_and_reorder_nothing_on_nats() {
    let stage = Stage::nats(Postgres::shared().await, Nats::shared().await).await;

    kill_both(
        stage.consumed().await.ttl("1s"),
        cycles(),
        &Changes::default(),
    )
    .await;
}

#[tokio::test]
async fn killed_members_that_share_the_subjects_of_a_topic_lose_double_and_reorder_nothing() {
    let stage = Stage::nats(Postgres::shared().await, Nats::shared().await).await;

    kill_both(
        stage.spread().consumed().await.ttl("1s"),
        cycles(),
        &Changes::default(),
    )
    .await;
}

#[tokio::test]
async fn killed_relays_and_consumers_lose_double_and_reorder_nothing_on_kafka() {
    // A member that was killed is missed sooner than a broker allows by default.
    let options = kafka::Options::default().config("group.min.session.timeout.ms", "1000");
    let kafka = Kafka::start(options).await;
    let stage = Stage::kafka(Postgres::shared().await, &kafka).await;
    let changes = Changes::default().variable("E2E_SESSION_MS", "1500");

    kill_both(stage.consumed().await.ttl("1s"), cycles(), &changes).await;
}

#[tokio::test]
async fn killed_consumers_whose_messages_wait_lose_double_and_reorder_nothing_on_nats() {
    let stage = Stage::nats(Postgres::shared().await, Nats::shared().await).await;

    kill_both(
        stage.consumed().await.ttl("1s"),
        cycles(),
        &Changes::default().deferring(),
    )
    .await;
}

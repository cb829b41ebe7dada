//! A topic or a key that waits, and a stream that goes on without it, while relays are killed.

use std::time::{Duration, Instant};

use async_nats::jetstream::stream::DiscardPolicy;
use onceward_testkit::ledger::Workload;
use onceward_testkit::nats::Nats;
use onceward_testkit::postgres::Postgres;
use onceward_testkit::{unique, wait};

use crate::failpoints::{LIMIT, write_too_large};
use crate::kills::moments;
use crate::program::Program;
use crate::stage::{Changes, SOON, Stage, WINDOW};

/// How long the topic is away: not a wait for anything.
const AWAY: Duration = Duration::from_secs(60);

/// How often the holder is killed meanwhile.
const KILLS: u32 = 6;

/// Lets a JetStream stream take nothing more, or everything again.
async fn fill(nats: &Nats, name: &str, full: bool) {
    let jetstream = async_nats::jetstream::new(nats.client().await);
    let mut found = jetstream.get_stream(name).await.unwrap();
    let info = found.info().await.unwrap();
    let mut config = info.config.clone();
    config.discard = DiscardPolicy::New;
    let stored = i64::try_from(info.state.messages).unwrap();
    config.max_messages = if full { stored.max(1) } else { -1 };
    jetstream.update_stream(config).await.unwrap();
}

async fn detours(stage: &Stage) -> Vec<String> {
    let statement = "select distinct detour from onceward.cursors where detour <> '' order by 1";
    let found = sqlx::query_scalar(statement).fetch_all(stage.log.pool());
    found.await.unwrap()
}

/// Waits until exactly these detours are open.
async fn has_detours(stage: &Stage, wanted: &[String]) {
    let what = format!("the detours {wanted:?}");
    wait::until_true(SOON, &what, || async { detours(stage).await == wanted }).await;
}

/// Kills whichever of the two relays publishes.
async fn kill_the_holder(stage: &Stage, relays: &mut [Program; 2], changes: &Changes) {
    let [one, other] = &*relays;
    let holder = stage.wait_for_holder(&[one, other]).await.pid();
    let victim = usize::from(other.pid() == holder);
    relays[victim].kill();
    relays[victim] = stage.relay(changes);
}

#[tokio::test]
async fn a_topic_that_is_away_for_a_minute_holds_neither_of_the_others_and_catches_up_in_order() {
    let (nats, away) = (Nats::shared().await, unique("away"));
    let stage = Stage::nats_with(Postgres::shared().await, nats, &[&away]).await;
    let mut stage = stage;
    let absent = format!("{}.audit", stage.name);
    let changes = Changes {
        stream: format!(
            "detour_after = \"1s\"\nin_flight_per_topic = 100\nroutes = {{ \"{absent}\" = \"{away}.audit\" }}"
        ),
        ..Changes::default()
    };
    let mut relays = [stage.relay(&changes), stage.relay(&changes)];
    let mut topics = stage.topics();
    topics.push(absent.clone());
    let writers = stage.write(Workload {
        topics,
        keys: 30,
        messages: u64::MAX,
        per_second: Some(200),
        ..stage.workload()
    });
    stage.wait_until_published(200).await;

    fill(nats, &away, true).await;
    let begin = Instant::now();
    let mut rng = moments("kills beside a detour");
    has_detours(&stage, &[format!("topic:{absent}")]).await;
    for _ in 0..KILLS {
        kill_the_holder(&stage, &mut relays, &changes).await;
        // Two of three topics go on, also behind a takeover: more than a window could hold in the end.
        let before = stage.published().await;
        stage.wait_until_published(before + 400).await;
        let left = AWAY.saturating_sub(begin.elapsed()) / KILLS;
        tokio::time::sleep(left.min(Duration::from_millis(rng.u64(0..4_000)))).await;
    }
    tokio::time::sleep(AWAY.saturating_sub(begin.elapsed())).await;
    assert_eq!(detours(&stage).await, [format!("topic:{absent}")]);
    fill(nats, &away, false).await;
    kill_the_holder(&stage, &mut relays, &changes).await;
    has_detours(&stage, &[]).await;
    let before = stage.published().await;
    stage.wait_until_published(before + 200).await;
    writers.stop().await;

    // Each kill, and the detour's own beginning.
    stage.ledger.allow_duplicates(WINDOW, u64::from(KILLS) + 2);
    let [one, other] = &relays;
    let verdict = stage.must_be_green(&[one, other]).await;
    assert_eq!(stage.parked().await, 0);
    eprintln!("a topic was away for {AWAY:?}, with {KILLS} kills\n{verdict}");
}

#[tokio::test]
async fn a_held_key_comes_in_order_with_its_refused_message_and_the_others_go_on() {
    let mut stage = Stage::nats(Postgres::shared().await, Nats::shared().await).await;
    let topic = stage.topics()[0].clone();
    stage.limit_messages(Some(LIMIT)).await;
    let changes = Changes {
        stream: "on_refusal = \"hold\"".to_owned(),
        ..Changes::default()
    };
    let mut relays = [stage.relay(&changes), stage.relay(&changes)];
    let writers = stage.write(Workload {
        messages: u64::MAX,
        per_second: Some(200),
        ..stage.workload()
    });
    let mut held = Vec::new();
    for key in ["key-2", "key-4"] {
        let before = stage.published().await;
        stage.wait_until_published(before + 100).await;
        write_too_large(&stage, key).await;
        held.push(format!("key:{topic}:{key}"));
        has_detours(&stage, &held).await;
        kill_the_holder(&stage, &mut relays, &changes).await;
    }
    let before = stage.published().await;
    stage.wait_until_published(before + 300).await;
    assert_eq!(detours(&stage).await, held);

    stage.limit_messages(None).await;
    stage
        .command(&["parked", "replay", "events", "--all"])
        .await;
    has_detours(&stage, &[]).await;
    let before = stage.published().await;
    stage.wait_until_published(before + 100).await;
    writers.stop().await;

    // Nothing is excused: the refused ones come before what waited for them.
    stage.ledger.allow_duplicates(WINDOW, 6);
    let [one, other] = &relays;
    let verdict = stage.must_be_green(&[one, other]).await;
    assert_eq!(verdict.published, verdict.committed, "{verdict}");
}

#[tokio::test]
async fn a_detour_that_begins_behind_what_was_read_turns_the_ledger_red() {
    let (nats, away) = (Nats::shared().await, unique("away"));
    let stage = Stage::nats_with(Postgres::shared().await, nats, &[&away]).await;
    let absent = stage.topics()[0].clone();
    let settings =
        format!("detour_after = \"0s\"\nroutes = {{ \"{absent}\" = \"{away}.orders\" }}");
    let workload = Workload {
        messages: 200,
        ..stage.workload()
    };
    stage.write_all(workload.clone()).await;
    fill(nats, &away, true).await;
    let relay = stage.relay(&Changes {
        stream: settings,
        ..Changes::fault("detour-from-what-was-read")
    });
    has_detours(&stage, &[format!("topic:{absent}")]).await;
    fill(nats, &away, false).await;
    stage.write_all(workload).await;
    has_detours(&stage, &[]).await;
    stage.wait_until_passed().await;
    relay.stop().await;

    let verdict = stage.ledger.verdict().await;
    assert!(verdict.lost > 0, "{verdict}");
}

//! A message that kills its process each time, among healthy ones.

use onceward_testkit::kafka::Kafka;
use onceward_testkit::ledger::{Workload, append};
use onceward_testkit::nats::Nats;
use onceward_testkit::postgres::Postgres;
use onceward_testkit::wait;
use uuid::Uuid;

use crate::kills::{moment, moments};
use crate::program::Program;
use crate::sequences::by_sequence;
use crate::stage::{Changes, SOON, Stage};

/// The payload that kills.
const DEADLY: &str = "deadly";

/// How often a consumer is killed from outside on the way. Once more, and a neighbour that was alone each time might be given up on.
const KILLS: u32 = 2;

/// How often the message may kill: unsuspected, beside others, and three times alone.
const DEATHS: u32 = 5;

/// What is left of a run.
pub(crate) struct Left {
    pub(crate) stage: Stage,
    /// What runs yet: the relay, and the consumer that has survived.
    programs: [Program; 2],
    /// The message that kills.
    pub(crate) deadly: Uuid,
    /// How often it has killed.
    deaths: u32,
}

/// How much comes, and how long handlers are at work with it, so that others die with the one that kills.
pub(crate) struct Pace {
    per_second: u32,
    milliseconds: &'static str,
}

pub(crate) const QUICK: Pace = Pace {
    per_second: 120,
    milliseconds: "60",
};

/// So slow that on a busy machine too all that can be in work at a time are, before the one that kills does.
pub(crate) const SLOW: Pace = Pace {
    per_second: 30,
    milliseconds: "500",
};

/// Starts a consumer whenever one has died, as a supervisor does, until a message is given up on. Some are killed at a random moment.
/// Gives the one that runs, and how often a message has killed one.
async fn supervise(stage: &Stage, changes: &Changes, kills: u32) -> (Program, u32) {
    let mut rng = moments("kills beside a message that kills");
    let (mut killed, mut deaths) = (0, 0);
    loop {
        assert!(deaths <= DEATHS, "nobody gives up on what kills");
        let consumer = stage.consumer(changes);
        let to_be_killed = killed < kills && killed < deaths;
        let at_a_moment = async {
            wait::until_true(SOON, "a consumer to handle something", || async {
                consumer.handles()
            })
            .await;
            moment(&mut rng).await;
        };
        let given_up = || async { consumer.has_died() || !stage.letters().await.is_empty() };
        tokio::select! {
            () = wait::until_true(SOON, "the end of a message that kills", given_up) => {
                if !consumer.has_died() {
                    return (consumer, deaths);
                }
                deaths += 1;
            }
            () = at_a_moment, if to_be_killed => {
                if consumer.kill_unless_it_died() {
                    killed += 1;
                } else {
                    deaths += 1;
                }
            }
        }
    }
}

/// Healthy messages, and in the midst of them one that kills, until all of them have an end.
pub(crate) async fn with_a_message_that_kills(
    stage: Stage,
    changes: Changes,
    kills: u32,
    pace: &Pace,
) -> Left {
    let mut stage = stage.consumed().await;
    let relay = stage.relay(&Changes::default());
    let writers = stage.write(Workload {
        messages: u64::MAX,
        per_second: Some(pace.per_second),
        ..stage.workload()
    });
    let changes = changes
        .variable("E2E_DEADLY", DEADLY)
        .variable("E2E_DELAY_MS", pace.milliseconds);
    let before = stage.consumer(&changes);
    stage.wait_until_handled(100).await;
    let mut transaction = stage.log.pool().begin().await.unwrap();
    let topic = &stage.topics()[0];
    let key = "key-2";
    let deadly = append(&mut transaction, topic, key, DEADLY.as_bytes()).await;
    transaction.commit().await.unwrap();
    let deadly = deadly.unwrap();
    stage.ledger.excuse(deadly);
    before.crashed(SOON).await;

    let (consumer, deaths) = supervise(&stage, &changes, kills).await;
    writers.stop().await;
    let all = || async {
        let progress = stage.ledger.progress().await.ok()?;
        let dead = u64::try_from(stage.letters().await.len()).unwrap();
        Some(progress.handled + dead >= progress.committed)
    };
    wait::until_true(SOON, "an end of every message", || async {
        all().await.unwrap_or(false)
    })
    .await;
    Left {
        stage,
        programs: [relay, consumer],
        deadly,
        deaths: deaths + 1,
    }
}

/// Only the message that kills is given up on; all others take effect once, in order.
pub(crate) async fn only_the_guilty_is_given_up_on(stage: Stage, changes: Changes) {
    let left = with_a_message_that_kills(stage, changes, KILLS, &QUICK).await;

    let [relay, consumer] = &left.programs;
    let verdict = left.stage.must_be_green(&[relay, consumer]).await;
    assert_eq!(
        left.stage.letters().await,
        [("crashed".to_owned(), left.deadly)]
    );
    assert_eq!(verdict.handled, Some(verdict.committed - 1), "{verdict}");
    let starts: Vec<String> = sqlx::query_scalar("select s::text from onceward.starts s")
        .fetch_all(left.stage.log.pool())
        .await
        .unwrap();
    assert!(starts.is_empty(), "nothing is in work, but {starts:?}");
    assert!(
        (2..=DEATHS).contains(&left.deaths),
        "{} deaths",
        left.deaths
    );
    eprintln!("given up on after {} deaths\n{verdict}", left.deaths);
}

async fn on_nats() -> Stage {
    Stage::nats(Postgres::shared().await, Nats::shared().await).await
}

#[tokio::test]
async fn only_the_message_that_kills_is_given_up_on_with_nats() {
    only_the_guilty_is_given_up_on(on_nats().await, Changes::default()).await;
}

#[tokio::test]
async fn only_the_message_that_kills_is_given_up_on_where_sequences_are_the_dedupe() {
    only_the_guilty_is_given_up_on(on_nats().await, by_sequence(Changes::default())).await;
}

#[tokio::test]
async fn only_the_message_of_a_batch_that_kills_is_given_up_on() {
    let batches = Changes::default().variable("E2E_BATCH", "20");

    only_the_guilty_is_given_up_on(on_nats().await, batches).await;
}

#[tokio::test]
async fn only_the_message_that_kills_is_given_up_on_among_messages_that_wait() {
    // Of the waits some are in place and some in the database.
    let waiting = by_sequence(Changes::default())
        .variable("E2E_FAIL_ONE_IN", "8")
        .variable("E2E_DEFER_AFTER_MS", "5");

    only_the_guilty_is_given_up_on(on_nats().await, waiting).await;
}

#[tokio::test]
async fn only_the_message_that_kills_is_given_up_on_with_kafka() {
    let stage = Stage::kafka(Postgres::shared().await, Kafka::shared().await).await;

    only_the_guilty_is_given_up_on(stage, Changes::default()).await;
}

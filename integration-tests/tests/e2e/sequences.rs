//! Consumers that dedupe by the producer's own numbers.

use onceward_testkit::ledger::{Verdict, Workload};
use onceward_testkit::nats::Nats;
use onceward_testkit::postgres::Postgres;
use onceward_testkit::wait;

use crate::failpoints::{LIMIT, write_too_large};
use crate::kills::{cycles, kill_both, kill_consumers, wait_until_nobody_dies_again};
use crate::stage::{Changes, SOON, Stage};

pub(crate) fn by_sequence(changes: Changes) -> Changes {
    changes.variable("E2E_BY_SEQUENCE", "1")
}

#[tokio::test]
async fn killed_consumers_that_dedupe_by_sequence_lose_double_and_reorder_nothing() {
    let stage = Stage::nats(Postgres::shared().await, Nats::shared().await).await;
    // Some attempts fail; of the waits some are in place and some in the database.
    let changes = by_sequence(Changes::default())
        .variable("E2E_FAIL_ONE_IN", "20")
        .variable("E2E_DEFER_AFTER_MS", "2");

    let stage = stage.consumed().await.ttl("1s");
    sqlx::raw_sql(
        "create table ledger.waited (message_id uuid primary key);
         create function ledger.note_wait() returns trigger language plpgsql security definer as $$
         begin
           insert into ledger.waited values (new.message_id) on conflict do nothing;
           return null;
         end $$;
         create trigger note_wait after insert on onceward.retries for each row execute function ledger.note_wait()",
    )
    .execute(stage.log.pool())
    .await
    .unwrap();

    let stage = kill_both(stage, cycles(), &changes).await;

    let (keys, behind, marks, handled): (i64, i64, i64, i64) = sqlx::query_as(
        "select
           (select count(*) from ledger.keys where version > 0),
           (select count(*)
            from ledger.keys k
            left join onceward.key_sequences s on s.key = k.key and s.high = k.version and s.gaps = '{}' and not s.reused
            where k.version > 0 and s.key is null),
           (select count(*)
            from onceward.processed_messages
            where message_id not in (select message_id from ledger.waited)),
           (select count(*) from ledger.business)",
    )
    .fetch_one(stage.log.pool())
    .await
    .unwrap();
    assert_eq!((keys, behind), (30, 0));
    // How many messages wait, and have a mark for that, depends on the kills. Of the others only the first of each key has one beside its
    // number, in each life of a member.
    let lives = i64::from(cycles()) + 2;
    assert!(marks <= keys * lives, "{marks} marks of {handled} messages");
}

/// Some messages are parked and come after later ones of their keys.
async fn with_late_numbers(changes: &Changes) -> Verdict {
    let stage = Stage::nats(Postgres::shared().await, Nats::shared().await).await;
    let stage = stage.consumed().await;
    stage.limit_messages(Some(LIMIT)).await;
    let relay = stage.relay(&Changes::default());
    let consumer = stage.consumer(changes);
    let workload = || Workload {
        messages: 200,
        keys: 10,
        ..stage.workload()
    };
    stage.write_all(workload()).await;
    for key in ["key-2", "key-4", "key-6"] {
        write_too_large(&stage, key).await;
    }
    stage.write_all(workload()).await;
    stage.wait_until_passed().await;
    let (published, numbers) = (stage.published().await, parked(&stage).await);
    assert_eq!(numbers.len(), 3);
    stage.wait_until_handled(published).await;

    stage.limit_messages(None).await;
    for number in numbers {
        let number = number.to_string();
        stage
            .command(&["parked", "replay", "events", &number])
            .await;
    }
    stage.wait_until_published(published + 3).await;
    stage.wait_until_all_is_acked().await;
    consumer.stop().await;
    relay.stop().await;
    stage.ledger.verdict().await
}

async fn parked(stage: &Stage) -> Vec<i64> {
    sqlx::query_scalar("select seq from onceward.parked order by seq")
        .fetch_all(stage.log.pool())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_number_that_was_parked_takes_effect_when_it_comes_late() {
    let verdict = with_late_numbers(&by_sequence(Changes::default())).await;

    assert_eq!(
        (verdict.missing_effects, verdict.doubled_effects),
        (0, 0),
        "{verdict}"
    );
    // They are late, as a person wanted it.
    assert_eq!(
        (verdict.out_of_order, verdict.effects_out_of_order),
        (3, 3),
        "{verdict}"
    );
}

/// How often consumers are killed while numbers go missing, and as often while these come late.
const KILLS: u32 = 4;

#[tokio::test]
async fn numbers_that_come_late_take_effect_once_while_consumers_are_killed() {
    let stage = Stage::nats(Postgres::shared().await, Nats::shared().await).await;
    let stage = stage.consumed().await;
    stage.limit_messages(Some(LIMIT)).await;
    let relay = stage.relay(&Changes::default());
    // Some attempts fail; of the waits some are in place and some in the database.
    let changes = by_sequence(Changes::default())
        .variable("E2E_FAIL_ONE_IN", "20")
        .variable("E2E_DEFER_AFTER_MS", "2");
    let writers = stage.write(Workload {
        messages: u64::MAX,
        per_second: Some(100),
        keys: 10,
        ..stage.workload()
    });
    let some_more = || async {
        let handled = stage.handled().await;
        stage.wait_until_handled(handled + 20).await;
    };

    let go_missing = async {
        for key in ["key-2", "key-4", "key-6", "key-8"] {
            some_more().await;
            write_too_large(&stage, key).await;
        }
        some_more().await;
    };
    let (members, ()) = tokio::join!(kill_consumers(&stage, KILLS, &changes), go_missing);
    wait_until_nobody_dies_again(&stage).await;
    for member in members {
        member.kill();
    }
    wait::until_true(SOON, "all four to be parked", || async {
        parked(&stage).await.len() == 4
    })
    .await;
    stage.limit_messages(None).await;
    let come_late = async {
        for number in parked(&stage).await {
            some_more().await;
            let number = number.to_string();
            stage
                .command(&["parked", "replay", "events", &number])
                .await;
        }
    };
    let (members, ()) = tokio::join!(kill_consumers(&stage, KILLS, &changes), come_late);
    writers.stop().await;

    stage.ledger.verdict_within(SOON).await;
    stage.wait_until_no_key_is_held().await;
    for member in members {
        member.stop().await;
    }
    relay.stop().await;
    let verdict = stage.ledger.verdict().await;
    let late = [verdict.out_of_order, verdict.effects_out_of_order];
    assert_eq!(late, [4, 4], "as a person wanted it: {verdict}");
    let others: u64 = verdict.wrongs().iter().map(|(_, count)| count).sum();
    assert_eq!(others, 8, "{verdict}");
    assert_eq!(verdict.handled, Some(verdict.committed), "{verdict}");
}

#[tokio::test]
async fn gaps_that_are_forgotten_turn_the_ledger_red() {
    let verdict = with_late_numbers(&by_sequence(Changes::fault("gaps-forgotten"))).await;

    assert_eq!(verdict.missing_effects, 3, "{verdict}");
}

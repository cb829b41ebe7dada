//! Everything at once that a cursor could stumble over, from the commits to the effects.

use std::time::Duration;

use onceward_testkit::ledger::{Mix, Workload, append_many};
use onceward_testkit::nats::Nats;
use onceward_testkit::postgres::Postgres;

use crate::stage::{Changes, Stage};

/// What the large transaction writes: so many messages of so many keys, in turns.
const KEYS: i32 = 50;
const TURNS: i32 = 20;
const OF_A_TURN: i32 = 50;
/// How many messages of others are published while it writes a turn, and five times as many while it stays open behind the last one.
const MEANWHILE: u64 = 20;

/// Small transactions of every kind. Those that stay open do so for some seconds; there are enough of them that no kind is missing.
fn small(stage: &Stage) -> Workload {
    Workload {
        keys: 60,
        writers: 12,
        messages: u64::MAX,
        mix: Mix {
            aborts: 10,
            savepoints: 10,
            slow: 3,
            early: 4,
            several: 15,
            two_phase: 4,
        },
        slow_for: Duration::from_secs(4),
        ..stage.workload()
    }
}

/// Writes the large transaction while the small ones go on, and holds it open until many of them have passed it.
async fn write_large(stage: &Stage) {
    let mut transaction = stage.log.pool().begin().await.unwrap();
    let topic = &stage.topics()[0];
    for _ in 0..TURNS {
        for key in 0..KEYS {
            let key = format!("large-{key}");
            let appended = append_many(&mut transaction, topic, &key, OF_A_TURN).await;
            appended.unwrap();
        }
        let before = stage.published().await;
        stage.wait_until_published(before + MEANWHILE).await;
    }
    let before = stage.published().await;
    stage.wait_until_published(before + 5 * MEANWHILE).await;
    transaction.commit().await.unwrap();
}

#[tokio::test]
async fn fifty_thousand_messages_of_one_commit_among_open_aborted_and_prepared_ones_take_effect_once_and_in_order()
 {
    let stage = Stage::nats(Postgres::shared().await, Nats::shared().await).await;
    let stage = stage.consumed().await.ttl("30s");
    let relay = stage.relay(&Changes {
        window: Some(15_000),
        ..Changes::default()
    });
    let consumer = stage.consumer(
        &Changes::default()
            .variable("E2E_BATCH", "200")
            .variable("E2E_FAIL_ONE_IN", "100"),
    );
    let writers = stage.write(small(&stage));

    write_large(&stage).await;
    let turn = u64::try_from(KEYS * OF_A_TURN).unwrap();
    let mut large = 0;
    for _ in 0..TURNS {
        large += turn;
        stage.wait_until_published(large).await;
    }
    let written = writers.stop().await;

    assert!(
        written.messages > 300 && written.aborted > 0 && written.unknown == 0,
        "{written:?}"
    );
    let verdict = stage.must_be_green(&[&relay, &consumer]).await;
    assert_eq!(verdict.committed, large + written.messages, "{verdict}");
    assert_eq!((verdict.duplicates, verdict.claims), (0, 1), "{verdict}");
    assert_eq!(stage.parked().await, 0);
}

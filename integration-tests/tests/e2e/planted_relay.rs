//! Bugs planted in the relay: the ledger must see each of them, and must be green without it.

use std::time::Duration;

use onceward_testkit::ledger::{Mix, Verdict, Workload, append};
use onceward_testkit::nats::Nats;
use onceward_testkit::postgres::Postgres;
use onceward_testkit::proxy::Proxy;
use onceward_testkit::wait;

use crate::failpoints::{LIMIT, TOO_LARGE};
use crate::place::{behind, port};
use crate::program::Program;
use crate::stage::{Changes, SOON, Stage, WINDOW};

async fn stage() -> Stage {
    Stage::nats(Postgres::shared().await, Nats::shared().await).await
}

#[tokio::test]
async fn a_cursor_without_late_rows_turns_the_ledger_red() {
    let stage = stage().await;
    let relay = stage.relay(&Changes::fault("cursor-without-late-rows"));

    let mut workload = stage.workload();
    workload.mix = Mix {
        slow: 20,
        early: 20,
        ..Mix::default()
    };
    stage.write_all(workload).await;
    // What is read now is read with everything before it committed: a row that is missing then is missing for good.
    let mut transaction = stage.log.pool().begin().await.unwrap();
    let topic = &stage.topics()[0];
    let last = append(&mut transaction, topic, "last", b"last").await;
    let last = last.unwrap();
    transaction.commit().await.unwrap();
    let arrived = || async {
        let facts = stage.ledger.facts().await;
        facts.arrivals.iter().any(|one| one.id == Some(last))
    };
    wait::until_true(SOON, "the last message in the broker", arrived).await;
    relay.stop().await;

    let verdict = stage.ledger.verdict().await;
    assert!(verdict.lost > 0, "{verdict}");
}

/// Two relays, each behind a proxy to the database. The holder's proxy holds back what it writes until the other has
/// taken over; then that reaches the database after all.
async fn write_after_the_lease_is_lost(fault: &'static str, rounds: u32) -> Verdict {
    let stage = stage().await;
    let postgres = port(stage.log.url());
    let mut proxies = [Proxy::to(postgres).await, Proxy::to(postgres).await];
    let relays = proxies.each_ref().map(|proxy| {
        let changes = Changes {
            url: Some(behind(proxy, stage.log.url())),
            ..Changes::fault(fault)
        };
        stage.relay(&changes)
    });
    let [one, other] = &relays;
    let writers = stage.write(Workload {
        messages: u64::MAX,
        per_second: Some(500),
        ..stage.workload()
    });
    for _ in 0..rounds {
        let holder = stage.wait_for_holder(&[one, other]).await;
        let before = stage.published().await;
        stage.wait_until_published(before + 100).await;

        let proxy = &mut proxies[usize::from(holder.pid() == other.pid())];
        proxy.stall();
        // Not a wait for anything: time for one more checkpoint to be on its way.
        tokio::time::sleep(Duration::from_millis(150)).await;
        holder.freeze();
        let arrived = stage.published().await;
        stage.wait_until_published(arrived + 100).await;
        proxy.heal().await;
        holder.thaw();
        if stage.ledger.verdict().await.stale_checkpoints > 0 {
            break;
        }
    }
    writers.stop().await;
    stage.ledger.verdict_within(SOON).await
}

#[tokio::test]
async fn what_a_relay_wrote_before_it_lost_its_lease_is_refused_when_it_arrives_later() {
    let verdict = write_after_the_lease_is_lost("", 3).await;

    assert!(verdict.is_green() && verdict.claims > 3, "{verdict}");
}

#[tokio::test]
async fn lost_fencing_turns_the_ledger_red() {
    let verdict = write_after_the_lease_is_lost("lost-fencing", 15).await;

    assert!(verdict.stale_checkpoints > 0, "{verdict}");
}

/// A relay that has stored how far it came is killed, and another one takes over. Judged by takeovers alone.
async fn take_over_from_a_stored_cursor(fault: &'static str) -> Verdict {
    let mut stage = stage().await.ttl("10s");
    let workload = Workload {
        messages: 200,
        ..stage.workload()
    };
    for _ in 0..2 {
        let relay = stage.relay(&Changes::fault(fault));
        stage.write_all(workload.clone()).await;
        stage.wait_until_passed().await;
        relay.kill();
    }
    stage.ledger.allow_duplicates(WINDOW, 2);
    stage.ledger.only_takeovers_repeat();
    stage.ledger.verdict().await
}

#[tokio::test]
async fn a_takeover_repeats_nothing_that_the_stored_cursor_has_passed() {
    let verdict = take_over_from_a_stored_cursor("").await;

    assert!(verdict.is_green(), "{verdict}");
    assert_eq!((verdict.claims, verdict.duplicates), (2, 0), "{verdict}");
}

#[tokio::test]
async fn a_takeover_that_begins_before_the_stored_cursor_turns_the_ledger_red() {
    let verdict = take_over_from_a_stored_cursor("begin-before-the-cursor").await;

    assert!(verdict.copies_without_takeover > 0, "{verdict}");
    assert_eq!(verdict.unexplained_duplicates, 0, "{verdict}");
}

#[tokio::test]
async fn a_checkpoint_before_the_confirmation_turns_the_ledger_red() {
    let nats = Nats::shared().await;
    let mut proxy = Proxy::to(port(nats.url())).await;
    let stage = Stage::nats(Postgres::shared().await, nats).await;
    let relay = stage.relay(&Changes {
        address: Some(behind(&proxy, nats.url())),
        ..Changes::fault("checkpoint-before-confirm")
    });
    let workload = Workload {
        messages: 100,
        ..stage.workload()
    };
    stage.write_all(workload.clone()).await;
    stage.wait_until_published(100).await;

    proxy.cut().await;
    stage.write_all(workload).await;
    stage.wait_until_passed().await;
    relay.kill();
    let heir = stage.relay(&Changes::default());
    stage.wait_for_holder(&[&heir]).await;
    stage.write_all(stage.workload()).await;
    stage.wait_until_passed().await;

    let verdict = stage.ledger.verdict().await;
    assert!(verdict.lost > 0, "{verdict}");
}

/// A message that the broker refuses, with followers of its key. The relay dies when it is about to park it, and then
/// the broker's limit is raised, so that the message is published after all.
async fn die_before_the_park(fault: &'static str) -> Verdict {
    let stage = stage().await;
    stage.limit_messages(Some(LIMIT)).await;
    let topic = &stage.topics()[0];
    let mut transaction = stage.log.pool().begin().await.unwrap();
    for size in [10, TOO_LARGE, 20, 30] {
        let payload = vec![1; size];
        append(&mut transaction, topic, "one", &payload)
            .await
            .unwrap();
    }
    transaction.commit().await.unwrap();

    let relay = stage.relay(&Changes {
        failpoint: "before-park".to_owned(),
        ..Changes::fault(fault)
    });
    relay.crashed(SOON).await;
    stage.limit_messages(None).await;
    let heir: Program = stage.relay(&Changes::default());
    let verdict = stage.ledger.verdict_within(SOON).await;
    heir.stop().await;
    assert_eq!(stage.parked().await, 0);
    verdict
}

#[tokio::test]
async fn no_follower_is_published_before_a_park_is_committed() {
    let verdict = die_before_the_park("").await;

    assert!(verdict.is_green(), "{verdict}");
}

#[tokio::test]
async fn followers_offered_before_a_park_is_committed_turn_the_ledger_red() {
    let verdict = die_before_the_park("followers-before-park").await;

    assert!(verdict.out_of_order > 0, "{verdict}");
}

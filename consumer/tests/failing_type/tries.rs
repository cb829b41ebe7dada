//! Which message of a paused type is tried, by whom and when.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use onceward_consumer::{FailingTypes, HandlerError, HandlerSettings, Limits, Tx};
use onceward_testkit::wait;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use time::OffsetDateTime;
use tokio::sync::Semaphore;

use crate::common::{self, Gate, Order, SOON, Stage, effect, pass_the_gate, quick};
use crate::{
    Dependency, builder, depends, let_wait, pause_by_hand, paused, publish_failing, wait_for_calls,
    wait_for_effects, wait_until_forgotten,
};

#[tokio::test]
async fn a_probe_that_fails_is_no_attempt_and_another_message_is_tried_next() {
    let stage = Stage::new().await;
    publish_failing(&stage, 30);
    let dependency = Dependency::default();

    let running = stage.run(builder(&stage, &dependency));
    stage.wait_for_retries(30).await;
    let attempts = "select coalesce(sum(attempts), 0) from onceward.retries";
    let before: i64 = sqlx::query_scalar(attempts)
        .fetch_one(stage.pool())
        .await
        .unwrap();
    let calls = dependency.calls();
    wait_for_calls(&dependency, calls + 20).await;
    running.stop().await;

    let after: i64 = sqlx::query_scalar(attempts)
        .fetch_one(stage.pool())
        .await
        .unwrap();
    assert_eq!(after, before);
    let times: Vec<i64> = sqlx::query_scalar(
        "select count(distinct due_at) from onceward.held_keys where waits_for is not null",
    )
    .fetch_all(stage.pool())
    .await
    .unwrap();
    assert!(times[0] >= 20, "each went to the back: {times:?}");
}

#[tokio::test]
async fn one_that_has_expired_tells_nothing_and_the_next_one_is_tried_at_once() {
    let stage = Stage::new().await;
    let_wait(&stage, "paused", 200).await;
    let expired = r#"update onceward.retries set headers = '{"onceward-expires-at": "2020-01-01T00:00:00Z"}'"#;
    sqlx::query(expired).execute(stage.pool()).await.unwrap();
    pause_by_hand(&stage, "paused", 0).await;
    let dependency = Dependency::default();
    dependency.up(true);
    let seldom = FailingTypes::default();

    // With a look each second it would take minutes.
    let running = stage.run(builder(&stage, &dependency).failing_types(seldom));
    wait::until_true(SOON, "all to have expired", || async {
        stage.retries().await == 0
    })
    .await;
    stage.publish_of("paused", 1, None);
    wait_for_effects(&stage, 1).await;
    running.stop().await;

    assert_eq!(dependency.calls(), 1);
    stage.nothing_waits().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_try_that_takes_long_is_the_only_one_of_all_members() {
    async fn waits(
        (running, gate): (Arc<AtomicU32>, Arc<Gate>),
        _: Order,
        tx: &mut Tx,
    ) -> Result<(), HandlerError> {
        running.fetch_add(1, Ordering::SeqCst);
        let passed = pass_the_gate(&gate, tx).await;
        running.fetch_sub(1, Ordering::SeqCst);
        passed.and(Err("the dependency is down".into()))
    }
    const MEMBERS: [&str; 2] = ["one member", "another member"];
    let stage = Stage::new().await;
    let_wait(&stage, "paused", 30).await;
    pause_by_hand(&stage, "paused", 0).await;
    let (running, gate) = (Arc::new(AtomicU32::new(0)), Arc::new(Gate::new()));
    let often = FailingTypes {
        probe_every: Duration::from_millis(100),
        ..FailingTypes::default()
    };

    let mut members = Vec::new();
    for name in MEMBERS {
        let options: PgConnectOptions = stage.database.url().parse().unwrap();
        let pool = PgPool::connect_lazy_with(options.application_name(name));
        let builder = stage.builder().pool(pool).failing_types(often.clone());
        let state = (running.clone(), gate.clone());
        members.push(stage.run(builder.on_with("*", state, waits)));
    }
    for _ in 0..3 {
        gate.has_a_handler().await;
        for _ in 0..3 {
            wait_until_all_have_looked(&stage, &MEMBERS).await;
        }
        assert_eq!(running.load(Ordering::SeqCst), 1);
        gate.add_permits(1);
    }
    gate.add_permits(99);
    for member in members {
        member.stop().await;
    }
}

/// Waits until each of these members has looked once more which types are paused and may be tried.
async fn wait_until_all_have_looked(stage: &Stage, members: &[&str]) {
    let now: OffsetDateTime = sqlx::query_scalar("select clock_timestamp()")
        .fetch_one(stage.pool())
        .await
        .unwrap();
    let mut left: HashSet<String> = members.iter().map(|&member| member.to_owned()).collect();
    let looks = "select application_name from pg_stat_activity
        where datname = current_database() and query_start > $1 and query like '%probe_at <= clock_timestamp()%'
        and query not like '%for no key update%'";
    let until = tokio::time::Instant::now() + SOON;
    while !left.is_empty() {
        assert!(tokio::time::Instant::now() < until, "no look of {left:?}");
        let looked: Vec<String> = sqlx::query_scalar(looks)
            .bind(now)
            .fetch_all(stage.pool())
            .await
            .unwrap();
        left.retain(|member| !looked.contains(member));
    }
}

#[tokio::test]
async fn types_that_hang_do_not_keep_a_healthy_one_paused() {
    async fn hangs(_: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        sqlx::query("select pg_sleep(60)")
            .execute(&mut **tx)
            .await?;
        Ok(())
    }
    let stage = Stage::new().await;
    for n in 0..6 {
        let kind = format!("hangs.{n}");
        let_wait(&stage, &kind, 20).await;
        pause_by_hand(&stage, &kind, -1).await;
    }
    let_wait(&stage, "works", 20).await;
    pause_by_hand(&stage, "works", 0).await;
    let often = FailingTypes {
        probe_every: Duration::from_millis(100),
        ..FailingTypes::default()
    };
    let limits = Limits {
        // Of which follows one place for tries.
        concurrency: 4,
        ..Limits::default()
    };
    let settings = HandlerSettings {
        deadline: Duration::from_millis(500),
        ..quick(100)
    };

    let builder = stage.builder().defaults(settings).failing_types(often);
    let builder = builder.limits(limits).on("hangs.*", hangs);
    let running = stage.run(builder.on("works", common::write_effect));
    wait_for_effects(&stage, 20).await;
    running.stop().await;

    assert_eq!(paused(&stage).await.len(), 6);
}

#[tokio::test]
async fn a_stop_ends_the_turn_of_a_message_that_is_tried() {
    async fn hangs(begun: Arc<Semaphore>, _: Order, _: &mut Tx) -> Result<(), HandlerError> {
        begun.add_permits(1);
        std::future::pending().await
    }
    let stage = Stage::new().await;
    let_wait(&stage, "hangs", 3).await;
    pause_by_hand(&stage, "hangs", 0).await;
    let begun = Arc::new(Semaphore::new(0));
    let limits = Limits {
        grace: Duration::ZERO,
        ..Limits::default()
    };
    let rare = FailingTypes {
        probe_every: Duration::from_secs(3_600),
        ..FailingTypes::default()
    };

    let builder = stage.builder().limits(limits).failing_types(rare);
    let running = stage.run(builder.on_with("*", begun.clone(), hangs));
    begun.acquire().await.unwrap().forget();
    running.stop().await;

    let open: bool = sqlx::query_scalar("select probe_at <= now() from onceward.paused_types")
        .fetch_one(stage.pool())
        .await
        .unwrap();
    assert!(open, "it told nothing, so another one may try at once");
}

#[tokio::test]
async fn a_member_without_a_handler_for_a_type_takes_no_turns_to_try_it() {
    let stage = Stage::new().await;
    let_wait(&stage, "of others", 20).await;
    let_wait(&stage, common::TOPIC, 20).await;
    // The turn of the other one has come first, whenever there is one.
    pause_by_hand(&stage, "of others", -60).await;
    pause_by_hand(&stage, common::TOPIC, 0).await;
    let dependency = Dependency::default();
    let often = FailingTypes {
        probe_every: Duration::from_millis(100),
        ..FailingTypes::default()
    };

    let builder = stage.builder().failing_types(often);
    let running = stage.run(builder.on_with(common::TOPIC, dependency.clone(), depends));
    wait_for_calls(&dependency, 5).await;
    running.stop().await;

    assert!(stage.letters().await.is_empty());
    assert_eq!(stage.retries().await, 40);
}

#[tokio::test]
async fn a_turn_on_a_message_that_tells_nothing_is_followed_by_another_one_at_once() {
    /// Most messages ask to wait; the last one tells that the type works.
    async fn asks_to_wait(event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        if event.order < 5 {
            return Err(HandlerError::retry_after(Duration::from_secs(3_600)));
        }
        effect(event.order, tx).await
    }
    let stage = Stage::new().await;
    let_wait(&stage, "t", 5).await;
    // In the order of their numbers.
    sqlx::query(
        "update onceward.held_keys set due_at = now() + interval '1 hour' * (1 + substr(key, 2)::int)",
    )
    .execute(stage.pool())
    .await
    .unwrap();
    pause_by_hand(&stage, "t", 0).await;
    let rare = FailingTypes {
        probe_every: Duration::from_secs(3_600),
        ..FailingTypes::default()
    };

    let builder = stage.builder().failing_types(rare);
    let running = stage.run(builder.on("*", asks_to_wait));
    wait_for_effects(&stage, 1).await;
    wait_until_forgotten(&stage).await;
    running.stop().await;

    let asked: i64 = sqlx::query_scalar(
        "select count(*) from onceward.retries where due_at > now() + interval '50 minutes' and attempts = 1",
    )
    .fetch_one(stage.pool())
    .await
    .unwrap();
    assert_eq!(asked, 4, "each waits as it asked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_is_kept_for_as_long_as_its_message_is_tried() {
    /// At first longer than a turn of a member that says nothing.
    async fn slow_at_first(
        (first, ended): (Arc<AtomicU32>, Arc<AtomicBool>),
        event: Order,
        tx: &mut Tx,
    ) -> Result<(), HandlerError> {
        if !ended.load(Ordering::SeqCst) {
            first.fetch_add(1, Ordering::SeqCst);
            sqlx::query("select pg_sleep(14)")
                .execute(&mut **tx)
                .await?;
            ended.store(true, Ordering::SeqCst);
        }
        effect(event.order, tx).await
    }
    let stage = Stage::new().await;
    let_wait(&stage, "slow", 3).await;
    pause_by_hand(&stage, "slow", 0).await;
    let state: (Arc<AtomicU32>, Arc<AtomicBool>) = Default::default();

    let builder = || stage.builder().on_with("*", state.clone(), slow_at_first);
    let members = [stage.run(builder()), stage.run(builder())];
    wait_for_effects(&stage, 3).await;
    for member in members {
        member.stop().await;
    }

    assert_eq!(state.0.load(Ordering::SeqCst), 1);
}

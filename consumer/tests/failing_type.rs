//! A type of which most messages fail is paused for all members; one is tried now and then.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use common::{Order, SOON, Stage, effect, quick};
use onceward_consumer::{
    BatchTx, BuildError, ConsumerBuilder, FailingTypes, HandlerError, HandlerSettings, Limits, Tx,
};
use onceward_testkit::postgres::{Options, Postgres};
use onceward_testkit::wait;
use tokio::sync::Semaphore;

/// What the handler of a test depends on.
#[derive(Clone, Default)]
struct Dependency {
    up: Arc<AtomicBool>,
    calls: Arc<AtomicU32>,
}

impl Dependency {
    fn calls(&self) -> u32 {
        self.calls.load(Ordering::SeqCst)
    }

    fn up(&self, up: bool) {
        self.up.store(up, Ordering::SeqCst);
    }
}

async fn depends(on: Dependency, event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
    on.calls.fetch_add(1, Ordering::SeqCst);
    effect(event.order, tx).await?;
    if !on.up.load(Ordering::SeqCst) {
        return Err("the dependency is down".into());
    }
    Ok(())
}

fn builder(stage: &Stage, dependency: &Dependency) -> ConsumerBuilder {
    let often = FailingTypes {
        probe_every: Duration::from_millis(100),
        ..FailingTypes::default()
    };
    // A member that dies while it tries a message delays the next try by its deadline.
    let settings = HandlerSettings {
        deadline: Duration::from_secs(2),
        ..quick(100)
    };
    let builder = stage.builder().defaults(settings).failing_types(often);
    builder.on_with("*", dependency.clone(), depends)
}

/// As many as fail before a type is paused, each with a key of its own.
fn publish_failing(stage: &Stage, count: i64) {
    for order in 0..count {
        stage.publish(order, Some(order));
    }
}

/// The types that are paused and not resumed.
async fn paused(stage: &Stage) -> Vec<String> {
    sqlx::query_scalar("select type from onceward.paused_types where resumed_at is null")
        .fetch_all(stage.pool())
        .await
        .unwrap_or_default()
}

async fn wait_until_paused(stage: &Stage) {
    wait::until_true(SOON, "a paused type", || async {
        paused(stage).await == [common::TOPIC]
    })
    .await;
}

async fn wait_until_forgotten(stage: &Stage) {
    wait::until_true(SOON, "no paused type", || async {
        let count: Result<i64, _> =
            sqlx::query_scalar("select count(*) from onceward.paused_types")
                .fetch_one(stage.pool())
                .await;
        count.is_ok_and(|count| count == 0)
    })
    .await;
}

async fn wait_for_effects(stage: &Stage, count: usize) {
    let what = format!("{count} effects");
    wait::until_true(SOON, &what, || async {
        let found: Result<i64, _> = sqlx::query_scalar("select count(*) from effects")
            .fetch_one(stage.pool())
            .await;
        found.is_ok_and(|found| usize::try_from(found) == Ok(count))
    })
    .await;
}

async fn wait_for_calls(dependency: &Dependency, calls: u32) {
    wait::until_true(SOON, "some calls", || async { dependency.calls() >= calls }).await;
}

async fn lines_that_wait(stage: &Stage) -> i64 {
    sqlx::query_scalar("select count(*) from onceward.held_keys where waits_for is not null")
        .fetch_one(stage.pool())
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_dependency_costs_a_few_attempts_and_no_dead_letters() {
    let stage = Stage::new().await;
    for order in 0..200 {
        stage.publish(order, Some(order % 50));
    }
    let dependency = Dependency::default();

    let members = [0, 1].map(|_| stage.run(builder(&stage, &dependency)));
    stage.wait_for_retries(200).await;
    assert_eq!(paused(&stage).await, [common::TOPIC]);
    let before = dependency.calls();
    assert!(before < 200, "{before} calls");
    wait_for_calls(&dependency, before + 3).await;
    assert_eq!(stage.retries().await, 200);
    assert!(stage.letters().await.is_empty());

    dependency.up(true);
    wait_for_effects(&stage, 200).await;
    wait_until_forgotten(&stage).await;
    for member in members {
        member.stop().await;
    }

    stage.in_order(50).await;
    stage.nothing_waits().await;
    assert!(stage.letters().await.is_empty());
}

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
async fn other_types_go_on_while_one_is_paused_even_behind_it_in_a_line() {
    async fn fails(_: Order, _: &mut Tx) -> Result<(), HandlerError> {
        Err("always".into())
    }
    async fn works(event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        if tx.attempt() == 1 {
            return Err(HandlerError::retry_after(Duration::from_millis(1)));
        }
        effect(event.order, tx).await
    }
    let stage = Stage::new().await;
    let at_once = HandlerSettings {
        defer_after: Duration::ZERO,
        ..quick(100)
    };
    // All in the database: lines whose first message is of the type that works, and whose second one is of the other.
    for order in 0..20 {
        stage.publish_of("works", order, Some(order));
        stage.publish_of("fails", 100 + order, Some(order));
    }

    let builder = stage.builder().defaults(at_once);
    let running = stage.run(builder.on("works", works).on("fails", fails));
    wait_for_effects(&stage, 20).await;
    wait::until_true(SOON, "the others to wait for their type", || async {
        lines_that_wait(&stage).await >= 19
    })
    .await;
    let wrong: i64 = sqlx::query_scalar(
        "select count(*) from onceward.held_keys h
         where h.waits_for is not null
           and h.waits_for <> (
             select r.type from onceward.retries r
             where r.consumer = h.consumer and r.line = h.line order by r.id limit 1)",
    )
    .fetch_one(stage.pool())
    .await
    .unwrap();
    running.stop().await;

    assert_eq!(wrong, 0, "a line waits for the type of its first message");
    assert_eq!(paused(&stage).await, ["fails"]);
}

#[tokio::test]
async fn a_consumer_whose_places_are_all_taken_still_tries_a_paused_type() {
    async fn hangs(gate: Arc<Semaphore>, event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        gate.acquire().await?.forget();
        effect(event.order, tx).await
    }
    let stage = Stage::new().await;
    publish_failing(&stage, 20);
    let (dependency, gate) = (Dependency::default(), Arc::new(Semaphore::new(0)));
    let limits = Limits {
        concurrency: 2,
        ..Limits::default()
    };
    let at_once = HandlerSettings {
        defer_after: Duration::ZERO,
        ..quick(1_000)
    };
    let builder = builder(&stage, &dependency).limits(limits);

    let builder = builder.defaults(at_once);
    let running = stage.run(builder.on_with("slow", gate.clone(), hangs));
    stage.wait_for_retries(20).await;
    for order in 100..104 {
        stage.publish_of("slow", order, None);
    }
    wait::until_true(SOON, "no place", || async {
        let busy: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity
             where datname = current_database() and state = 'idle in transaction'",
        )
        .fetch_one(stage.pool())
        .await
        .unwrap();
        busy >= 2
    })
    .await;
    dependency.up(true);
    wait_for_effects(&stage, 20).await;
    gate.add_permits(4);
    wait_for_effects(&stage, 24).await;
    running.stop().await;

    stage.nothing_waits().await;
}

#[tokio::test]
async fn where_no_more_may_wait_a_partition_is_not_read_and_nothing_is_lost() {
    let stage = Stage::new().await;
    let dependency = Dependency::default();
    let few = FailingTypes {
        deferred: 15,
        probe_every: Duration::from_millis(100),
        ..FailingTypes::default()
    };
    let limits = Limits {
        messages: 20,
        ..Limits::default()
    };
    publish_failing(&stage, 20);

    let builder = builder(&stage, &dependency).failing_types(few);
    let running = stage.run(builder.limits(limits));
    wait::until_true(SOON, "as many as may wait", || async {
        stage.retries().await >= 15
    })
    .await;
    // Long enough for them to be counted.
    let before = dependency.calls();
    wait_for_calls(&dependency, before + 15).await;
    for order in 20..200 {
        stage.publish(order, Some(order % 50));
    }
    // Tries go on, and what came later is neither handled nor deferred.
    let before = dependency.calls();
    wait_for_calls(&dependency, before + 20).await;
    let waiting = stage.retries().await;
    assert!(waiting < 50, "{waiting} wait");

    dependency.up(true);
    wait_for_effects(&stage, 200).await;
    running.stop().await;

    stage.in_order(50).await;
    stage.nothing_waits().await;
    assert!(stage.letters().await.is_empty());
}

#[tokio::test]
async fn with_room_for_none_a_paused_type_is_tried_all_the_same() {
    let stage = Stage::new().await;
    let dependency = Dependency::default();
    let none = FailingTypes {
        deferred: 0,
        probe_every: Duration::from_millis(100),
        ..FailingTypes::default()
    };
    publish_failing(&stage, 60);

    let running = stage.run(builder(&stage, &dependency).failing_types(none));
    wait_until_paused(&stage).await;
    let before = dependency.calls();
    wait_for_calls(&dependency, before + 15).await;
    dependency.up(true);
    wait_for_effects(&stage, 60).await;
    running.stop().await;

    stage.nothing_waits().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_die_at_any_time_leave_no_message_that_waits_for_ever() {
    let stage = Stage::new().await;
    for order in 0..300 {
        stage.publish(order, Some(order % 60));
    }
    let dependency = Dependency::default();
    let run = || stage.run(builder(&stage, &dependency));

    let mut members = vec![run(), run()];
    wait_until_paused(&stage).await;
    for round in 1..=6 {
        // Down and up again, so that the type is paused, probed and resumed while members die.
        dependency.up(round % 2 == 0);
        let before = dependency.calls();
        wait_for_calls(&dependency, before + 5).await;
        members.remove(0).kill().await;
        members.push(run());
        if stage.effects().await.len() >= 250 {
            break;
        }
    }
    dependency.up(true);
    wait_for_effects(&stage, 300).await;
    wait_until_forgotten(&stage).await;
    for member in members {
        member.stop().await;
    }

    stage.in_order(60).await;
    stage.nothing_waits().await;
    assert!(stage.letters().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_crashes_while_a_type_is_paused_delays_it_only() {
    let postgres = Postgres::start(Options::default()).await;
    let stage = Stage::on(&postgres).await;
    publish_failing(&stage, 100);
    let dependency = Dependency::default();

    let members = [0, 1].map(|_| stage.run(builder(&stage, &dependency)));
    wait_until_paused(&stage).await;
    postgres.kill();
    postgres.start_again().await;
    let before = dependency.calls();
    wait_for_calls(&dependency, before + 3).await;
    dependency.up(true);
    postgres.kill();
    postgres.start_again().await;
    wait_for_effects(&stage, 100).await;
    for member in members {
        member.stop().await;
    }

    let mut effects = stage.effects().await;
    effects.sort_unstable();
    assert_eq!(effects, (0..100).collect::<Vec<i64>>());
    stage.nothing_waits().await;
    assert!(stage.letters().await.is_empty());
}

#[tokio::test]
async fn a_message_that_is_deferred_while_its_type_is_resumed_is_due_at_once() {
    let stage = Stage::new().await;
    publish_failing(&stage, 12);
    let dependency = Dependency::default();
    let running = stage.run(builder(&stage, &dependency));
    wait_until_paused(&stage).await;
    running.stop().await;
    dependency.up(true);
    // This member knows of no pause yet; and the other one, which does, will be told of its end too late.
    let mut resumes = stage.pool().begin().await.unwrap();
    sqlx::query("update onceward.paused_types set resumed_at = now()")
        .execute(&mut *resumes)
        .await
        .unwrap();

    let running = stage.run(builder(&stage, &dependency));
    let published = AtomicU32::new(12);
    wait::until_true(SOON, "one to be deferred", || async {
        let order = published.fetch_add(1, Ordering::SeqCst);
        stage.publish(order.into(), Some(order.into()));
        stage.retries().await > 12
    })
    .await;
    resumes.commit().await.unwrap();
    let published = usize::try_from(published.into_inner()).unwrap();
    wait_for_effects(&stage, published).await;
    wait_until_forgotten(&stage).await;
    running.stop().await;

    stage.nothing_waits().await;
}

#[tokio::test]
async fn a_rejection_is_a_decision_about_one_message_and_pauses_nothing() {
    async fn rejects(_: Order, _: &mut Tx) -> Result<(), HandlerError> {
        Err(HandlerError::reject("no"))
    }
    let stage = Stage::new().await;
    publish_failing(&stage, 30);

    let running = stage.run(stage.builder().on("*", rejects));
    stage.settled(30).await;
    running.stop().await;

    assert_eq!(stage.letters().await.len(), 30);
    assert!(paused(&stage).await.is_empty());
}

#[tokio::test]
async fn who_wants_no_pauses_has_none() {
    async fn fails(_: Order, _: &mut Tx) -> Result<(), HandlerError> {
        Err("always".into())
    }
    let stage = Stage::new().await;
    publish_failing(&stage, 30);
    let never = FailingTypes {
        recent: 0,
        ..FailingTypes::default()
    };

    let builder = stage.builder().failing_types(never).defaults(quick(2));
    let running = stage.run(builder.on("*", fails));
    stage.settled(30).await;
    running.stop().await;

    assert_eq!(stage.letters().await.len(), 30);
    let error = stage.builder().on("*", fails).failing_types(FailingTypes {
        probe_every: Duration::ZERO,
        ..FailingTypes::default()
    });
    assert!(matches!(error.build(), Err(BuildError::Settings { .. })));
}

#[tokio::test]
async fn a_pause_that_somebody_deletes_by_hand_ends_too() {
    let stage = Stage::new().await;
    publish_failing(&stage, 20);
    let dependency = Dependency::default();
    let running = stage.run(builder(&stage, &dependency));
    stage.wait_for_retries(20).await;
    dependency.up(true);
    running.stop().await;
    sqlx::query("delete from onceward.paused_types")
        .execute(stage.pool())
        .await
        .unwrap();
    // As fifteen minutes would.
    sqlx::query("update onceward.held_keys set due_at = now()")
        .execute(stage.pool())
        .await
        .unwrap();

    let running = stage.run(builder(&stage, &dependency));
    wait_for_effects(&stage, 20).await;
    running.stop().await;

    stage.nothing_waits().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_try_that_takes_long_is_the_only_one_of_all_members() {
    async fn slow_once_paused(
        (running, most, calls): (Arc<AtomicU32>, Arc<AtomicU32>, Arc<AtomicU32>),
        _: Order,
        tx: &mut Tx,
    ) -> Result<(), HandlerError> {
        let paused: bool = sqlx::query_scalar("select exists (select from onceward.paused_types)")
            .fetch_one(&mut **tx)
            .await?;
        if paused {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            sqlx::query("select pg_sleep(0.4)")
                .execute(&mut **tx)
                .await?;
            running.fetch_sub(1, Ordering::SeqCst);
            calls.fetch_add(1, Ordering::SeqCst);
        }
        Err("the dependency is down".into())
    }
    let stage = Stage::new().await;
    publish_failing(&stage, 30);
    let state: (Arc<AtomicU32>, Arc<AtomicU32>, Arc<AtomicU32>) = Default::default();
    let often = FailingTypes {
        probe_every: Duration::from_millis(100),
        ..FailingTypes::default()
    };
    let builder = || {
        let builder = stage.builder().defaults(quick(1_000));
        builder
            .failing_types(often.clone())
            .on_with("*", state.clone(), slow_once_paused)
    };

    let members = [stage.run(builder()), stage.run(builder())];
    stage.wait_for_retries(30).await;
    // Those that had begun before the pause was known to all have ended after one more.
    wait_for_calls_of(&state.2, state.2.load(Ordering::SeqCst) + 2).await;
    state.1.store(0, Ordering::SeqCst);
    wait_for_calls_of(&state.2, state.2.load(Ordering::SeqCst) + 6).await;
    for member in members {
        member.stop().await;
    }

    assert_eq!(state.1.load(Ordering::SeqCst), 1);
}

async fn wait_for_calls_of(calls: &AtomicU32, count: u32) {
    wait::until_true(SOON, "some calls", || async {
        calls.load(Ordering::SeqCst) >= count
    })
    .await;
}

#[tokio::test]
async fn messages_of_a_paused_type_are_in_no_batch_and_wait_without_an_attempt() {
    async fn depends(
        on: Dependency,
        events: Vec<Order>,
        tx: &mut BatchTx,
    ) -> Result<(), HandlerError> {
        on.calls.fetch_add(1, Ordering::SeqCst);
        for event in events {
            sqlx::query("insert into effects (order_id) values ($1)")
                .bind(event.order)
                .execute(&mut **tx)
                .await?;
        }
        if !on.up.load(Ordering::SeqCst) {
            return Err("the dependency is down".into());
        }
        Ok(())
    }
    let stage = Stage::new().await;
    let dependency = Dependency::default();
    publish_failing(&stage, 200);
    let often = FailingTypes {
        probe_every: Duration::from_millis(100),
        ..FailingTypes::default()
    };

    let builder = stage.builder().defaults(quick(100)).failing_types(often);
    let running = stage.run(builder.on_batch_with("*", dependency.clone(), depends));
    stage.wait_for_retries(200).await;
    let calls = dependency.calls();
    assert!(calls < 200, "{calls} calls");
    // Later ones come when the pause is known.
    for order in 200..210 {
        stage.publish(order, Some(order));
    }
    stage.wait_for_retries(210).await;
    dependency.up(true);
    wait_for_effects(&stage, 210).await;
    wait_until_forgotten(&stage).await;
    running.stop().await;

    stage.nothing_waits().await;
    assert!(stage.letters().await.is_empty());
}

/// Writes lines of 1 message each that wait for a type, with these orders.
async fn let_wait(stage: &Stage, kind: &str, count: i64) {
    let columns = "consumer, line, topic, key, due_at, waits_for";
    let sql = format!(
        "with new as (
           select n, gen_random_uuid() as id from generate_series(1, {count}) n
         ), marks as (
           insert into onceward.processed_messages (slot, consumer, message_id, outcome)
           select onceward.mark_slot(id), 'billing', id, 1 from new
         ), held as (
           insert into onceward.held_keys ({columns})
           select 'billing', id, 'orders.created', 'k' || n, now() + interval '4 hours', '{kind}' from new
         )
         insert into onceward.retries
           (consumer, line, message_id, mark_slot, topic, key, type, headers, payload, origin, attempts, history, error, due_at)
         select 'billing', id, id, onceward.mark_slot(id), 'orders.created', 'k' || n, '{kind}', '{{}}',
           convert_to(json_build_object('order', n)::text, 'utf8'), '{{}}', 0, '[]', '', now()
         from new"
    );
    sqlx::query(sqlx::AssertSqlSafe(sql))
        .execute(stage.pool())
        .await
        .unwrap();
}

async fn pause_by_hand(stage: &Stage, kind: &str, in_seconds: i32) {
    sqlx::query(
        "insert into onceward.paused_types (consumer, type, probe_at)
         values ('billing', $1, now() + make_interval(secs => $2))",
    )
    .bind(kind)
    .bind(in_seconds)
    .execute(stage.pool())
    .await
    .unwrap();
}

#[tokio::test]
async fn while_much_is_made_due_messages_of_other_types_are_not_kept_waiting() {
    async fn hangs(_: Order, _: &mut Tx) -> Result<(), HandlerError> {
        std::future::pending().await
    }
    async fn waits_once(event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        if tx.attempt() == 1 {
            return Err(HandlerError::retry_after(Duration::from_millis(1)));
        }
        effect(event.order, tx).await
    }
    let stage = Stage::new().await;
    let_wait(&stage, "hangs", 5_000).await;
    pause_by_hand(&stage, "hangs", 0).await;
    sqlx::query("update onceward.paused_types set resumed_at = now()")
        .execute(stage.pool())
        .await
        .unwrap();
    let at_once = HandlerSettings {
        defer_after: Duration::ZERO,
        ..quick(100)
    };
    let one = HandlerSettings {
        concurrency: Some(1),
        ..quick(100)
    };
    let limits = Limits {
        grace: Duration::ZERO,
        ..Limits::default()
    };

    let builder = stage.builder().defaults(at_once).limits(limits);
    let running = stage.run(builder.on("hangs", hangs).with(one).on("works", waits_once));
    wait::until_true(SOON, "as many to be due as may", || async {
        lines_that_wait(&stage).await <= 4_000
    })
    .await;
    for order in 1..=20 {
        stage.publish_of("works", order, Some(order));
    }
    wait_for_effects(&stage, 20).await;
    let waiting = lines_that_wait(&stage).await;
    running.stop().await;

    // So many, and a few with each look.
    assert!(waiting > 3_000, "{waiting} wait");
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
async fn a_type_that_is_known_to_be_paused_costs_no_dead_letters() {
    let stage = Stage::new().await;
    let dependency = Dependency::default();
    publish_failing(&stage, 60);
    let one_attempt = || builder(&stage, &dependency).defaults(quick(1));

    let running = stage.run(one_attempt());
    stage.settled(60).await;
    running.stop().await;
    let letters = stage.letters().await.len();
    assert_eq!(letters, 9, "the tenth one has paused the type");
    assert_eq!(stage.retries().await, 51);

    // Another member asks before it begins.
    let running = stage.run(one_attempt());
    for order in 60..80 {
        stage.publish(order, Some(order));
    }
    stage.wait_for_retries(71).await;
    running.stop().await;

    assert_eq!(stage.letters().await.len(), letters);
}

#[tokio::test]
async fn a_type_that_is_resumed_too_soon_costs_few_attempts_until_it_is_paused_again() {
    /// Works once, when it is told to.
    async fn works_once(
        works: Arc<AtomicBool>,
        event: Order,
        tx: &mut Tx,
    ) -> Result<(), HandlerError> {
        effect(event.order, tx).await?;
        if works.swap(false, Ordering::SeqCst) {
            return Ok(());
        }
        Err("the dependency is down".into())
    }
    async fn attempts(stage: &Stage) -> i64 {
        sqlx::query_scalar("select coalesce(sum(attempts), 0) from onceward.retries")
            .fetch_one(stage.pool())
            .await
            .unwrap()
    }
    let stage = Stage::new().await;
    publish_failing(&stage, 60);
    let works = Arc::new(AtomicBool::new(false));
    let often = FailingTypes {
        probe_every: Duration::from_millis(100),
        ..FailingTypes::default()
    };
    let limits = Limits {
        concurrency: 1,
        ..Limits::default()
    };
    let at_once = HandlerSettings {
        defer_after: Duration::ZERO,
        ..quick(100)
    };
    let builder = stage.builder().defaults(at_once).limits(limits);
    let builder = builder.failing_types(often);

    let running = stage.run(builder.on_with("*", works.clone(), works_once));
    stage.wait_for_retries(60).await;
    wait::until_true(SOON, "all to wait for their type", || async {
        lines_that_wait(&stage).await >= 58
    })
    .await;
    let before = attempts(&stage).await;
    works.store(true, Ordering::SeqCst);
    wait_for_effects(&stage, 1).await;
    wait::until_true(SOON, "the type to be resumed", || async {
        paused(&stage).await.is_empty()
    })
    .await;
    wait_until_paused(&stage).await;
    running.stop().await;

    let cost = attempts(&stage).await - before;
    // Two that pause it again, and what runs beside them.
    assert!((2..=4).contains(&cost), "{cost} attempts");
}

#[tokio::test]
async fn a_consumer_with_one_handler_tries_a_paused_type_while_all_its_places_are_taken() {
    async fn hangs_if_slow(
        (dependency, gate): (Dependency, Arc<Semaphore>),
        event: Order,
        tx: &mut Tx,
    ) -> Result<(), HandlerError> {
        if event.order >= 100 {
            gate.acquire().await?.forget();
            return effect(event.order, tx).await;
        }
        depends(dependency, event, tx).await
    }
    let stage = Stage::new().await;
    let_wait(&stage, "paused", 20).await;
    pause_by_hand(&stage, "paused", 0).await;
    let (dependency, gate) = (Dependency::default(), Arc::new(Semaphore::new(0)));
    for order in 100..110 {
        stage.publish_of("slow", order, None);
    }
    let often = FailingTypes {
        probe_every: Duration::from_millis(100),
        ..FailingTypes::default()
    };
    let limits = Limits {
        concurrency: 2,
        ..Limits::default()
    };

    let builder = stage.builder().limits(limits).failing_types(often);
    let state = (dependency.clone(), gate.clone());
    let running = stage.run(builder.on_with("*", state, hangs_if_slow));
    wait_for_calls(&dependency, 3).await;
    dependency.up(true);
    wait_for_effects(&stage, 20).await;
    gate.add_permits(10);
    wait_for_effects(&stage, 30).await;
    running.stop().await;

    stage.nothing_waits().await;
}

#[tokio::test]
async fn messages_that_wait_for_their_type_cost_the_looks_for_others_nothing() {
    let stage = Stage::new().await;
    let_wait(&stage, "paused", 20_000).await;
    pause_by_hand(&stage, "paused", 0).await;
    let dependency = Dependency::default();

    let running = stage.run(builder(&stage, &dependency));
    // A look at what is due for each of them, at least.
    wait_for_calls(&dependency, 5).await;
    running.stop().await;
    // A backend tells what it has read when it ends, at the latest.
    stage.pool().close().await;
    let pool = sqlx::PgPool::connect(stage.database.url()).await.unwrap();
    wait::until_true(SOON, "the other backends to end", || async {
        let others: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity
             where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'",
        )
        .fetch_one(&pool)
        .await
        .unwrap();
        others == 0
    })
    .await;

    let read: i64 = sqlx::query_scalar(
        "select (select idx_tup_read from pg_stat_user_indexes where indexrelname = 'held_keys_due')
           + (select seq_tup_read from pg_stat_user_tables where relname = 'held_keys')",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert!(read < 10_000, "{read} rows were read");
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

//! A type of which most messages fail is paused for all members; one is tried now and then.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../common/mod.rs"]
mod common;
mod crashes;
mod pauses;
mod resumes;
mod room;
mod tries;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use common::{Order, SOON, Stage, effect, quick};
use onceward_consumer::{ConsumerBuilder, FailingTypes, HandlerError, HandlerSettings, Tx};
use onceward_testkit::wait;

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

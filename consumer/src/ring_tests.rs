//! Tests of forgetting.

use super::*;
use crate::transaction::testing::has_a_limit;

fn day(n: i64) -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + Duration::from_secs(86_400) * u32::try_from(n).unwrap()
}

#[test]
fn a_slot_is_emptied_by_its_newest_mark_and_cleaned_by_its_oldest() {
    let judged = |oldest, newest, needed| {
        let (oldest, newest) = (Some(day(oldest)), Some(day(newest)));
        judge(day(100), RETENTION, oldest, newest, needed)
    };
    let judge = |oldest, newest| judged(oldest, newest, false);

    assert_eq!(judge(80, 91), Verdict::Empty);
    assert_eq!(judge(91, 93), Verdict::Keep);
    assert_eq!(judge(80, 99), Verdict::Clean);
    assert_eq!(
        super::judge(day(100), RETENTION, None, None, false),
        Verdict::Keep,
        "an empty slot"
    );
    assert_eq!(judged(80, 91, true), Verdict::Clean);
}

async fn database() -> onceward_testkit::postgres::Database {
    let (database, _) = crate::transaction::testing::database().await;
    database
}

/// A mark of a message that is `id_days` old, settled `days` ago.
async fn mark(pool: &PgPool, id_days: u64, days: i32) -> i16 {
    let then = std::time::SystemTime::now() - Duration::from_secs(id_days * 86_400);
    mark_at(pool, then, days).await
}

/// A mark of a message whose id says `then`, settled `days` ago.
async fn mark_at(pool: &PgPool, then: std::time::SystemTime, days: i32) -> i16 {
    let since = then.duration_since(std::time::UNIX_EPOCH).unwrap();
    let at = uuid::Timestamp::from_unix(uuid::NoContext, since.as_secs(), 0);
    sqlx::query_scalar(
        "insert into onceward.processed_messages (slot, consumer, message_id, outcome, settled_at)
         values (onceward.mark_slot($1), 'c', $1, 0, now() - $2 * interval '1 day')
         returning slot",
    )
    .bind(uuid::Uuid::new_v7(at))
    .bind(days)
    .fetch_one(pool)
    .await
    .unwrap()
}

async fn marks(pool: &PgPool) -> i64 {
    sqlx::query_scalar("select count(*) from onceward.processed_messages")
        .fetch_one(pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn old_slots_are_emptied_and_an_old_message_that_was_handled_late_keeps_its_mark() {
    let database = database().await;
    let pool = database.pool();
    let schema = Schema::default();
    mark(pool, 9, 9).await;
    mark(pool, 9, 9).await;
    // Older than any retention, but handled yesterday: into a slot that would be due by its own time.
    mark(pool, 8, 1).await;
    mark(pool, 0, 0).await;

    let swept = sweep(pool, &schema, RETENTION).await.unwrap();
    let again = sweep(pool, &schema, RETENTION).await.unwrap();

    assert_eq!((swept.emptied, swept.deleted, swept.locked), (1, 0, 0));
    assert_eq!(again, Swept::default());
    assert_eq!(marks(pool).await, 2);
}

#[tokio::test]
async fn an_id_from_the_future_has_its_mark_as_long_as_any_other() {
    let database = database().await;
    let pool = database.pool();
    let schema = Schema::default();
    // Whole turns of the ring of twelve days, so that all lie in one slot.
    let turns = |turns: u64| Duration::from_secs(turns * 12 * 86_400);
    let now = std::time::SystemTime::now();
    let of_now = mark_at(pool, now, 9).await;
    let in_years = mark_at(pool, now + turns(300), 7).await;
    let last = now + turns(80_000);
    assert_eq!([of_now, mark_at(pool, last, 9).await], [in_years; 2]);

    let kept = sweep(pool, &schema, RETENTION).await.unwrap();
    sqlx::query(
        "update onceward.processed_messages set settled_at = settled_at - interval '2 days'",
    )
    .execute(pool)
    .await
    .unwrap();
    let gone = sweep(pool, &schema, RETENTION).await.unwrap();

    assert_eq!(kept, Swept::default());
    assert_eq!((gone.emptied, marks(pool).await), (1, 0));
}

#[tokio::test]
async fn a_slot_into_which_marks_trickle_is_cleaned_row_by_row() {
    let database = database().await;
    let pool = database.pool();
    let schema = Schema::default();
    let old = mark(pool, 12, 11).await;
    let new = mark(pool, 0, 0).await;
    assert_eq!(old, new, "12 days later the ring has come round");

    let swept = sweep(pool, &schema, RETENTION).await.unwrap();

    assert_eq!((swept.emptied, swept.deleted), (0, 1));
    assert_eq!(marks(pool).await, 1);
}

#[tokio::test]
async fn a_slot_that_somebody_uses_is_left_for_the_next_round() {
    let database = database().await;
    let pool = database.pool();
    let schema = Schema::default();
    mark(pool, 9, 9).await;
    let mut other = pool.begin().await.unwrap();
    sqlx::query("select count(*) from onceward.processed_messages")
        .execute(&mut *other)
        .await
        .unwrap();

    let swept = sweep(pool, &schema, RETENTION).await.unwrap();
    other.commit().await.unwrap();
    let again = sweep(pool, &schema, RETENTION).await.unwrap();

    assert_eq!((swept.emptied, swept.locked), (0, 1));
    assert_eq!((again.emptied, again.locked), (1, 0));
}

#[tokio::test]
async fn a_mark_is_kept_while_its_message_waits() {
    let database = database().await;
    let pool = database.pool();
    let schema = Schema::default();
    mark(pool, 12, 12).await;
    mark(pool, 12, 12).await;
    sqlx::query(
        "insert into onceward.retries (consumer, line, message_id, mark_slot, topic, type, payload, due_at)
         select consumer, message_id, message_id, slot, 't', 't', '', now()
         from onceward.processed_messages
         limit 1",
    )
    .execute(pool)
    .await
    .unwrap();

    let swept = sweep(pool, &schema, RETENTION).await.unwrap();

    assert_eq!((swept.emptied, swept.deleted), (0, 1));
    assert_eq!(marks(pool).await, 1);
}

#[tokio::test]
async fn no_round_waits_for_ever() {
    let (schema, now) = (Schema::default(), day(100));

    has_a_limit("a round", async |pool| {
        sweep(pool, &schema, RETENTION).await
    })
    .await;
    has_a_limit("emptying a slot", async |pool| {
        empty(pool, &schema, 1, now, RETENTION).await
    })
    .await;
    has_a_limit("cleaning a slot", async |pool| {
        clean(pool, &schema, 1, now).await
    })
    .await;
    has_a_limit("forgetting starts", async |pool| {
        forget_starts(pool, &schema, now).await
    })
    .await;
}

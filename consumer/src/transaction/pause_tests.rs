//! Tests of paused types in a real database.

use super::super::testing::database;
use super::*;

const KIND: &str = "t";

/// So many lines that wait for the type.
async fn let_wait(database: &Database, count: i32) {
    sqlx::query(
        "insert into onceward.held_keys (consumer, line, topic, due_at, waits_for)
         select 'billing', gen_random_uuid(), 'orders', now() + interval '4 hours', $1 from generate_series(1, $2)",
    )
    .bind(KIND)
    .bind(count)
    .execute(&database.pool)
    .await
    .unwrap();
}

async fn waiting(database: &Database) -> i64 {
    sqlx::query_scalar("select count(*) from onceward.held_keys where waits_for is not null")
        .fetch_one(&database.pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn nothing_is_made_due_for_a_type_that_is_paused_again() {
    let (_test, database) = database().await;
    let_wait(&database, 3).await;
    database.pause(KIND, "", Duration::ZERO).await.unwrap();

    assert!(!database.make_due(KIND).await.unwrap());
    assert_eq!(waiting(&database).await, 3);
    database.resume(KIND).await.unwrap();
    assert!(database.make_due(KIND).await.unwrap());

    assert_eq!(waiting(&database).await, 0);
}

#[tokio::test]
async fn no_more_are_made_due_than_others_may_have_before_them() {
    let (_test, database) = database().await;
    let_wait(&database, 2_500).await;
    database.pause(KIND, "", Duration::ZERO).await.unwrap();
    database.resume(KIND).await.unwrap();

    database.make_due(KIND).await.unwrap();
    assert_eq!(waiting(&database).await, 1_500);
    database.make_due(KIND).await.unwrap();

    assert_eq!(waiting(&database).await, 1_490, "it goes on all the same");
}

#[tokio::test]
async fn a_turn_that_is_not_ours_any_more_can_neither_be_renewed_nor_ended() {
    let (_test, database) = database().await;
    let_wait(&database, 3).await;
    database.pause(KIND, "", Duration::ZERO).await.unwrap();
    let Turn::Ours(_, first) = database.turn(KIND).await.unwrap() else {
        panic!("nobody has the turn");
    };
    assert_eq!(database.turn(KIND).await.unwrap(), Turn::Theirs);

    // It takes too long, and somebody else has a turn.
    sqlx::query("update onceward.paused_types set probe_at = now()")
        .execute(&database.pool)
        .await
        .unwrap();
    let Turn::Ours(_, second) = database.turn(KIND).await.unwrap() else {
        panic!("the turn is open");
    };
    let late = database.move_turn(KIND, first, Duration::ZERO).await;
    assert_eq!(late.unwrap(), None);
    assert_eq!(database.turn(KIND).await.unwrap(), Turn::Theirs);

    let renewed = database.move_turn(KIND, second, TURN).await.unwrap();
    assert!(renewed.unwrap() > second);
    let ended = database.move_turn(KIND, renewed.unwrap(), Duration::ZERO);
    assert!(ended.await.unwrap().is_some());
    assert!(matches!(database.turn(KIND).await.unwrap(), Turn::Ours(..)));
}

#[tokio::test]
async fn a_count_that_takes_too_long_is_no_outage() {
    let (_test, database) = database().await;
    let mut busy = database.pool.begin().await.unwrap();
    sqlx::query("lock table onceward.retries")
        .execute(&mut *busy)
        .await
        .unwrap();

    assert_eq!(database.count_waiting(10).await.unwrap(), None);
    busy.rollback().await.unwrap();

    assert_eq!(database.count_waiting(10).await.unwrap(), Some(0));
}

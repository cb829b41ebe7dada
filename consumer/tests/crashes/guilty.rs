//! Messages that kill their process: each is given up on, whatever it came from.

use std::sync::atomic::Ordering;
use std::time::Duration;

use onceward_consumer::{HandlerError, HandlerSettings, Limits, Tx};
use onceward_testkit::wait;

use crate::common::{Order, SOON, Stage, quick, write_effect};
use crate::{DEADLY, Deadly, crashes, deadly, one_at_a_time, starts};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_kills_its_process_is_given_up_on_and_its_neighbours_are_handled() {
    let _one = one_at_a_time().await;
    let stage = Stage::new().await;
    for order in 1..=5 {
        stage.publish(order, Some(order));
    }
    let deadly = Deadly::new();
    // All five are in work when the process dies.
    deadly.kill(stage.run(deadly.builder(&stage)), 5).await;
    assert_eq!(starts(&stage).await, 5);
    deadly.neighbours_wait.store(false, Ordering::SeqCst);

    for _ in 0..3 {
        deadly.kill(stage.run(deadly.builder(&stage)), 1).await;
        assert_eq!(deadly.beside.load(Ordering::SeqCst), 0, "it ran alone");
    }
    let last = stage.run(deadly.builder(&stage));
    stage.settled(5).await;
    last.stop().await;

    let mut effects = stage.effects().await;
    effects.sort_unstable();
    assert_eq!(effects, [2, 3, 4, 5]);
    let letters = stage.letters().await;
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].0, "crashed");
    assert_eq!(starts(&stage).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neighbours_that_are_in_work_at_each_crash_are_never_given_up_on() {
    let _one = one_at_a_time().await;
    let stage = Stage::new().await;
    let deadly = Deadly::new();
    // Two orders that take long, and are killed again and again, though neither kills.
    stage.publish(10, Some(10));
    stage.publish(11, Some(11));
    let one = Limits {
        concurrency: 2,
        ..Limits::default()
    };
    deadly
        .kill(stage.run(deadly.builder(&stage).limits(one)), 2)
        .await;
    assert_eq!(starts(&stage).await, 2);

    deadly.neighbours_wait.store(false, Ordering::SeqCst);
    let last = stage.run(deadly.builder(&stage));
    stage.settled(2).await;
    last.stop().await;

    let mut effects = stage.effects().await;
    effects.sort_unstable();
    assert_eq!(effects, [10, 11]);
    assert!(stage.letters().await.is_empty());
    assert_eq!(starts(&stage).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_waits_and_kills_its_process_is_given_up_on_too() {
    async fn dies_later(deadly: Deadly, event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        if tx.attempt() == 1 {
            return Err(HandlerError::retry_after(Duration::from_millis(10)));
        }
        self::deadly(deadly, event, tx).await
    }
    let _one = one_at_a_time().await;
    let stage = Stage::new().await;
    stage.publish(1, Some(1));
    stage.publish(2, Some(1));
    let deadly = Deadly::new();
    deadly.neighbours_wait.store(false, Ordering::SeqCst);
    let builder = || {
        let settings = HandlerSettings {
            defer_after: Duration::ZERO,
            ..quick(5)
        };
        let builder = stage.builder().defaults(settings);
        builder.on_with("*", deadly.clone(), dies_later)
    };

    // Two members: the other one must not take the message for its own while one is at it.
    for _ in 0..4 {
        let other = stage.run(builder());
        let one = stage.run(builder());
        deadly.begun.acquire().await.unwrap().forget();
        one.kill().await;
        other.kill().await;
    }
    let last = stage.run(builder());
    wait::until_true(SOON, "the follower", || async {
        stage.effects().await == [2]
    })
    .await;
    last.stop().await;

    assert_eq!(stage.letters().await.len(), 1);
    assert_eq!(stage.letters().await[0].0, "crashed");
    assert_eq!(starts(&stage).await, 0);
    stage.nothing_waits().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alone_is_alone_among_all_consumers_of_the_process() {
    let _one = one_at_a_time().await;
    let stage = Stage::new().await;
    stage.publish(DEADLY, Some(1));
    let deadly = Deadly::new();
    deadly.kill(stage.run(deadly.builder(&stage)), 1).await;
    // The same handlers of another consumer, which has a database of its own.
    let other_stage = Stage::new().await;
    other_stage.publish(2, Some(2));
    let settings = HandlerSettings {
        deadline: Duration::from_secs(3),
        ..quick(100)
    };
    let other = other_stage.run(deadly.builder(&other_stage).defaults(settings));
    deadly.begun.acquire().await.unwrap().forget();
    deadly.neighbours_wait.store(false, Ordering::SeqCst);

    let running = stage.run(deadly.builder(&stage));
    deadly.begun.acquire().await.unwrap().forget();
    assert_eq!(deadly.beside.load(Ordering::SeqCst), 0);
    running.kill().await;
    other_stage.settled(1).await;
    other.stop().await;

    assert_eq!(other_stage.effects().await, [2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_fails_before_it_kills_its_process_is_given_up_on_too() {
    async fn fails_first(deadly: Deadly, event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        if tx.attempt() == 1 {
            return Err("not yet".into());
        }
        self::deadly(deadly, event, tx).await
    }
    let _one = one_at_a_time().await;
    let stage = Stage::new().await;
    stage.publish(DEADLY, Some(1));
    let deadly = Deadly::new();
    let run = || stage.run(stage.builder().on_with("*", deadly.clone(), fails_first));

    // Beside others once, and then alone, at its second attempt each time.
    for _ in 0..4 {
        deadly.kill(run(), 1).await;
    }
    let last = run();
    stage.settled(1).await;
    last.stop().await;

    let reasons: Vec<String> = stage.letters().await.into_iter().map(|one| one.0).collect();
    assert_eq!(reasons, ["crashed"]);
    assert_eq!(starts(&stage).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_that_cannot_be_written_leaves_the_crashes_known() {
    let _one = one_at_a_time().await;
    let stage = Stage::new().await;
    stage.publish(1, Some(1));
    let deadly = Deadly::new();
    for _ in 0..4 {
        deadly.kill(stage.run(deadly.builder(&stage)), 1).await;
    }
    sqlx::raw_sql(
        "create function refuse() returns trigger language plpgsql as $$ begin raise 'no'; end $$;
         create trigger refuse after insert on onceward.dead_letters execute function refuse()",
    )
    .execute(stage.pool())
    .await
    .unwrap();

    let running = stage.run(deadly.builder(&stage));
    wait::until_true(SOON, "a letter that is refused", || async {
        let ends: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity
             where datname = current_database() and query ilike '%rollback%' and pid <> pg_backend_pid()",
        )
        .fetch_one(stage.pool())
        .await
        .unwrap();
        ends > 0
    })
    .await;
    running.kill().await;
    assert_eq!(crashes(&stage).await, (true, 2));
    sqlx::raw_sql("drop trigger refuse on onceward.dead_letters")
        .execute(stage.pool())
        .await
        .unwrap();
    let running = stage.run(deadly.builder(&stage));
    stage.settled(1).await;
    running.stop().await;

    assert_eq!(stage.letters().await[0].0, "crashed");
    assert_eq!(starts(&stage).await, 0);
    assert_eq!(
        deadly.begun.available_permits(),
        0,
        "it was not handled again"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replayed_dead_letter_of_a_crash_is_handled_again() {
    use onceward_consumer::Schema;
    use onceward_consumer::dead_letter::{To, replay};

    let _one = one_at_a_time().await;
    let stage = Stage::new().await;
    stage.publish(1, Some(1));
    let deadly = Deadly::new();
    for _ in 0..4 {
        deadly.kill(stage.run(deadly.builder(&stage)), 1).await;
    }
    let last = stage.run(deadly.builder(&stage));
    stage.settled(1).await;
    last.stop().await;

    let id: i64 = sqlx::query_scalar("select id from onceward.dead_letters")
        .fetch_one(stage.pool())
        .await
        .unwrap();
    replay(stage.pool(), &Schema::default(), id, To::Consumer, "alice")
        .await
        .unwrap();
    let mended = stage.run(stage.builder().on("*", write_effect));
    wait::until_true(SOON, "the effect", || async {
        stage.effects().await == [1]
    })
    .await;
    mended.stop().await;

    assert_eq!(starts(&stage).await, 0);
    stage.nothing_waits().await;
}

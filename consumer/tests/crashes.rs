//! Messages that kill their process are found out, and their neighbours are not buried with them.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use common::scripted::{Book, Scripted, delivery};
use common::{Order, Running, SOON, Stage, effect, quick};
use onceward_consumer::{
    BatchSettings, BatchTx, ConsumerBuilder, HandlerError, HandlerSettings, Limits, Tx,
};
use onceward_core::{Arrival, MessageId, SubscribeError, SubscribeErrorKind};
use onceward_testkit::postgres::{Options, Postgres};
use onceward_testkit::wait;
use tokio::sync::{Mutex, MutexGuard, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

/// The deadly order never ends: the test then ends the process. Others take as long as they are told.
#[derive(Clone)]
struct Deadly {
    begun: Arc<Semaphore>,
    neighbours_wait: Arc<AtomicBool>,
    running: Arc<AtomicU32>,
    /// How many ran beside the deadly one, at most.
    beside: Arc<AtomicU32>,
}

const DEADLY: i64 = 1;

/// What runs alone does so in the whole process: the handlers of another test, which hang until that one ends them, would be waited for.
async fn one_at_a_time() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::const_new(());
    ONE.lock().await
}

/// Counts who runs, also when it is dropped.
struct Counted(Arc<AtomicU32>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn deadly(deadly: Deadly, event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
    deadly.running.fetch_add(1, Ordering::SeqCst);
    let _counted = Counted(deadly.running.clone());
    effect(event.order, tx).await?;
    if event.order == DEADLY || deadly.neighbours_wait.load(Ordering::SeqCst) {
        // Before the test hears of it: once it does, it reads this.
        if event.order == DEADLY {
            let beside = deadly.running.load(Ordering::SeqCst) - 1;
            deadly.beside.store(beside, Ordering::SeqCst);
        }
        deadly.begun.add_permits(1);
        std::future::pending().await
    }
    Ok(())
}

impl Deadly {
    fn new() -> Self {
        Self {
            begun: Arc::new(Semaphore::new(0)),
            neighbours_wait: Arc::new(AtomicBool::new(true)),
            running: Arc::default(),
            beside: Arc::default(),
        }
    }

    /// Waits until so many handlers hang, and kills the consumer.
    async fn kill(&self, running: Running, hang: u32) {
        let begun = tokio::time::timeout(SOON, self.begun.acquire_many(hang));
        begun.await.unwrap().unwrap().forget();
        running.kill().await;
    }

    fn builder(&self, stage: &Stage) -> ConsumerBuilder {
        stage.builder().on_with("*", self.clone(), deadly)
    }
}

async fn starts(stage: &Stage) -> i64 {
    sqlx::query_scalar("select count(*) from onceward.starts")
        .fetch_one(stage.pool())
        .await
        .unwrap()
}

/// What is known of the start of the only message that has one.
async fn crashes(stage: &Stage) -> (bool, i16) {
    sqlx::query_as("select alone, crashes from onceward.starts")
        .fetch_one(stage.pool())
        .await
        .unwrap()
}

async fn wait_for_no_starts(stage: &Stage) {
    wait::until_true(SOON, "no start without an end", || async {
        let count: Result<i64, _> = sqlx::query_scalar("select count(*) from onceward.starts")
            .fetch_one(stage.pool())
            .await;
        count.is_ok_and(|count| count == 0)
    })
    .await;
}

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

#[tokio::test]
async fn of_a_partition_that_nobody_died_at_only_the_first_deliveries_write_a_start() {
    let _one = one_at_a_time().await;
    let stage = Stage::new().await;
    sqlx::raw_sql(
        "create sequence written;
         create function note() returns trigger language plpgsql as $$ begin perform nextval('written'); return null; end $$;
         create trigger note after insert or update on onceward.starts for each row execute function note()",
    )
    .execute(stage.pool())
    .await
    .unwrap();
    for order in 0..300 {
        stage.publish(order, Some(order));
    }

    let running = stage.run(stage.builder().on("*", common::write_effect));
    stage.settled(300).await;
    running.stop().await;

    let written: i64 = sqlx::query_scalar("select last_value from written")
        .fetch_one(stage.pool())
        .await
        .unwrap();
    // As many as run at a time, and those that ran beside the last of them.
    let at_a_time = i64::try_from(Limits::default().concurrency).unwrap();
    assert!((1..=2 * at_a_time).contains(&written), "{written}");
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

#[tokio::test]
async fn an_attempt_that_fails_is_no_crash_and_leaves_no_start() {
    async fn fails(event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        match tx.attempt() {
            1 => Err("not yet".into()),
            2 => Err(HandlerError::retry_after(Duration::from_secs(6))),
            3 => {
                sqlx::query("select 1 / 0").execute(&mut **tx).await?;
                Ok(())
            }
            4 => std::future::pending().await,
            5 => panic!("planned"),
            _ => effect(event.order, tx).await,
        }
    }
    let _one = one_at_a_time().await;
    let stage = Stage::new().await;
    stage.publish(1, Some(1));
    let settings = HandlerSettings {
        deadline: Duration::from_millis(300),
        ..quick(9)
    };

    let running = stage.run(stage.builder().defaults(settings).on("*", fails));
    wait::until_true(SOON, "the effect", || async {
        stage.effects().await == [1]
    })
    .await;
    running.stop().await;

    assert_eq!(starts(&stage).await, 0);
    stage.nothing_waits().await;
}

#[tokio::test]
async fn a_member_that_is_stopped_is_not_taken_for_dead() {
    let _one = one_at_a_time().await;
    let stage = Stage::new().await;
    stage.publish(1, Some(1));
    let deadly = Deadly::new();
    let limits = Limits {
        grace: Duration::from_millis(50),
        ..Limits::default()
    };

    for _ in 0..5 {
        let running = stage.run(deadly.builder(&stage).limits(limits.clone()));
        deadly.begun.acquire().await.unwrap().forget();
        running.stop().await;
        assert_eq!(starts(&stage).await, 0);
    }

    assert!(stage.letters().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_lost_its_partition_and_still_handles_is_not_taken_for_dead() {
    let _one = one_at_a_time().await;
    let stage = Stage::new().await;
    stage.publish(1, Some(1));
    let deadly = Deadly::new();
    let slow = HandlerSettings {
        deadline: Duration::from_secs(4),
        ..quick(50)
    };
    let members = [0, 1].map(|_| {
        let builder = stage.builder().defaults(slow.clone());
        stage.run(builder.on_with("*", deadly.clone(), self::deadly))
    });
    deadly.begun.acquire().await.unwrap().forget();

    // The other one gets it, or this one again, and neither may count the other's start.
    for _ in 0..4 {
        stage.broker.stop();
        stage.broker.start();
        deadly.begun.acquire().await.unwrap().forget();
    }
    for member in members {
        member.kill().await;
    }

    assert!(stage.letters().await.is_empty());
    let counted: i32 = sqlx::query_scalar("select coalesce(max(crashes), 0) from onceward.starts")
        .fetch_one(stage.pool())
        .await
        .unwrap();
    assert_eq!(counted, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_the_database_while_a_suspect_runs_alone_is_no_crash() {
    let _one = one_at_a_time().await;
    let postgres = Postgres::start(Options::default()).await;
    let stage = Stage::on(&postgres).await;
    stage.publish(1, Some(1));
    let deadly = Deadly::new();
    deadly.kill(stage.run(deadly.builder(&stage)), 1).await;
    let quick = HandlerSettings {
        deadline: Duration::from_secs(2),
        ..quick(1_000)
    };

    let running = stage.run(deadly.builder(&stage).defaults(quick));
    for _ in 0..4 {
        deadly.begun.acquire().await.unwrap().forget();
        postgres.kill();
        postgres.start_again().await;
    }
    deadly.begun.acquire().await.unwrap().forget();
    running.stop().await;

    assert!(stage.letters().await.is_empty());
    // The server may have forgotten the start, but nothing has counted as a crash, or would.
    wait::until_true(SOON, "the end of the last start", || async {
        let counted: i64 =
            sqlx::query_scalar("select count(*) from onceward.starts where alone or crashes > 0")
                .fetch_one(stage.pool())
                .await
                .unwrap();
        counted == 0
    })
    .await;
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
async fn a_suspect_that_fails_while_it_is_alone_is_handled_later_and_leaves_no_start() {
    async fn fails(fails: Arc<AtomicBool>, event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        effect(event.order, tx).await?;
        if fails.load(Ordering::SeqCst) {
            return Err("not yet".into());
        }
        Ok(())
    }
    let _one = one_at_a_time().await;
    let stage = Stage::new().await;
    stage.publish(DEADLY, Some(1));
    stage.publish(2, Some(2));
    let deadly = Deadly::new();
    deadly.kill(stage.run(deadly.builder(&stage)), 2).await;
    assert_eq!(starts(&stage).await, 2);

    let failing = Arc::new(AtomicBool::new(true));
    let settings = HandlerSettings {
        defer_after: Duration::ZERO,
        ..quick(1_000)
    };
    let builder = stage.builder().defaults(settings);
    let running = stage.run(builder.on_with("*", failing.clone(), fails));
    stage.wait_for_retries(2).await;
    failing.store(false, Ordering::SeqCst);
    wait::until_true(SOON, "the effects", || async {
        stage.effects().await.len() == 2
    })
    .await;
    running.stop().await;

    assert_eq!(starts(&stage).await, 0);
    stage.nothing_waits().await;
    assert!(stage.letters().await.is_empty());
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
         create trigger refuse before insert on onceward.dead_letters execute function refuse()",
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
    let mended = stage.run(stage.builder().on("*", common::write_effect));
    wait::until_true(SOON, "the effect", || async {
        stage.effects().await == [1]
    })
    .await;
    mended.stop().await;

    assert_eq!(starts(&stage).await, 0);
    stage.nothing_waits().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_batch_that_killed_its_process_only_the_guilty_message_is_given_up_on() {
    async fn deadly_batch(
        deadly: Deadly,
        events: Vec<Order>,
        tx: &mut BatchTx,
    ) -> Result<(), HandlerError> {
        for event in &events {
            sqlx::query("insert into effects (order_id) values ($1)")
                .bind(event.order)
                .execute(&mut **tx)
                .await?;
        }
        if events.iter().any(|event| event.order == DEADLY) {
            deadly.begun.add_permits(1);
            std::future::pending().await
        }
        Ok(())
    }
    let _one = one_at_a_time().await;
    let stage = Stage::new().await;
    for order in 1..=5 {
        stage.publish(order, Some(order));
    }
    let deadly = Deadly::new();
    let run = || {
        let builder = stage.builder();
        stage.run(builder.on_batch_with("*", deadly.clone(), deadly_batch))
    };

    deadly.kill(run(), 1).await;
    assert_eq!(starts(&stage).await, 5, "any of them may have been the one");
    for _ in 0..3 {
        deadly.kill(run(), 1).await;
    }
    let last = run();
    stage.settled(5).await;
    last.stop().await;

    let mut effects = stage.effects().await;
    effects.sort_unstable();
    assert_eq!(effects, [2, 3, 4, 5]);
    let reasons: Vec<String> = stage.letters().await.into_iter().map(|one| one.0).collect();
    assert_eq!(reasons, ["crashed"]);
    wait_for_no_starts(&stage).await;
}

#[tokio::test]
async fn a_batch_leaves_no_starts_whether_it_is_handled_or_fails() {
    async fn first_fails(
        calls: Arc<AtomicU32>,
        events: Vec<Order>,
        tx: &mut BatchTx,
    ) -> Result<(), HandlerError> {
        if calls.fetch_add(1, Ordering::SeqCst) == 0 {
            return Err("the first call".into());
        }
        for event in events {
            sqlx::query("insert into effects (order_id) values ($1)")
                .bind(event.order)
                .execute(&mut **tx)
                .await?;
        }
        Ok(())
    }
    let _one = one_at_a_time().await;
    let stage = Stage::new().await;
    for order in 0..20 {
        stage.publish(order, None);
    }
    let calls = Arc::new(AtomicU32::new(0));

    let running = stage.run(stage.builder().on_batch_with("*", calls, first_fails));
    stage.settled(20).await;
    running.stop().await;

    assert_eq!(stage.effects().await.len(), 20);
    assert_eq!(starts(&stage).await, 0);
}

/// Of a broker that does not tell what it delivers again: so many messages without a key, with the ids that it gave them before.
fn untold(ids: &[MessageId]) -> Vec<Arrival<u64>> {
    let numbered = (0..).zip(ids);
    let arrivals = numbered.map(|(order, id)| {
        let Arrival::Delivery(mut delivery) = delivery(order, None) else {
            unreachable!("it is a delivery")
        };
        let message = delivery.message.as_mut().unwrap();
        (message.id, message.key) = (id.clone(), None);
        Arrival::Delivery(delivery)
    });
    arrivals.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_batches_that_died_together_each_message_is_a_suspect() {
    async fn hangs(
        (begun, dies): (Arc<Semaphore>, bool),
        events: Vec<Order>,
        tx: &mut BatchTx,
    ) -> Result<(), HandlerError> {
        if dies {
            begun.add_permits(1);
            return std::future::pending().await;
        }
        for event in events {
            sqlx::query("insert into effects (order_id) values ($1)")
                .bind(event.order)
                .execute(&mut **tx)
                .await?;
        }
        Ok(())
    }
    let _one = one_at_a_time().await;
    let stage = Stage::new().await;
    let begun = Arc::new(Semaphore::new(0));
    let ids: Vec<MessageId> = (0..40).map(|_| MessageId::new()).collect();
    let settings = HandlerSettings {
        concurrency: Some(4),
        batch: BatchSettings {
            messages: 10,
            ..BatchSettings::default()
        },
        ..quick(3)
    };
    let run = |dies| {
        let builder = stage.builder().defaults(settings.clone());
        let builder = builder.on_batch_with("*", (begun.clone(), dies), hangs);
        let (script, lines) = mpsc::unbounded_channel();
        script.send(Ok(untold(&ids))).unwrap();
        let (stop, book) = (CancellationToken::new(), Book::default());
        let subscriber = Scripted {
            script: lines,
            book,
        };
        let consumer = builder.build().unwrap();
        Running {
            task: tokio::spawn(consumer.run(subscriber, stop.clone())),
            stop,
        }
    };

    let dies = run(true);
    begun.acquire_many(4).await.unwrap().forget();
    dies.kill().await;
    assert_eq!(starts(&stage).await, 40);
    let lives = run(false);
    stage.settled(40).await;
    lives.stop().await;

    assert_eq!(stage.effects().await.len(), 40);
    assert_eq!(starts(&stage).await, 0, "none was handled without a look");
}

#[tokio::test]
async fn a_consumer_that_ends_by_an_error_leaves_no_start_behind() {
    let _one = one_at_a_time().await;
    let stage = Stage::new().await;
    let deadly = Deadly::new();
    let (script, lines) = mpsc::unbounded_channel();
    script
        .send(Ok(vec![delivery(u64::try_from(DEADLY).unwrap(), None)]))
        .unwrap();
    let subscriber = Scripted {
        script: lines,
        book: Book::default(),
    };
    let consumer = deadly.builder(&stage).build().unwrap();
    let run = tokio::spawn(consumer.run(subscriber, CancellationToken::new()));
    let begun = tokio::time::timeout(SOON, deadly.begun.acquire());
    begun.await.unwrap().unwrap().forget();
    assert_eq!(starts(&stage).await, 1);

    let error = SubscribeError::new(SubscribeErrorKind::Misconfigured, "because");
    script.send(Err(error)).unwrap();
    let ended = tokio::time::timeout(SOON, run).await.unwrap().unwrap();

    assert!(ended.is_err(), "{ended:?}");
    assert_eq!(starts(&stage).await, 0);
}

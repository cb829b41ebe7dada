//! What the consumer does at the seam to a broker: extending, revocations, losses, jumps, refusals.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::scripted::{Book, Did, Script, Scripted, delivery, partition};
use common::{Order, SOON, Stage, effect, quick, write_effect};
use onceward_consumer::{
    BatchSettings, BatchTx, Consumer, ConsumerBuilder, ConsumerError, HandlerError,
    HandlerSettings, Tx,
};
use onceward_core::{Arrival, Release, SubscribeError, SubscribeErrorKind};
use onceward_testkit::wait;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

struct Play {
    stage: Stage,
    script: mpsc::UnboundedSender<Script>,
    book: Book,
    gate: Arc<Semaphore>,
    stop: CancellationToken,
    task: JoinHandle<Result<(), ConsumerError>>,
}

async fn waits(gate: Arc<Semaphore>, event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
    gate.acquire().await?.forget();
    effect(event.order, tx).await
}

async fn play() -> Play {
    play_with(|builder, gate| builder.on_with("*", gate, waits)).await
}

async fn play_with(
    handled: impl FnOnce(ConsumerBuilder, Arc<Semaphore>) -> ConsumerBuilder,
) -> Play {
    let stage = Stage::new().await;
    let (script, lines) = mpsc::unbounded_channel();
    let book = Book::default();
    let gate = Arc::new(Semaphore::new(0));
    let builder = handled(stage.builder(), gate.clone());
    let consumer = builder.build().unwrap();
    let stop = CancellationToken::new();
    let subscriber = Scripted {
        script: lines,
        book: book.clone(),
    };
    let task = tokio::spawn(consumer.run(subscriber, stop.clone()));
    Play {
        stage,
        script,
        book,
        gate,
        stop,
        task,
    }
}

impl Play {
    fn say(&self, arrivals: Vec<Arrival<u64>>) {
        self.script.send(Ok(arrivals)).unwrap();
    }

    fn revoking(&self, within: Duration) -> Arrival<u64> {
        let book = self.book.clone();
        Arrival::Revoking {
            partition: partition(),
            within,
            release: Release::new(move || book.note(Did::Released)),
        }
    }

    /// Waits until the handler has begun with one message.
    async fn begun(&self) {
        wait::until_true(SOON, "a handler to run", || async {
            let count: i64 = sqlx::query_scalar(
                "select count(*) from pg_locks l join pg_class c on c.oid = l.relation
                 where c.relname like 'processed_messages%' and l.mode = 'RowExclusiveLock'
                   and l.database = (select oid from pg_database where datname = current_database())",
            )
            .fetch_one(self.stage.pool())
            .await
            .unwrap();
            count > 0
        })
        .await;
    }

    async fn end(self) -> Vec<Did> {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
        self.book.all()
    }
}

#[tokio::test]
async fn deliveries_in_work_are_extended_at_a_third_of_their_deadline_until_they_are_settled() {
    let play = play().await;
    play.say(vec![
        delivery(1, Some(Duration::from_millis(300))),
        delivery(2, Some(Duration::from_millis(300))),
    ]);
    // The second one only waits for its key; both are held.
    wait::until_true(SOON, "extensions", || async {
        let extended = |token| {
            let all = play.book.all();
            all.iter().filter(|did| **did == Did::Extend(token)).count()
        };
        extended(1) >= 3 && extended(2) >= 3
    })
    .await;

    play.gate.add_permits(2);
    play.book.has(Did::Ack(2)).await;
    let did = play.end().await;

    let last_ack = did.iter().rposition(|did| matches!(did, Did::Ack(_)));
    let last_extend = did.iter().rposition(|did| matches!(did, Did::Extend(_)));
    assert!(last_extend < last_ack, "{did:?}");
    assert_eq!(did.last(), Some(&Did::Closed));
}

#[tokio::test]
async fn a_revoked_partition_is_given_back_after_what_runs_is_acked_and_nothing_new_is_started() {
    let play = play().await;
    play.say(vec![delivery(1, None), delivery(2, None)]);
    play.begun().await;

    play.say(vec![play.revoking(SOON)]);
    play.book.has(Did::GiveBack(2)).await;
    assert!(!play.book.all().contains(&Did::Released));
    play.gate.add_permits(5);
    play.book.has(Did::Released).await;

    let effects = play.stage.effects().await;
    let did = play.end().await;
    assert_eq!(
        did,
        [Did::GiveBack(2), Did::Ack(1), Did::Released, Did::Closed]
    );
    assert_eq!(effects, [1]);
}

#[tokio::test]
async fn a_revoked_partition_is_given_back_in_time_even_if_a_handler_still_runs() {
    let play = play().await;
    play.say(vec![delivery(1, None)]);
    play.begun().await;

    play.say(vec![play.revoking(Duration::from_millis(400))]);
    play.book.has(Did::Released).await;
    play.gate.add_permits(1);
    play.stage.settled(1).await;

    let effects = play.stage.effects().await;
    let did = play.end().await;
    assert_eq!(did, [Did::Released, Did::Closed], "not acked any more");
    assert_eq!(effects, [1], "it went on to its mark");
}

#[tokio::test]
async fn of_a_lost_partition_nothing_is_acked() {
    let play = play().await;
    play.say(vec![delivery(1, None), delivery(2, None)]);
    play.begun().await;

    play.say(vec![Arrival::Lost(partition())]);
    play.say(vec![Arrival::Assigned(partition()), delivery(3, None)]);
    play.gate.add_permits(5);
    play.book.has(Did::Ack(3)).await;

    let effects = play.stage.effects().await;
    let did = play.end().await;
    assert!(
        !did.contains(&Did::Ack(1)) && !did.contains(&Did::Ack(2)),
        "{did:?}"
    );
    assert_eq!(effects, [1, 3], "3 waited for 1, which still ran");
}

/// Fails if there is an order 2.
async fn batch_waits(
    gate: Arc<Semaphore>,
    events: Vec<Order>,
    tx: &mut BatchTx,
) -> Result<(), HandlerError> {
    gate.acquire().await?.forget();
    for event in events {
        sqlx::query("insert into effects (order_id) values ($1)")
            .bind(event.order)
            .execute(&mut **tx)
            .await?;
        if event.order == 2 {
            return Err("there is a 2".into());
        }
    }
    Ok(())
}

fn batches(wait: Duration) -> HandlerSettings {
    HandlerSettings {
        batch: BatchSettings {
            wait,
            ..BatchSettings::default()
        },
        ..quick(3)
    }
}

#[tokio::test]
async fn a_batch_that_waits_for_more_is_handled_as_it_is_when_its_partition_is_revoked() {
    let play = play_with(|builder, gate| {
        let builder = builder.on_batch_with("*", gate, batch_waits);
        builder.with(batches(Duration::from_secs(60)))
    })
    .await;
    play.gate.add_permits(5);

    play.say(vec![delivery(3, None), delivery(4, None)]);
    play.say(vec![play.revoking(SOON)]);
    play.book.has(Did::Released).await;

    let effects = play.stage.effects().await;
    let did = play.end().await;
    assert_eq!(did, [Did::Ack(3), Did::Ack(4), Did::Released, Did::Closed]);
    assert_eq!(effects, [3, 4]);
}

#[tokio::test]
async fn a_batch_that_waits_for_more_is_handled_as_it_is_at_a_stop_and_forgotten_with_a_lost_partition()
 {
    for lost in [false, true] {
        let play = play_with(|builder, gate| {
            let builder = builder.on_batch_with("*", gate, batch_waits);
            builder.with(batches(Duration::from_secs(60)))
        })
        .await;
        play.gate.add_permits(5);
        play.say(vec![delivery(3, Some(Duration::from_millis(300)))]);
        // It is held, and not handled yet.
        play.book.has(Did::Extend(3)).await;
        if lost {
            play.say(vec![Arrival::Lost(partition())]);
            // Read behind the loss, and handled at the stop.
            play.say(vec![
                Arrival::Assigned(partition()),
                delivery(4, Some(Duration::from_millis(300))),
            ]);
            play.book.has(Did::Extend(4)).await;
        }

        play.stop.cancel();
        let (stage, gate) = (play.stage, play.gate);
        play.task.await.unwrap().unwrap();

        let handled = if lost { 4 } else { 3 };
        let acks = play.book.all().into_iter();
        let acks: Vec<Did> = acks.filter(|did| matches!(did, Did::Ack(_))).collect();
        assert_eq!(acks, [Did::Ack(handled)]);
        assert_eq!(stage.effects().await, [i64::try_from(handled).unwrap()]);
        assert_eq!(gate.available_permits(), 4);
    }
}

#[tokio::test]
async fn a_batch_that_fails_while_its_partition_goes_is_not_handled_one_by_one() {
    for lost in [false, true] {
        let play = play_with(|builder, gate| {
            let builder = builder.on_batch_with("*", gate, batch_waits);
            builder.with(batches(Duration::ZERO))
        })
        .await;
        play.say(vec![delivery(1, None), delivery(2, None)]);
        play.begun().await;

        let goes = if lost {
            Arrival::Lost(partition())
        } else {
            play.revoking(SOON)
        };
        // The third waits for its key behind the batch, or is given back.
        play.say(vec![goes]);
        play.say(vec![Arrival::Assigned(partition()), delivery(3, None)]);
        if lost {
            play.gate.add_permits(5);
            play.book.has(Did::Ack(3)).await;
        } else {
            play.gate.add_permits(1);
            play.book.has(Did::GiveBack(2)).await;
        }

        let effects = play.stage.effects().await;
        play.gate.add_permits(5);
        let did = play.end().await;
        assert!(
            !did.contains(&Did::Ack(1)) && !did.contains(&Did::Ack(2)),
            "{did:?}"
        );
        assert!(
            !effects.contains(&1) && !effects.contains(&2),
            "{effects:?}"
        );
    }
}

#[tokio::test]
async fn a_refused_subscription_ends_the_consumer_and_an_outage_of_the_broker_does_not() {
    let play = play().await;
    let error = |kind| Err(SubscribeError::new(kind, "because"));
    play.script
        .send(error(SubscribeErrorKind::Unavailable))
        .unwrap();
    play.script
        .send(error(SubscribeErrorKind::Unauthorized))
        .unwrap();
    play.say(vec![
        Arrival::Jumped {
            partition: partition(),
            from: 1,
            to: 5,
        },
        delivery(5, None),
    ]);
    play.gate.add_permits(1);
    play.book.has(Did::Ack(5)).await;

    play.script
        .send(error(SubscribeErrorKind::Misconfigured))
        .unwrap();
    let ended = tokio::time::timeout(SOON, play.task)
        .await
        .unwrap()
        .unwrap();

    assert!(
        matches!(ended, Err(ConsumerError::Subscribe(_))),
        "{ended:?}"
    );
}

/// What was said last of reading; what is acked meanwhile stands between.
fn last_pause(book: &Book) -> Option<Did> {
    let mut pauses = book.all().into_iter();
    pauses.rfind(|did| matches!(did, Did::Pause(_)))
}

#[tokio::test]
async fn a_partition_that_is_stuck_is_paused_and_read_again() {
    let stage = Stage::new().await;
    let (script, lines) = mpsc::unbounded_channel();
    let book = Book::default();
    let gate = Arc::new(Semaphore::new(0));
    let limits = onceward_consumer::Limits {
        ahead: 4,
        ..onceward_consumer::Limits::default()
    };
    let consumer: Consumer = stage
        .builder()
        .limits(limits)
        .defaults(quick(1))
        .on_with("*", gate.clone(), waits)
        .build()
        .unwrap();
    let stop = CancellationToken::new();
    let subscriber = Scripted {
        script: lines,
        book: book.clone(),
    };
    let task = tokio::spawn(consumer.run(subscriber, stop.clone()));

    script
        .send(Ok((1..=4).map(|n| delivery(n, None)).collect()))
        .unwrap();
    book.has(Did::Pause(true)).await;
    gate.add_permits(4);
    book.has(Did::Pause(false)).await;

    // It is lost while it is paused again: when it comes back it must be read.
    script
        .send(Ok((5..=8).map(|n| delivery(n, None)).collect()))
        .unwrap();
    wait::until_true(SOON, "a second pause", || async {
        last_pause(&book) == Some(Did::Pause(true))
    })
    .await;
    script.send(Ok(vec![Arrival::Lost(partition())])).unwrap();
    wait::until_true(SOON, "an end of the second pause", || async {
        last_pause(&book) == Some(Did::Pause(false))
    })
    .await;
    gate.add_permits(4);
    stop.cancel();
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn in_one_line_a_test_handles_all_that_the_broker_in_memory_has() {
    let stage = Stage::new().await;
    for order in 0..5 {
        stage.publish(order, Some(1));
    }
    stage.put(&[], b"no json");
    let consumer = || stage.builder().on("*", write_effect).build().unwrap();

    let subscriber = stage.broker.subscriber("billing", &[common::TOPIC]);
    let settled = consumer().run_until_idle(subscriber).await.unwrap();

    assert_eq!((settled.handled, settled.dead), (5, 1));
    assert_eq!(stage.effects().await, [0, 1, 2, 3, 4]);

    let subscriber = stage.broker.subscriber("billing", &[common::TOPIC]);
    let nothing = consumer().run_until_idle(subscriber).await.unwrap();

    assert_eq!(nothing, onceward_consumer::Settled::default());
}

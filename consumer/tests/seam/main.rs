//! What the consumer does at the seam to a broker: extending, revocations, losses, jumps, refusals.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../common/mod.rs"]
mod common;
mod reading;
mod revocations;

use std::sync::Arc;
use std::time::Duration;

use common::scripted::{Book, Did, Script, Scripted, partition};
use common::{Order, SOON, Stage, effect};
use onceward_consumer::{ConsumerBuilder, ConsumerError, HandlerError, Tx};
use onceward_core::{Arrival, Release};
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

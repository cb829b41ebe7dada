//! Messages that kill their process are found out, and their neighbours are not buried with them.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod batches;
#[path = "../common/mod.rs"]
mod common;
mod guilty;
mod innocent;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use onceward_consumer::{ConsumerBuilder, HandlerError, Tx};
use onceward_testkit::wait;
use tokio::sync::{Mutex, MutexGuard, Semaphore};

use common::{Order, Running, SOON, Stage, effect};

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

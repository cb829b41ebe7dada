//! Keeps the starts of handlers, over a connection of its own beside the pool: a start is written while the handler's transaction
//! already holds a connection, and a pool whose connections are all held so would give nobody a second one.
//!
//! Whoever asks holds the mark of the message in an open transaction. So nobody else handles it, and a start that is found is that of
//! a life that is over.

mod desk;
mod link;

use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::ConsumerName;
use crate::plan::guard::Start;
use crate::sql::Statements;
use desk::Desk;
pub(crate) use link::Link;

/// How long who asks waits for an answer at least, and at most: for what is before it as well. In between, as long as a handler may take.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(15));

/// How long one waits who says that a handler has ended. If that takes longer it is written later.
const END: Duration = Duration::from_secs(1);

/// How long who asks for a handler with this deadline waits for an answer. Meanwhile its transaction is idle.
pub(crate) fn patience(deadline: Duration) -> Duration {
    deadline.clamp(PATIENCE.0, PATIENCE.1)
}

/// Between tries to write ends that could not be written.
const AGAIN: Duration = Duration::from_secs(1);

/// How many are answered at a time.
const BATCH: usize = 256;

/// What is asked of the task.
#[derive(Debug)]
enum Ask {
    Start(Wish, oneshot::Sender<Result<Start, String>>),
    End(Uuid, oneshot::Sender<()>),
    /// Once every end is written.
    Flush(oneshot::Sender<()>),
}

#[derive(Debug, Clone, Copy)]
struct Wish {
    mark: Uuid,
    /// Whether there is nothing beside it.
    alone: bool,
}

/// A handle to the task. Clones are handles to the same.
#[derive(Debug, Clone)]
pub(crate) struct Keeper {
    asks: UnboundedSender<Ask>,
}

impl Keeper {
    pub(crate) fn new() -> (Self, Asked) {
        let (asks, asked) = unbounded_channel();
        (Self { asks }, Asked(asked))
    }

    /// Says that a handler starts, and how it may. An error: it is not known whether that was written; the handler must not run.
    ///
    /// # Cancel safety
    /// Dropped, it may have been written all the same: say that the handler has ended.
    pub(crate) async fn start(
        &self,
        mark: Uuid,
        alone: bool,
        deadline: Duration,
    ) -> Result<Start, String> {
        let patience = patience(deadline);
        let (answer, answered) = oneshot::channel();
        drop(self.asks.send(Ask::Start(Wish { mark, alone }, answer)));
        match tokio::time::timeout(patience, answered).await {
            Ok(Ok(start)) => start,
            Ok(Err(_)) => Err("the starts of handlers are not kept any more".to_owned()),
            Err(_) => Err(format!("a start was not written within {patience:?}")),
        }
    }

    /// Says that a handler has ended. Returns once that is written, or soon.
    pub(crate) async fn end(&self, mark: Uuid) {
        let (done, is_done) = oneshot::channel();
        drop(self.asks.send(Ask::End(mark, done)));
        drop(tokio::time::timeout(END, is_done).await);
    }

    /// Returns once every end is written, or soon. What is not written then looks like a crash.
    pub(crate) async fn flush(&self) {
        let (done, is_done) = oneshot::channel();
        drop(self.asks.send(Ask::Flush(done)));
        drop(tokio::time::timeout(FLUSH, is_done).await);
    }
}

/// How long the last ends may take.
const FLUSH: Duration = Duration::from_secs(3);

/// What the task is to answer.
#[derive(Debug)]
pub(crate) struct Asked(UnboundedReceiver<Ask>);

/// The task.
#[derive(Debug)]
pub(crate) struct Keep {
    pub(crate) link: Link,
    pub(crate) statements: Statements,
    pub(crate) consumer: ConsumerName,
    /// This life of the member.
    pub(crate) member: Uuid,
}

impl Keep {
    /// Answers for ever. Safe to drop: what is not answered is not known, as after a crash.
    pub(crate) async fn run(self, asked: Asked) {
        let Asked(mut asked) = asked;
        let mut desk = Desk::new(self);
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                count = asked.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        // Nobody is left who could ask.
                        return std::future::pending().await;
                    }
                }
                () = tokio::time::sleep(AGAIN), if desk.owes() => {}
            }
            desk.answer(std::mem::take(&mut batch)).await;
        }
    }
}

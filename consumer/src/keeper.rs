//! Keeps the starts of handlers, over a connection of its own beside the pool: a start is written while the handler's transaction
//! already holds a connection, and a pool whose connections are all held so would give nobody a second one.
//!
//! Whoever asks holds the mark of the message in an open transaction. So nobody else handles it, and a start that is found is that of
//! a life that is over.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection, Postgres, Row as _, Transaction};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::ConsumerName;
use crate::faults::{Fault, planted};
use crate::plan::guard::{Start, Unfinished};
use crate::sql::Statements;
use crate::trouble::chain;

/// How long one statement may take, and a connection.
const ANSWER: Duration = Duration::from_secs(5);

/// How long a statement may take on the server, and half of it for a lock: there too it must end, or the next connection would be one
/// more that waits.
const BRIEF: Duration = Duration::from_secs(4);

/// How long who asks waits for an answer: for what is before it as well.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long one waits who says that a handler has ended. If that takes longer it is written later.
const END: Duration = Duration::from_secs(1);

/// Between tries to write ends that could not be written.
const AGAIN: Duration = Duration::from_secs(1);

/// How many are answered at a time.
const BATCH: usize = 256;

/// How many ends are remembered that could not be written. Of those that are forgotten the message runs alone once.
const MOST: usize = 10_000;

/// What is asked of the task.
#[derive(Debug)]
enum Ask {
    Start(Wish, oneshot::Sender<Result<Start, String>>),
    End(Uuid, oneshot::Sender<()>),
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
    pub(crate) async fn start(&self, mark: Uuid, alone: bool) -> Result<Start, String> {
        let (answer, answered) = oneshot::channel();
        drop(self.asks.send(Ask::Start(Wish { mark, alone }, answer)));
        match tokio::time::timeout(PATIENCE, answered).await {
            Ok(Ok(start)) => start,
            Ok(Err(_)) => Err("the starts of handlers are not kept any more".to_owned()),
            Err(_) => Err(format!("a start was not written within {PATIENCE:?}")),
        }
    }

    /// Says that a handler has ended. Returns once that is written, or soon.
    pub(crate) async fn end(&self, mark: Uuid) {
        let (done, is_done) = oneshot::channel();
        drop(self.asks.send(Ask::End(mark, done)));
        drop(tokio::time::timeout(END, is_done).await);
    }
}

/// What the task is to answer.
#[derive(Debug)]
pub(crate) struct Asked(UnboundedReceiver<Ask>);

/// The task.
#[derive(Debug)]
pub(crate) struct Keep {
    pub(crate) options: PgConnectOptions,
    pub(crate) statements: Statements,
    pub(crate) consumer: ConsumerName,
    /// This life of the member.
    pub(crate) member: Uuid,
}

impl Keep {
    /// Answers for ever. Safe to drop: what is not answered is not known, as after a crash.
    pub(crate) async fn run(self, asked: Asked) {
        let Asked(mut asked) = asked;
        let mut desk = Desk {
            keep: self,
            connection: None,
            ended: BTreeSet::new(),
        };
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                count = asked.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        // Nobody is left who could ask.
                        return std::future::pending().await;
                    }
                }
                () = tokio::time::sleep(AGAIN), if !desk.ended.is_empty() => {}
            }
            desk.answer(std::mem::take(&mut batch)).await;
        }
    }
}

struct Desk {
    keep: Keep,
    connection: Option<PgConnection>,
    /// Whose end is to be written.
    ended: BTreeSet<Uuid>,
}

impl Desk {
    async fn answer(&mut self, batch: Vec<Ask>) {
        let (mut starts, mut dones) = (Vec::new(), Vec::new());
        for ask in batch {
            match ask {
                Ask::Start(wish, answer) => starts.push((wish, answer)),
                Ask::End(mark, done) => {
                    self.ended.insert(mark);
                    dones.push(done);
                }
            }
        }
        // One that starts anew needs no end of its last start.
        for (wish, _) in &starts {
            self.ended.remove(&wish.mark);
        }
        while self.ended.len() > MOST {
            self.ended.pop_first();
        }
        let marks: BTreeSet<Uuid> = starts.iter().map(|(wish, _)| wish.mark).collect();
        let noted = self.note(marks.into_iter().collect()).await;
        if let Err(error) = &noted {
            warn!(error = %chain(error), "starts and ends of handlers could not be written; will retry");
            // It may be dead without knowing it.
            self.connection = None;
        }
        for done in dones {
            // Nobody waits any more when it took too long.
            done.send(()).ok();
        }
        self.tell(starts, noted).await;
    }

    /// Writes what has ended, and what starts. Gives those that may, beside others.
    async fn note(&mut self, started: Vec<Uuid>) -> Result<HashSet<Uuid>, sqlx::Error> {
        if self.ended.is_empty() && started.is_empty() {
            return Ok(HashSet::new());
        }
        let ended: Vec<Uuid> = self.ended.iter().copied().collect();
        let keep = &self.keep;
        let who = (&keep.consumer, keep.member);
        let note = keep.statements.note_starts(who, &ended, &started, BRIEF);
        let connection = connection(&mut self.connection, &keep.options).await?;
        let rows = within(sqlx::raw_sql(note).fetch_all(connection)).await?;
        self.ended.clear();
        rows.iter().map(|row| row.try_get(0)).collect()
    }

    async fn tell(
        &mut self,
        starts: Vec<(Wish, oneshot::Sender<Result<Start, String>>)>,
        started: Result<HashSet<Uuid>, sqlx::Error>,
    ) {
        for (wish, answer) in starts {
            let start = match &started {
                Ok(started) if started.contains(&wish.mark) => Ok(Start::Beside),
                Ok(_) => self.unfinished(wish).await.map_err(|error| chain(&error)),
                Err(error) => Err(chain(error)),
            };
            if start.is_err() {
                self.connection = None;
            }
            // Nobody waits any more when it took too long.
            drop(answer.send(start));
        }
    }

    /// How a handler may start of which another life has left a start.
    async fn unfinished(&mut self, wish: Wish) -> Result<Start, sqlx::Error> {
        let keep = &self.keep;
        let mut begun = begin(&mut self.connection, &keep.options).await?;
        let look = sqlx::query_as::<_, (bool, i16)>(keep.statements.unfinished.sql())
            .bind(keep.consumer.as_str())
            .bind(wish.mark)
            .bind(keep.member)
            .fetch_optional(&mut *begun);
        let Some((alone, crashes)) = within(look).await? else {
            within(begun.commit()).await?;
            // It was removed meanwhile, as one that is too old to matter; the next look finds none.
            return Ok(Start::NotBeside);
        };
        let counted = planted(Fault::NeighboursCounted);
        let found = Unfinished {
            alone: alone || counted,
            crashes,
        };
        let start = found.judge(wish.alone || counted);
        if let Start::Alone(crashes) = start {
            debug!(mark = %wish.mark, crashes, "a message was in work when a process died; it is handled alone");
            let take_over = sqlx::query(keep.statements.start_alone.sql())
                .bind(keep.consumer.as_str())
                .bind(wish.mark)
                .bind(keep.member)
                .bind(crashes)
                .execute(&mut *begun);
            within(take_over).await?;
        }
        within(begun.commit()).await?;
        Ok(start)
    }
}

async fn connection<'c>(
    slot: &'c mut Option<PgConnection>,
    options: &PgConnectOptions,
) -> Result<&'c mut PgConnection, sqlx::Error> {
    let connection = match slot.take() {
        Some(connection) => connection,
        None => within(PgConnection::connect_with(options)).await?,
    };
    Ok(slot.insert(connection))
}

/// Begins a transaction, which does not wait for the disk.
async fn begin<'c>(
    slot: &'c mut Option<PgConnection>,
    options: &PgConnectOptions,
) -> Result<Transaction<'c, Postgres>, sqlx::Error> {
    let connection = connection(slot, options).await?;
    let statement = Statements::begin(BRIEF, Duration::MAX, false);
    within(connection.begin_with(statement)).await
}

async fn within<T>(answer: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    match tokio::time::timeout(ANSWER, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
    }
}

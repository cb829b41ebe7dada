//! The transaction of the mark: dedupe, handler and commit in one.

mod attempt;
mod batch;
mod cancel;
mod ended;
mod guard;
mod line;
mod mark;
mod opened;
mod outbound;
mod pause;
#[cfg(feature = "faults")]
mod planted;
mod position;
mod retry;
mod sequence;
mod settle;
#[cfg(test)]
pub(crate) mod testing;
mod undo;

use std::time::{Duration, Instant};

use onceward_core::Topic;
use sqlx::pool::PoolConnection;
use sqlx::{PgPool, Postgres};

use crate::ConsumerName;
use crate::commits::Commits;
use crate::faults::{Bug, planted};
use crate::session::Session;
use crate::sql::{Statements, Waits};
use crate::within::within;

pub(crate) use attempt::{Order, Place, Ran};
pub(crate) use batch::{BatchOrder, BatchRan, Entry, Lot};
pub(crate) use guard::Guard;
pub(crate) use line::{Follower, Waiting};
use mark::Marked;
pub(crate) use opened::ID_CONFLICT;
pub(crate) use pause::{PausedType, Turn};
pub(crate) use retry::{Claimed, Due, DueLine, Verdict};
pub(crate) use sequence::Sequences;
pub(crate) use settle::{SettleAs, ToSettle};

/// On top of what the server itself allows, for an answer to arrive.
const ANSWER: Duration = Duration::from_secs(5);

/// How long a statement beside the handlers may take on the server, and half of it for a lock.
const BRIEF: Duration = Duration::from_secs(4);

/// COMMIT waits for the disk and perhaps for a standby; nothing on the server ends it, no `statement_timeout` either (PostgreSQL takes that
/// away before it commits: `finish_xact_command` in `postgres.c`). Not to wait it out is safe: what
/// became of it is unknown then, and the next attempt finds the mark, or waits for it. To wait long is not: an answer
/// that was lost never comes, and its key waits for it.
pub(crate) const COMMIT: Duration = Duration::from_secs(10);

/// How long a rollback may take; after that the connection is closed.
const ROLL_BACK: Duration = Duration::from_secs(1);

/// The database of a consumer.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    pub(crate) pool: PgPool,
    pub(crate) statements: Statements,
    pub(crate) consumer: ConsumerName,
    pub(crate) commits: Commits,
    /// Where dead letters are sent on to.
    pub(crate) outbound: Option<Topic>,
    /// None: every message is deduped by its mark.
    pub(crate) sequences: Option<Sequences>,
}

impl Database {
    async fn begin(&self, deadline: Duration) -> Result<Session, sqlx::Error> {
        self.begin_with(deadline, Duration::MAX, Waits::ForHandler)
            .await
    }

    /// Begins a transaction for a handler whose start is written before, if it is `guarded`.
    async fn begin_attempt(
        &self,
        deadline: Duration,
        guarded: bool,
    ) -> Result<Session, sqlx::Error> {
        self.begin_with(deadline, Duration::MAX, Waits::of(guarded))
            .await
    }

    /// Begins a transaction for what is beside the handlers. It ends on the server too if it does not get its locks: a statement that only
    /// this side has given up on keeps its connection, and the next try would take another one, until there are none.
    async fn begin_brief(&self) -> Result<Session, sqlx::Error> {
        self.begin(BRIEF).await
    }

    /// Begins a transaction that waits for locks no longer than `patience`.
    async fn begin_with(
        &self,
        deadline: Duration,
        patience: Duration,
        waits: Waits,
    ) -> Result<Session, sqlx::Error> {
        let connection = self.connection().await?;
        let commits = if planted(Bug::AckBeforeDurable) {
            Commits::Visible
        } else {
            self.commits
        };
        let statement = Statements::begin(deadline, patience, waits, commits);
        within(ANSWER, Session::begin(connection, statement)).await
    }
}

impl Database {
    /// A connection of the pool. The pool tries idle ones, which may be dead without knowing it: that is not waited out. That all
    /// are in use is no outage, and ends by the pool's own time limit.
    async fn connection(&self) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        let all_in_use = || {
            let most = self.pool.options().get_max_connections();
            self.pool.size() >= most && self.pool.num_idle() == 0
        };
        let until = Instant::now() + self.pool.options().get_acquire_timeout();
        loop {
            let got = within(ANSWER, self.pool.acquire()).await;
            match got {
                Err(sqlx::Error::Io(_)) if all_in_use() => {
                    if Instant::now() >= until {
                        return Err(sqlx::Error::PoolTimedOut);
                    }
                }
                got => return got,
            }
        }
    }
}

/// Ends a transaction as its last statement did.
async fn conclude<T>(session: Session, answer: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
    match answer {
        Ok(answer) => {
            within(COMMIT, session.commit()).await?;
            Ok(answer)
        }
        Err(error) => {
            session.roll_back(ROLL_BACK).await;
            Err(error)
        }
    }
}

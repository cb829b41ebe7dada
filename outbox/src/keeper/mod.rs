//! Writes what a stream keeps in the database: its lease, and under the lease its cursors and parked messages.
//!
//! Every statement hangs on the random token of the claim. Zero rows mean that the lease is another's.

mod checkpoint;
mod claim;
mod detours;
mod look;
mod parked;

use std::time::{Duration, Instant};

use onceward_core::{Schema, TopicGlob};
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{FromRow, Row, SqlStr};
use uuid::Uuid;

pub use checkpoint::{Checkpoint, PausedTopic, Unrouted};
pub use claim::{Claim, Claimed, Claiming, LeaseToken, Start, UnroutedPolicy};
pub use detours::{Detour, DetourCursor, NewDetour, UnknownDetour};
pub use parked::{DueMessage, Park, Refused};

use crate::faults;
use crate::lease::LeaseClock;
use crate::log::identity::Identity;
use crate::log::numbers::{NUMBERS, Numbers};
use crate::log::session::{LogDatabase, Purpose, Session};
use crate::log::{LogError, LogReader};
use crate::sql::render_parts;

/// What a claim won.
#[derive(Debug)]
struct Held {
    stream: String,
    token: Uuid,
    ttl: Duration,
    lease: LeaseClock,
}

/// Claims a stream and writes under its lease, over a connection of its own.
///
/// # Cancel safety
/// If a future of a method is dropped, what it asks for may or may not have happened, and the connection is of no more use:
/// every later call fails. Connect again, and claim with the [token](Self::token) of this one. A lost lease is found out by
/// the next write under it.
#[derive(Debug)]
pub struct Keeper {
    session: Session,
    schema: Schema,
    held: Option<Held>,
}

/// The topics that the streams of a database read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredGlobs(pub Vec<TopicGlob>);

impl StoredGlobs {
    /// Whether some stream reads the topic.
    #[must_use]
    pub fn read(&self, topic: &str) -> bool {
        self.0.iter().any(|glob| glob.matches(topic))
    }

    pub(crate) fn from_texts(texts: &[String]) -> Self {
        // A pattern that this release does not understand was written by a newer one; it matches nothing here, so
        // that its topics count as unrouted and stay.
        let known = texts
            .iter()
            .filter_map(|text| TopicGlob::try_from(text.as_str()).ok());
        Self(known.collect())
    }
}

/// What a renewal tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewed {
    /// The topics that all streams of the database read.
    pub globs: StoredGlobs,
    /// The id of its own transaction, given after the call began: cursors may [learn](crate::Cursor::learn) it of any number that was read
    /// before.
    pub txid: u64,
}

/// The lease proves itself and is renewed: `$1` the stream, `$2` the token, `$3` the ttl in seconds. Locks the stream's row.
///
/// `$also` is what else a statement changes of the stream; `$quiet` is where a statement says that its commit need not be on disk when it returns.
const HELD: &str = "
with held as (
  update {{schema}}.streams
  set lease_until = clock_timestamp() + make_interval(secs => $3) $also
  where stream = $1 and $token $quiet
  returning 1
)";

/// Losing the statement in a crash only repeats messages; it sets the session's value for its own transaction alone.
const QUIET: &str = "and (select set_config('synchronous_commit', 'off', true)) is not null";

/// How much a commit is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Commit {
    /// On disk before the statement returns.
    Durable,
    /// On disk soon; lost in a crash, something is published again.
    Soon,
}

/// A statement under the lease.
#[derive(Debug, Clone, Copy)]
struct Statement {
    doing: &'static str,
    /// What else it changes of the stream's row: one statement must not change a row twice.
    also: &'static str,
    /// What hangs on `held`. Its first two columns are the number of rows held and the server process.
    text: &'static str,
    commit: Commit,
}

impl Keeper {
    /// Connects. Nothing is held until [`claim`](Self::claim).
    ///
    /// # Errors
    /// [`LogError::Standby`], [`LogError::TransactionPooler`], or that the database cannot be reached.
    ///
    /// # Cancel safety
    /// Safe to drop: nothing is held yet.
    pub async fn connect(database: &LogDatabase) -> Result<Self, LogError> {
        Ok(Self {
            session: Session::open(database, Purpose::Write).await?,
            schema: database.schema.clone(),
            held: None,
        })
    }

    /// Which server it writes to.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.session.identity()
    }

    /// Refuses a reader that reads from another server than this writes to.
    ///
    /// # Errors
    /// [`LogError::DifferentServers`]: connect both again.
    pub fn check_reader(&self, reader: &LogReader) -> Result<(), LogError> {
        if reader.identity() == self.identity() {
            Ok(())
        } else {
            Err(LogError::DifferentServers)
        }
    }

    /// What proves the lease, for claiming it anew after this connection failed; none before a claim and after a release.
    #[must_use]
    pub fn token(&self) -> Option<LeaseToken> {
        self.held.as_ref().map(|held| LeaseToken(held.token))
    }

    /// The holder's view of its lease; none before a claim and after a release.
    #[must_use]
    pub fn lease(&self) -> Option<&LeaseClock> {
        self.held.as_ref().map(|held| &held.lease)
    }

    /// Renews the lease, and tells what all streams read and which transaction id was given. Call at least at every third of the ttl.
    ///
    /// # Errors
    /// [`LogError::Fenced`]: stop at once. [`LogError::Refused`]: the log's sequence or columns were changed; stop at once too, the
    /// lease is renewed and ends by its ttl. Any other: the lease may or may not be renewed.
    ///
    /// # Cancel safety
    /// Dropped, the lease may or may not be renewed, and the connection is of no more use.
    pub async fn renew(&mut self) -> Result<Renewed, LogError> {
        const RENEW: Statement = Statement {
            doing: "renewing the lease",
            also: "",
            text: "
select (select count(*) from held), pg_backend_pid(),
  array(select unnest(topics) from {{schema}}.streams), pg_current_xact_id()::text, $numbers",
            commit: Commit::Soon,
        };

        let row = self.under_lease(RENEW, |_| Ok(())).await?;
        let malformed = |error| LogError::malformed(RENEW.doing, error);
        let topics: Vec<String> = row.try_get(2).map_err(malformed)?;
        let txid: &str = row.try_get(3).map_err(malformed)?;
        let numbers = Numbers::from_row(&row).map_err(malformed)?;
        numbers.judge(0)?;
        Ok(Renewed {
            globs: StoredGlobs::from_texts(&topics),
            txid: txid
                .parse()
                .map_err(|error| LogError::malformed(RENEW.doing, error))?,
        })
    }

    /// Gives the lease back, so that another relay may claim at once.
    ///
    /// # Errors
    /// [`LogError::Fenced`]: it was another's already. Any other: it ends by its ttl.
    ///
    /// # Cancel safety
    /// Dropped, the lease may or may not be given back; it ends by its ttl at the latest.
    pub async fn release(&mut self) -> Result<(), LogError> {
        const RELEASE: &str = "
update {{schema}}.streams
set lease_token = null, owner = null, lease_until = null
where stream = $1 and lease_token = $2";

        let Some(held) = self.held.take() else {
            return Err(LogError::Fenced);
        };
        let sql = render_parts(&self.schema, RELEASE);
        let done = self
            .session
            .call("releasing the lease", async |connection| {
                sqlx::query(sql)
                    .bind(held.stream)
                    .bind(held.token)
                    .execute(connection)
                    .await
            })
            .await?;
        match done.rows_affected() {
            0 => Err(LogError::Fenced),
            _ => Ok(()),
        }
    }

    /// Says goodbye to the server; at most a second. The lease, if any, goes on until its ttl ends.
    ///
    /// # Cancel safety
    /// Safe to drop: the connection ends without a goodbye.
    pub async fn close(self) {
        self.session.close().await;
    }

    /// Runs a statement, unless the lease is another's.
    async fn under_lease(
        &mut self,
        statement: Statement,
        add: impl FnOnce(&mut PgArguments) -> Result<(), sqlx::error::BoxDynError>,
    ) -> Result<PgRow, LogError> {
        use sqlx::Arguments;

        let doing = statement.doing;
        let sql = self.held_sql(statement);
        let Some(held) = &mut self.held else {
            return Err(LogError::Fenced);
        };
        let mut arguments = PgArguments::default();
        let added = (|| {
            arguments.add(held.stream.as_str())?;
            arguments.add(held.token)?;
            arguments.add(held.ttl.as_secs_f64())?;
            add(&mut arguments)
        })();
        added.map_err(|error| LogError::malformed(doing, error))?;
        let asked = Instant::now();
        let row = self
            .session
            .call(doing, async |connection| {
                sqlx::query_with(sql, arguments).fetch_one(connection).await
            })
            .await?;
        self.session.check_pid(&row, 1)?;
        let rows: i64 = row
            .try_get(0)
            .map_err(|error| LogError::malformed(doing, error))?;
        if rows == 0 {
            self.held = None;
            return Err(LogError::Fenced);
        }
        held.lease.renewed(asked);
        Ok(row)
    }

    fn held_sql(&self, statement: Statement) -> SqlStr {
        let quiet = match statement.commit {
            Commit::Durable => "",
            Commit::Soon => QUIET,
        };
        // Planted: the token is passed and not asked for.
        let token = if faults::fencing_is_lost() {
            "$2::uuid is not null"
        } else {
            "lease_token = $2"
        };
        let held = HELD
            .replace("$also", statement.also)
            .replace("$quiet", quiet)
            .replace("$token", token);
        let text = statement.text.replace("$numbers", NUMBERS);
        render_parts(&self.schema, &format!("{held}{text}"))
    }
}

//! What `doctor` and `status` ask of the database: facts read by one query each, and a pure judgement over them.
//!
//! ```no_run
//! # async fn example(connection: &mut sqlx::PgConnection, known_version: i32) -> Result<(), onceward::schema::InspectError> {
//! use onceward::{Schema, schema};
//! let facts = schema::inspect(connection, &Schema::default(), schema::Duty::Relay).await?;
//! for finding in schema::judge(&facts, &schema::Expected { known_version, ..Default::default() }) {
//!     println!("{}: {}", finding.text, finding.remedy);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What is read of the log
//! [`inspect`], [`overview`] and [`recent_topics`] read the log in a read-only transaction of their own, in which `jit`, `enable_seqscan`
//! and `enable_bitmapscan` are off: the planner may scan a large log otherwise. It is rolled back, so that no setting stays on the
//! connection. In a transaction that the caller has begun by [`begin`](sqlx::Connection::begin) it is a savepoint, and of that nothing
//! stays either; one that was begun by a statement would be rolled back with it.

mod activity;
mod finding;
mod judge;
mod overview;
mod rights;
mod server;
mod tables;
mod topics;

pub use activity::{OpenTransaction, PreparedTransaction};
pub use finding::{Finding, Severity};
pub use judge::{ConfiguredStream, Expected, UNROUTED_REMEDY, is_read, judge, unread};
pub use overview::{
    CursorOverview, ParkedCount, StreamOverview, UnroutedTopic, overview, unrouted,
};
pub use rights::{Duty, Membership, MissingRight, grant, grant_rights};
pub use server::{Server, Standby};
pub use tables::{Index, Sequence, Settings, Table};
pub use topics::recent_topics;

use onceward_core::Schema;
use sqlx::{Connection as _, PgConnection, Postgres, Transaction};

use judge::rights::Standing;

/// The sequence behind `seq`.
const SEQUENCE: &str = "messages_seq_seq";

/// The database could not be asked. Its source says why; ask again when the database answers.
#[derive(Debug, thiserror::Error)]
#[error("the database could not be asked about {about}")]
pub struct InspectError {
    /// What was asked.
    pub about: &'static str,
    /// What went wrong.
    pub source: sqlx::Error,
}

impl InspectError {
    /// For `map_err`.
    pub(crate) fn about(about: &'static str) -> impl Fn(sqlx::Error) -> Self {
        move |source| Self { about, source }
    }
}

/// What a database says of itself and of our tables in it. Every list is empty in a database without the schema.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The schema that was looked at.
    pub schema: Schema,
    /// The server.
    pub server: Server,
    /// The newest schema step that was applied; none in a database without the schema.
    pub version: Option<i32>,
    /// How the tables were made.
    pub settings: Option<Settings>,
    /// Our tables, partitions included.
    pub tables: Vec<Table>,
    /// Their indexes, but for those on expressions.
    pub indexes: Vec<Index>,
    /// The sequence behind `seq`; none if it may not be read.
    pub sequence: Option<Sequence>,
    /// What the current user is to do.
    pub duty: Duty,
    /// How it stands to the role for that.
    pub membership: Membership,
    /// What it lacks for its duty.
    pub missing_rights: Vec<MissingRight>,
    /// Transactions of this database that have been open for more than a minute, oldest first.
    pub transactions: Vec<OpenTransaction>,
    /// Prepared transactions of this database, oldest first.
    pub prepared: Vec<PreparedTransaction>,
    /// The streams.
    pub streams: Vec<StreamOverview>,
    /// Topics in the log that no stream asks for.
    pub unrouted: Vec<UnroutedTopic>,
}

/// Reads all facts. Reads only, and waits for no lock of a writer; give the whole of it a deadline.
///
/// Reads [the log](self#what-is-read-of-the-log) in a transaction.
///
/// # Errors
/// [`InspectError`] when the database cannot be asked. What the user may not read is a fact and no error.
///
/// # Cancel safety
/// Nothing is changed; the connection is not to be used again.
pub async fn inspect(
    connection: &mut PgConnection,
    schema: &Schema,
    duty: Duty,
) -> Result<Facts, InspectError> {
    let server = server::read(connection).await?;
    let mut facts = Facts {
        schema: schema.clone(),
        server,
        version: None,
        settings: None,
        tables: tables::read(connection, schema).await?,
        indexes: Vec::new(),
        sequence: None,
        duty,
        membership: rights::membership(connection, duty).await?,
        missing_rights: Vec::new(),
        transactions: activity::transactions(connection).await?,
        prepared: activity::prepared(connection).await?,
        streams: Vec::new(),
        unrouted: Vec::new(),
    };
    if !facts.has_table("migrations") {
        return Ok(facts);
    }
    facts.indexes = tables::indexes(connection, schema).await?;
    facts.missing_rights = rights::missing(connection, schema, duty).await?;
    if facts.may("migrations") {
        facts.version = tables::version(connection, schema).await?;
    }
    if facts.may("settings") {
        facts.settings = tables::settings(connection, schema).await?;
    }
    if duty.reads_the_log() {
        let mut reading = begin_reading(connection).await?;
        facts.read_the_log(&mut reading).await?;
        end_reading(reading).await?;
    }
    Ok(facts)
}

/// Begins to read the log; to be ended by [`end_reading`].
///
/// What is asked of the log names every slot of its ring: a plan so large that compiling it takes fifty times as long as running
/// it (180 ms against 3 ms, measured). And all of it is served by indexes: a scan of a log of five million messages takes a second for each
/// lane, where the index takes a millisecond.
async fn begin_reading(
    connection: &mut PgConnection,
) -> Result<Transaction<'_, Postgres>, InspectError> {
    let about = InspectError::about("the planner's settings");
    let mut reading = connection.begin().await.map_err(&about)?;
    let settings = "
        select set_config('transaction_read_only', 'on', true),
               set_config('jit', 'off', true),
               set_config('enable_seqscan', 'off', true),
               set_config('enable_bitmapscan', 'off', true)";
    sqlx::query(settings)
        .execute(&mut *reading)
        .await
        .map_err(&about)?;
    Ok(reading)
}

/// Rolls back: what was set in a savepoint would outlive its release.
async fn end_reading(reading: Transaction<'_, Postgres>) -> Result<(), InspectError> {
    reading
        .rollback()
        .await
        .map_err(InspectError::about("the end of reading"))
}

/// What the current user lacks for a duty, and what to do about it; none: it may do all of it, by its role, as the owner of the
/// tables or as a superuser.
///
/// # Errors
/// [`InspectError`] when the database cannot be asked.
///
/// # Cancel safety
/// Nothing is changed; the connection is not to be used again.
pub async fn lacking(
    connection: &mut PgConnection,
    schema: &Schema,
    duty: Duty,
) -> Result<Option<Finding>, InspectError> {
    let missing = rights::missing(connection, schema, duty).await?;
    if missing.is_empty() {
        return Ok(None);
    }
    Ok(judge::rights::judge(&Standing {
        schema,
        user: &rights::user(connection).await?,
        duty,
        membership: rights::membership(connection, duty).await?,
        missing: &missing,
    }))
}

impl Facts {
    async fn read_the_log(&mut self, reading: &mut PgConnection) -> Result<(), InspectError> {
        if ["messages", "cursors", SEQUENCE]
            .iter()
            .all(|name| self.may(name))
        {
            self.sequence = tables::sequence(reading, &self.schema).await?;
        }
        let of_streams = ["streams", "cursors", "messages", "parked", "unrouted"];
        if of_streams.iter().all(|name| self.may(name)) {
            self.streams = overview::read(reading, &self.schema).await?;
            self.unrouted = overview::unrouted(reading, &self.schema).await?;
        }
        Ok(())
    }

    fn standing(&self) -> Standing<'_> {
        Standing {
            schema: &self.schema,
            user: &self.server.user,
            duty: self.duty,
            membership: self.membership,
            missing: &self.missing_rights,
        }
    }

    fn has_table(&self, name: &str) -> bool {
        self.tables.iter().any(|table| table.name == name)
    }

    /// Whether the table exists and may be read, so that a query on it does not fail. The sequence of the log
    /// belongs to its table and goes with it.
    fn may(&self, name: &str) -> bool {
        let table = if name == SEQUENCE { "messages" } else { name };
        let lacks = |right: &MissingRight| {
            right.object == "schema" || (right.object == name && right.privilege == "SELECT")
        };
        self.has_table(table) && !self.missing_rights.iter().any(lacks)
    }
}

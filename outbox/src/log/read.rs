//! Reads the log: all cursors of a stream in one statement, at one moment.

use std::collections::HashMap;

use onceward_core::{Lane, Schema};
use serde::Deserialize;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{Arguments, Row, SqlStr};
use time::OffsetDateTime;

use super::cursor::{Cursor, Found, Step};
use super::durability::{self, Lsn, Positions, PublishAfter};
use super::error::LogError;
use super::identity::Identity;
use super::read_sql::{self, column};
use super::row::{self, LogRow};
use super::session::{LogDatabase, Purpose, Session};
use super::snapshot::{Snapshot, SnapshotError};

const READING: &str = "reading the log";
const LOOKING: &str = "looking for commits";

/// What a read would see, without reading.
const LOOK: &str = "select pg_current_snapshot()::text, pg_backend_pid()";

/// What to read for one cursor. A cursor that is left out of a read misses nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CursorRead {
    /// Its lane; several cursors may read one.
    pub lane: Lane,
    /// Where it stands.
    pub cursor: Cursor,
    /// The most new rows, and the most late rows besides, of any topic. 1 to 100,000.
    pub limit: usize,
    /// About how much of payloads and headers is read, of late and of new rows each; a single larger message is read all
    /// the same.
    pub bytes: usize,
}

/// What was read at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// For each cursor asked for, in the same order: its lane's rows of all topics by ascending `seq`, and the cursor to
    /// store once all of them are confirmed.
    pub steps: Vec<Step<LogRow>>,
    /// The database's time.
    pub now: OffsetDateTime,
}

/// Reads the log over a connection of its own, whose settings keep the planner on the log's indexes.
#[derive(Debug)]
pub struct LogReader {
    session: Session,
    schema: Schema,
    statements: HashMap<Vec<Lane>, SqlStr>,
}

impl LogReader {
    /// Connects.
    ///
    /// # Errors
    /// [`LogError::Standby`], [`LogError::TransactionPooler`], or that the database cannot be reached.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub async fn connect(database: &LogDatabase) -> Result<Self, LogError> {
        Ok(Self {
            session: Session::open(database, Purpose::Read).await?,
            schema: database.schema.clone(),
            statements: HashMap::new(),
        })
    }

    /// Which server it reads from.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.session.identity()
    }

    /// Reads on for all of these cursors at one moment, and returns once all that was read may be published.
    ///
    /// # Errors
    /// Any of [`LogError`] but `Fenced`. Nothing has moved: the same may be asked again on a new connection.
    ///
    /// # Cancel safety
    /// Dropped, nothing has moved either, but the connection is of no more use.
    pub async fn read(
        &mut self,
        cursors: &[CursorRead],
        publish_after: &PublishAfter,
    ) -> Result<Read, LogError> {
        let lanes: Vec<Lane> = cursors.iter().map(|read| read.lane).collect();
        let schema = &self.schema;
        let sql = self
            .statements
            .entry(lanes)
            .or_insert_with_key(|lanes| read_sql::statement(schema, lanes))
            .clone();
        let arguments =
            arguments(cursors).map_err(|source| LogError::malformed(READING, source))?;
        let rows = self
            .session
            .call(READING, async |connection| {
                sqlx::query_with(sql, arguments).fetch_all(connection).await
            })
            .await?;
        let malformed = |error: sqlx::Error| LogError::malformed(READING, error);
        // The moment comes first: the statement's branches run one after the other.
        let (first, rows) = rows
            .split_first()
            .ok_or_else(|| LogError::malformed(READING, "no row"))?;
        let moment: Moment = row::json(first, column::HEADERS).map_err(malformed)?;
        self.session.is_own(moment.pid)?;
        let read = Read {
            steps: steps(cursors, &moment.snapshot, rows).map_err(malformed)?,
            now: first.try_get(column::CREATED_AT).map_err(malformed)?,
        };
        if read.steps.iter().any(|step| !step.rows.is_empty()) {
            durability::wait(&mut self.session, moment.positions(), publish_after).await?;
        }
        Ok(read)
    }

    /// What a read could see now, for a fraction of its cost. [`Quiet`](super::Quiet) knows whether that says that there is nothing to
    /// read.
    ///
    /// # Errors
    /// As those of [`read`](Self::read).
    ///
    /// # Cancel safety
    /// As that of [`read`](Self::read).
    pub async fn look(&mut self) -> Result<Snapshot, LogError> {
        let row = self
            .session
            .call(LOOKING, async |connection| {
                sqlx::query(LOOK).fetch_one(connection).await
            })
            .await?;
        self.session.check_pid(&row, 1)?;
        let seen: &str = row
            .try_get(0)
            .map_err(|error| LogError::malformed(LOOKING, error))?;
        seen.parse()
            .map_err(|error: SnapshotError| LogError::malformed(LOOKING, error))
    }

    /// Says goodbye to the server; at most a second.
    ///
    /// # Cancel safety
    /// Safe to drop: the connection ends without a goodbye.
    pub async fn close(self) {
        self.session.close().await;
    }
}

fn arguments(cursors: &[CursorRead]) -> Result<PgArguments, sqlx::error::BoxDynError> {
    let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let mut arguments = PgArguments::default();
    for read in cursors {
        let request = read.cursor.request();
        let rows = read.limit.clamp(1, 100_000);
        let new_rows = if request.new_rows { rows } else { 0 };
        arguments.add(request.last)?;
        arguments.add(request.after)?;
        arguments.add(request.snapshot.to_string())?;
        arguments.add(request.pinned.map(Snapshot::to_string))?;
        arguments.add(number(rows))?;
        arguments.add(number(new_rows))?;
        arguments.add(number(read.bytes.max(1)))?;
    }
    Ok(arguments)
}

/// What is true of a whole read.
#[derive(Debug, Deserialize)]
struct Moment {
    snapshot: String,
    inserted: i64,
    flushed: i64,
    pid: i32,
}

impl Moment {
    fn positions(&self) -> Positions {
        Positions {
            inserted: Lsn(self.inserted),
            flushed: Lsn(self.flushed),
        }
    }
}

fn steps(
    cursors: &[CursorRead],
    seen: &str,
    rows: &[PgRow],
) -> Result<Vec<Step<LogRow>>, sqlx::Error> {
    let seen: Snapshot = seen.parse().map_err(|e| sqlx::Error::Decode(Box::new(e)))?;
    let mut found: HashMap<i16, Found<LogRow>> = HashMap::new();
    for row in rows {
        let place: i16 = row.try_get_unchecked(column::PLACE)?;
        let lane = cursors.get(usize::from(place.unsigned_abs()));
        let lane = lane
            .map(|read| read.lane)
            .ok_or_else(|| sqlx::Error::Decode(format!("cursor {place}").into()))?;
        let found = found.entry(place).or_insert_with(|| Found {
            late: Vec::new(),
            more_late: false,
            new: Vec::new(),
            seen: seen.clone(),
        });
        match row.try_get_unchecked::<Option<bool>, _>(column::IS_LATE)? {
            None => found.more_late = row::json(row, column::HEADERS)?,
            Some(true) => found.late.push(row::decode(row, lane)?),
            Some(false) => found.new.push(row::decode(row, lane)?),
        }
    }
    let steps = (0..).zip(cursors).map(|(place, read)| {
        let found = found
            .remove(&place)
            .ok_or_else(|| sqlx::Error::Decode(format!("nothing about cursor {place}").into()))?;
        Ok(read.cursor.advance(found))
    });
    steps.collect()
}

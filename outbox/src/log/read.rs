//! Reads the log: all lanes of a stream in one statement, at one moment.

use std::collections::HashMap;

use onceward_core::{Lane, Schema};
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
use super::snapshot::Snapshot;

const READING: &str = "reading the log";

/// What to read of a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneRead {
    /// The lane; each at most once in a read. A lane that is left out keeps its cursor and misses nothing.
    pub lane: Lane,
    /// Where it stands.
    pub cursor: Cursor,
    /// The most new rows, and the most late rows besides, of any topic. 1 to 100,000.
    pub limit: usize,
}

/// What was read at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// For each lane asked for: its rows of all topics by ascending `seq`, and the cursor to store once all of
    /// them are confirmed.
    pub lanes: Vec<(Lane, Step<LogRow>)>,
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

    /// Reads on in the lanes asked for, and returns once all that was read may be published.
    ///
    /// `bytes` is about how much of payloads and headers is read of a lane, of late and of new rows each; a single
    /// larger message is read all the same.
    ///
    /// # Errors
    /// Any of [`LogError`] but `Fenced`. Nothing has moved: the same may be asked again on a new connection.
    ///
    /// # Cancel safety
    /// Dropped, nothing has moved either, but the connection is of no more use.
    pub async fn read(
        &mut self,
        lanes: &[LaneRead],
        bytes: usize,
        publish_after: &PublishAfter,
    ) -> Result<Read, LogError> {
        let names: Vec<Lane> = lanes.iter().map(|read| read.lane).collect();
        let schema = &self.schema;
        let sql = self
            .statements
            .entry(names)
            .or_insert_with_key(|names| read_sql::statement(schema, names))
            .clone();
        let arguments =
            arguments(lanes, bytes).map_err(|source| LogError::malformed(READING, source))?;
        let rows = self
            .session
            .call(READING, async |connection| {
                sqlx::query_with(sql, arguments).fetch_all(connection).await
            })
            .await?;
        // The moment comes first: the statement's branches run one after the other.
        let (moment, rows) = rows
            .split_first()
            .ok_or_else(|| LogError::malformed(READING, "no row"))?;
        self.session.check_pid(moment, column::PID)?;
        let malformed = |error: sqlx::Error| LogError::malformed(READING, error);
        let (read, positions) = answer(lanes, moment, rows).map_err(malformed)?;
        if read.lanes.iter().any(|(_, step)| !step.rows.is_empty()) {
            durability::wait(&mut self.session, positions, publish_after).await?;
        }
        Ok(read)
    }

    /// Says goodbye to the server; at most a second.
    ///
    /// # Cancel safety
    /// Safe to drop: the connection ends without a goodbye.
    pub async fn close(self) {
        self.session.close().await;
    }
}

fn arguments(lanes: &[LaneRead], bytes: usize) -> Result<PgArguments, sqlx::error::BoxDynError> {
    let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let mut arguments = PgArguments::default();
    arguments.add(number(bytes.max(1)))?;
    for LaneRead { cursor, limit, .. } in lanes {
        let request = cursor.request();
        let rows = (*limit).clamp(1, 100_000);
        let new_rows = if request.new_rows { rows } else { 0 };
        arguments.add(request.last)?;
        arguments.add(request.after)?;
        arguments.add(request.snapshot.to_string())?;
        arguments.add(request.pinned.map(Snapshot::to_string))?;
        arguments.add(number(rows))?;
        arguments.add(number(new_rows))?;
    }
    Ok(arguments)
}

fn answer(
    lanes: &[LaneRead],
    moment: &PgRow,
    rows: &[PgRow],
) -> Result<(Read, Positions), sqlx::Error> {
    let seen: &str = moment.try_get(column::SNAPSHOT)?;
    let seen: Snapshot = seen.parse().map_err(|e| sqlx::Error::Decode(Box::new(e)))?;
    let mut found: HashMap<i16, Found<LogRow>> = HashMap::new();
    for row in rows {
        let number: i16 = row.try_get_unchecked(column::LANE)?;
        let lane = Lane::from_number(number)
            .ok_or_else(|| sqlx::Error::Decode(format!("lane {number}").into()))?;
        let found = found.entry(number).or_insert_with(|| Found {
            late: Vec::new(),
            more_late: false,
            new: Vec::new(),
            seen: seen.clone(),
        });
        match row.try_get_unchecked::<Option<bool>, _>(column::IS_LATE)? {
            None => found.more_late = row.try_get_unchecked(column::MORE_LATE)?,
            Some(true) => found.late.push(row::decode(row, lane)?),
            Some(false) => found.new.push(row::decode(row, lane)?),
        }
    }
    let steps = lanes.iter().map(|LaneRead { lane, cursor, .. }| {
        let found = found
            .remove(&lane.number())
            .ok_or_else(|| sqlx::Error::Decode(format!("nothing about lane {lane}").into()))?;
        Ok((*lane, cursor.advance(found)))
    });
    let read = Read {
        lanes: steps.collect::<Result<_, sqlx::Error>>()?,
        now: moment.try_get(column::NOW)?,
    };
    let positions = Positions {
        inserted: Lsn(moment.try_get(column::INSERTED)?),
        flushed: Lsn(moment.try_get(column::FLUSHED)?),
    };
    Ok((read, positions))
}

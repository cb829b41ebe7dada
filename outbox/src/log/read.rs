//! Reads the log: all cursors of a stream in one statement, at one moment.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use onceward_core::{Lane, Schema};
use sqlx::postgres::PgRow;
use sqlx::{Connection, Row, SqlStr};
use time::OffsetDateTime;

use super::cursor::{Cursor, Found, Step};
use super::durability::{self, Lsn, Positions, PublishAfter};
use super::error::LogError;
use super::identity::Identity;
use super::occupied::{Covered, Occupied};
use super::read_sql::{self, column, kind, moment, most_rows};
use super::row::{self, LogRow, Names};
use super::session::{LogDatabase, Purpose, Session};
use super::sharing::Ask;
use super::snapshot::Snapshot;
use crate::sql::render;

pub(super) const READING: &str = "reading the log";
const CONNECTING: &str = "asking which slots the log has";

/// The log's partitions, each with its slot; null if it is not one of a single slot.
///
/// Served by the catalog's indexes; locks nothing of the log.
const PARTITIONS: &str = r"
select c.oid::bigint,
  (regexp_match(pg_get_expr(c.relpartbound, c.oid), '^FOR VALUES IN \(''?(\d+)''?\)$'))[1]::smallint,
  pg_backend_pid()
from pg_inherits i
join pg_class c on c.oid = i.inhrelid
where i.inhparent = '{{schema}}.messages'::regclass";

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
    /// The moment of our own clock before it was asked: all that was committed by then is in it, but for what it left.
    pub begun: Instant,
    /// The moment of our own clock at which the answer was there: at `now` or a little later.
    pub came: Instant,
}

/// Reads the log over a connection of its own, whose settings keep the planner on the log's indexes.
#[derive(Debug)]
pub struct LogReader {
    pub(super) session: Session,
    pub(super) schema: Schema,
    occupied: Occupied,
    /// Those that go through the occupied slots.
    statements: HashMap<Vec<Lane>, SqlStr>,
}

impl LogReader {
    /// Connects.
    ///
    /// # Errors
    /// [`LogError::Standby`], [`LogError::TransactionPooler`], or that the database cannot be reached, or has no log.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub async fn connect(database: &LogDatabase) -> Result<Self, LogError> {
        let mut session = Session::open(database, Purpose::Read).await?;
        let sql = render(&database.schema, PARTITIONS);
        let rows = session
            .call(CONNECTING, async |connection| {
                sqlx::query(sql).fetch_all(connection).await
            })
            .await?;
        let mut partitions = BTreeMap::new();
        for row in &rows {
            session.check_pid(row, 2)?;
            let malformed = |error| LogError::malformed(CONNECTING, error);
            let partition = row.try_get(0).map_err(malformed)?;
            partitions.insert(partition, row.try_get(1).map_err(malformed)?);
        }
        Ok(Self {
            session,
            schema: database.schema.clone(),
            occupied: Occupied::all(partitions),
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
        let (moment, read) = loop {
            let (moment, read) = self.read_occupied(cursors).await?;
            self.session.is_own(moment.pid)?;
            if self.note_in_use(&moment.in_use).await? {
                break (moment, read);
            }
        };
        if read.steps.iter().any(|step| !step.rows.is_empty()) {
            durability::wait(&mut self.session, moment.positions(), publish_after).await?;
        }
        Ok(read)
    }

    /// Takes note of the partitions that a read found in use, and has the next one go through them. Gives whether this one has gone
    /// through all of them.
    async fn note_in_use(&mut self, in_use: &[i64]) -> Result<bool, LogError> {
        let before = self.occupied.slots().to_vec();
        let covered = self.occupied.cover(in_use);
        if self.occupied.slots() != before {
            self.statements.clear();
            // Those of slots that are not gone through any more would be kept, with a plan each at the server.
            self.session
                .call(READING, async |connection| {
                    connection.clear_cached_statements().await
                })
                .await?;
        }
        match covered {
            Covered::All => Ok(true),
            Covered::Part => Ok(false),
            Covered::Unknown(partition) => {
                let what = format!("partition {partition} of the log was not there at first");
                Err(LogError::malformed(READING, what))
            }
        }
    }

    /// One read of the slots that are occupied as far as is known.
    async fn read_occupied(&mut self, cursors: &[CursorRead]) -> Result<(Moment, Read), LogError> {
        let lanes: Vec<Lane> = cursors.iter().map(|read| read.lane).collect();
        let (schema, slots) = (&self.schema, self.occupied.slots());
        let sql = self
            .statements
            .entry(lanes)
            .or_insert_with_key(|lanes| read_sql::statement(schema, lanes, slots))
            .clone();
        let arguments =
            read_sql::arguments(cursors).map_err(|source| LogError::malformed(READING, source))?;
        let answer = self
            .session
            .call_read(READING, async |connection| {
                // Row by row: what a row held on the wire is free before the next one is decoded.
                let mut answer = Answer::to(cursors);
                let mut rows = sqlx::query_with(sql, arguments).fetch(connection);
                while let Some(row) = rows.try_next().await? {
                    if let Err(error) = answer.take(&row) {
                        return Ok(Err(error));
                    }
                }
                Ok(Ok(answer))
            })
            .await?;
        let malformed = |error: sqlx::Error| LogError::malformed(READING, error);
        answer.and_then(Answer::finish).map_err(malformed)
    }

    /// What this reader asks by a read.
    pub(super) fn ask(&self, reads: &[CursorRead], publish_after: &PublishAfter) -> Ask {
        Ask {
            server: self.session.server(),
            schema: self.schema.clone(),
            publish_after: publish_after.clone(),
            reads: reads.to_vec(),
        }
    }

    /// How long any call may take.
    pub(super) fn within(&self) -> Duration {
        self.session.within()
    }

    /// Says goodbye to the server; at most a second.
    ///
    /// # Cancel safety
    /// Safe to drop: the connection ends without a goodbye.
    pub async fn close(self) {
        self.session.close().await;
    }
}

/// Whether the statement may have left new rows: it takes so many, and none behind so many bytes of payloads and headers.
fn may_be_cut(read: &CursorRead, new: &[LogRow]) -> bool {
    new.len() >= most_rows(read) || new.iter().map(most_bytes).sum::<usize>() >= read.bytes.max(1)
}

/// More than the server counts for a row. As it stores headers, a short number takes four times its text, and each pair up to 24 bytes
/// besides; the content type is one of them there.
fn most_bytes(row: &LogRow) -> usize {
    let (message, headers) = (&row.message, &row.message.headers);
    let content_type = message.content_type.as_ref().map_or(0, |text| text.len());
    4 * (message.weight() + content_type) + 24 * headers.len() + 1_024
}

/// What is true of a whole read.
#[derive(Debug)]
struct Moment {
    snapshot: Snapshot,
    inserted: i64,
    flushed: i64,
    pid: i32,
    /// Partitions with a page.
    in_use: Vec<i64>,
    now: OffsetDateTime,
}

impl Moment {
    fn of(row: &PgRow) -> Result<Self, sqlx::Error> {
        let (snapshot, flushed, in_use): (&str, &str, &str) = (
            row.try_get(moment::SNAPSHOT)?,
            row.try_get(moment::FLUSHED)?,
            row.try_get(moment::IN_USE)?,
        );
        let in_use: Result<Vec<i64>, _> = in_use
            .split(' ')
            .filter(|number| !number.is_empty())
            .map(str::parse)
            .collect();
        Ok(Self {
            snapshot: snapshot.parse().map_err(undecodable)?,
            inserted: row.try_get(moment::INSERTED)?,
            flushed: flushed.parse().map_err(undecodable)?,
            pid: row::json(row, moment::PID)?,
            in_use: in_use.map_err(undecodable)?,
            now: row.try_get(moment::NOW)?,
        })
    }

    fn positions(&self) -> Positions {
        Positions {
            inserted: Lsn(self.inserted),
            flushed: Lsn(self.flushed),
        }
    }
}

fn undecodable(error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(error.into())
}

/// An answer, as its rows come.
struct Answer<'a> {
    cursors: &'a [CursorRead],
    begun: Instant,
    moment: Option<Moment>,
    found: Vec<Rows>,
    names: Names,
}

/// What came for one cursor.
#[derive(Default)]
struct Rows {
    late: Vec<LogRow>,
    /// The last of the late rows has come.
    all_late: bool,
    new: Vec<LogRow>,
}

impl<'a> Answer<'a> {
    fn to(cursors: &'a [CursorRead]) -> Self {
        Self {
            cursors,
            begun: Instant::now(),
            moment: None,
            found: cursors.iter().map(|_| Rows::default()).collect(),
            names: Names::default(),
        }
    }

    fn take(&mut self, row: &PgRow) -> Result<(), sqlx::Error> {
        // The moment comes first: the statement's branches run one after the other.
        if self.moment.is_none() {
            self.moment = Some(Moment::of(row)?);
            return Ok(());
        }
        let place: i16 = row.try_get_unchecked(column::PLACE)?;
        let at = usize::from(place.unsigned_abs());
        let (Some(read), Some(found)) = (self.cursors.get(at), self.found.get_mut(at)) else {
            return Err(sqlx::Error::Decode(format!("cursor {place}").into()));
        };
        let kind: i16 = row.try_get_unchecked(column::KIND)?;
        let rows = match kind {
            kind::NEW => &mut found.new,
            kind::LATE | kind::LAST_LATE => &mut found.late,
            other => return Err(sqlx::Error::Decode(format!("kind {other}").into())),
        };
        rows.push(row::decode(row, read.lane, &mut self.names)?);
        found.all_late |= kind == kind::LAST_LATE;
        Ok(())
    }

    fn finish(self) -> Result<(Moment, Read), sqlx::Error> {
        let no_row = || sqlx::Error::Decode("no row".into());
        let moment = self.moment.ok_or_else(no_row)?;
        let steps = self.cursors.iter().zip(self.found).map(|(read, rows)| {
            let found = Found {
                more_late: !rows.late.is_empty() && !rows.all_late,
                late: rows.late,
                more_new: may_be_cut(read, &rows.new),
                new: rows.new,
                seen: moment.snapshot.clone(),
            };
            read.cursor.advance(found)
        });
        let steps = steps.collect();
        let (now, begun, came) = (moment.now, self.begun, Instant::now());
        let read = Read {
            steps,
            now,
            begun,
            came,
        };
        Ok((moment, read))
    }
}

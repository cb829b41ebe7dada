//! Claims a stream: one relay is active for each, by a token that nobody else knows.

use std::time::{Duration, Instant};

use onceward_core::{Lane, TopicGlob};
use serde_json::Value;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::types::Json;
use sqlx::{Connection, Row, SqlStr};
use uuid::Uuid;

use super::detours::{self, DetourCursor};
use super::{Held, Keeper};
use crate::lease::LeaseClock;
use crate::log::identity;
use crate::log::{Cursor, LogError};
use crate::sql::render;

const CLAIMING: &str = "claiming the stream";

/// Who claims which stream, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The stream's name: `[a-z][a-z0-9_]*`, at most 63 bytes. It is created if it is new.
    pub stream: String,
    /// Who claims, for people to read: a host and a process.
    pub owner: String,
    /// How long the lease lasts without being renewed, by the database's clock. Give it at least a second: what a slow
    /// answer takes of it, the holder may not use.
    pub ttl: Duration,
    /// What the stream reads; stored, so that topics which nobody reads are known.
    pub topics: Vec<TopicGlob>,
    /// Where a new stream begins.
    pub start: Start,
    /// What becomes of topics that no stream reads.
    pub unrouted: UnroutedPolicy,
    /// The token of a lease of our own that may not have ended, after its connection failed: it is claimed anew at once,
    /// and whatever that connection still sends is fenced.
    pub previous: Option<LeaseToken>,
}

/// Proves a lease. Whoever knows it may write under the lease; it is not shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LeaseToken(pub(super) Uuid);

impl std::fmt::Debug for LeaseToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LeaseToken")
    }
}

/// Where a new stream begins; used once, when it is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// At the earliest message that is still in the log.
    #[default]
    Earliest,
    /// Behind what is committed now.
    Latest,
}

/// What becomes of messages whose topic no stream reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnroutedPolicy {
    /// They stay in the log, and keep their slot from being emptied.
    #[default]
    Keep,
    /// They go with their slot.
    Discard,
}

impl UnroutedPolicy {
    fn name(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Discard => "discard",
        }
    }
}

/// How a claim ended.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "one value every few seconds; it is taken apart at once"
)]
pub enum Claiming {
    /// The stream is ours until the lease ends.
    Claimed(Claimed),
    /// Another relay publishes.
    Taken {
        /// Who.
        owner: String,
        /// How long its lease still lasts if it is not renewed.
        expires_in: Duration,
    },
}

/// What the holder begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The stored cursors, in the order of [`Lane::ALL`].
    pub cursors: [Cursor; 3],
    /// The stored detours.
    pub detours: Vec<DetourCursor>,
    /// The numbers of messages that are set aside, whatever their state: skip them, they count as confirmed.
    pub parked: Vec<i64>,
}

/// By the primary key.
const TAKEN: &str = "
select pg_backend_pid(), owner, extract(epoch from lease_until - clock_timestamp())::double precision as seconds
from {{schema}}.streams
where stream = $1 and lease_until > clock_timestamp() and lease_token is distinct from $2";

const CREATE: &str = "
insert into {{schema}}.streams (stream)
values ($1)
on conflict do nothing";

/// Locks the stream's row; a second claim waits here, and then finds the lease taken. What an earlier holder had paused may be over: whoever
/// claims finds out anew.
const TAKE: &str = "
update {{schema}}.streams
set lease_token = gen_random_uuid(),
  owner = $2,
  lease_until = clock_timestamp() + make_interval(secs => $3),
  topics = $4,
  unrouted = $5,
  paused = '[]',
  system_identifier = $6,
  timeline = $7
where stream = $1 and (lease_until is null or lease_until <= clock_timestamp() or lease_token = $8)
returning lease_token, pg_backend_pid()";

/// Its transaction got its id after the snapshot was taken and the highest numbers were looked for.
const POSITION: &str = "
insert into {{schema}}.cursors (stream, lane, last_seq, snapshot, late_upto, late_below)
select $1, lane, last_seq, $4::text::pg_snapshot, last_seq, pg_current_xact_id()
from unnest($2::smallint[], $3::bigint[]) p(lane, last_seq)
on conflict do nothing";

const CURSORS: &str = "
select to_jsonb(c)
from {{schema}}.cursors c
where stream = $1
order by lane, detour";

/// By the primary key of `parked`.
const PARKED: &str = "
select seq
from {{schema}}.parked
where stream = $1";

/// The stream's row, its cursors, and the numbers of what is parked.
type Taken = (PgRow, Vec<Json<Value>>, Vec<i64>);

/// The statements of a claim, for one schema.
struct Statements {
    create: SqlStr,
    take: SqlStr,
    position: SqlStr,
    cursors: SqlStr,
    parked: SqlStr,
}

impl Keeper {
    /// Claims a stream, unless another relay holds it; creates it if it is new. The claim is on disk when this returns.
    ///
    /// # Errors
    /// [`LogError::Refused`]: this is not the database whose log the stream has read. Any other: claim again later.
    ///
    /// # Cancel safety
    /// Dropped, the stream may be claimed under a token that nobody knows: it is free again after the ttl.
    pub async fn claim(&mut self, claim: &Claim) -> Result<Claiming, LogError> {
        self.held = None;
        if let Some(taken) = self.taken(claim).await? {
            return Ok(taken);
        }
        let look = self.look(&claim.stream).await?;
        identity::judge(&look.facts)?;
        let asked = Instant::now();
        let last = match claim.start {
            Start::Earliest => vec![0; look.highest.len()],
            Start::Latest => look.highest,
        };
        let identity = self.session.identity();
        let statements = self.claim_statements();
        let taken = self
            .session
            .call(CLAIMING, async |connection| {
                let identity = [identity.system, identity.timeline];
                take(
                    connection,
                    statements,
                    claim,
                    identity,
                    &last,
                    &look.snapshot,
                )
                .await
            })
            .await?;
        let Some((taken, cursors, parked)) = taken else {
            // Somebody was faster; who it was, the next look tells.
            return Ok(Claiming::Taken {
                owner: String::new(),
                expires_in: claim.ttl,
            });
        };
        self.session.check_pid(&taken, 1)?;
        let malformed = |error: sqlx::Error| LogError::malformed(CLAIMING, error);
        let token: Uuid = taken.try_get(0).map_err(malformed)?;
        let (cursors, detours) = decode_cursors(&cursors)?;
        let claimed = Claimed {
            cursors,
            detours,
            parked,
        };
        self.held = Some(Held {
            stream: claim.stream.clone(),
            token,
            ttl: claim.ttl,
            lease: LeaseClock::new(claim.ttl, asked),
        });
        Ok(Claiming::Claimed(claimed))
    }

    /// The holder, if there is one. Those that stand by ask nothing more of the database.
    async fn taken(&mut self, claim: &Claim) -> Result<Option<Claiming>, LogError> {
        let sql = render(&self.schema, TAKEN);
        let row = self
            .session
            .call(CLAIMING, async |connection| {
                sqlx::query(sql)
                    .bind(&claim.stream)
                    .bind(claim.previous.map(|previous| previous.0))
                    .fetch_optional(connection)
                    .await
            })
            .await?;
        let Some(row) = row else {
            return Ok(None);
        };
        self.session.check_pid(&row, 0)?;
        let taken = || {
            let owner: Option<String> = row.try_get("owner")?;
            let seconds: f64 = row.try_get("seconds")?;
            Ok(Some(Claiming::Taken {
                owner: owner.unwrap_or_default(),
                expires_in: Duration::try_from_secs_f64(seconds).unwrap_or_default(),
            }))
        };
        taken().map_err(|error: sqlx::Error| LogError::malformed(CLAIMING, error))
    }

    fn claim_statements(&self) -> Statements {
        let sql = |text| render(&self.schema, text);
        Statements {
            create: sql(CREATE),
            take: sql(TAKE),
            position: sql(POSITION),
            cursors: sql(CURSORS),
            parked: sql(PARKED),
        }
    }
}

/// In one transaction, so that a stream never has a holder and no cursors. Its commit is on disk: the session says so.
async fn take(
    connection: &mut PgConnection,
    statements: Statements,
    claim: &Claim,
    [system, timeline]: [i64; 2],
    last: &[i64],
    snapshot: &str,
) -> Result<Option<Taken>, sqlx::Error> {
    let topics: Vec<&str> = claim.topics.iter().map(TopicGlob::as_str).collect();
    let lanes = Lane::ALL.map(Lane::number);
    let mut transaction = connection.begin().await?;
    sqlx::query(statements.create)
        .bind(&claim.stream)
        .execute(&mut *transaction)
        .await?;
    let taken = sqlx::query(statements.take)
        .bind(&claim.stream)
        .bind(&claim.owner)
        .bind(claim.ttl.as_secs_f64())
        .bind(topics)
        .bind(claim.unrouted.name())
        .bind(system)
        .bind(timeline)
        .bind(claim.previous.map(|previous| previous.0))
        .fetch_optional(&mut *transaction)
        .await?;
    let Some(taken) = taken else {
        transaction.rollback().await?;
        return Ok(None);
    };
    sqlx::query(statements.position)
        .bind(&claim.stream)
        .bind(&lanes[..])
        .bind(last)
        .bind(snapshot)
        .execute(&mut *transaction)
        .await?;
    let cursors = sqlx::query_scalar(statements.cursors)
        .bind(&claim.stream)
        .fetch_all(&mut *transaction)
        .await?;
    let parked = sqlx::query_scalar(statements.parked)
        .bind(&claim.stream)
        .fetch_all(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(Some((taken, cursors, parked)))
}

/// The main cursors, and the detours.
fn decode_cursors(rows: &[Json<Value>]) -> Result<([Cursor; 3], Vec<DetourCursor>), LogError> {
    let malformed = |error: sqlx::Error| LogError::malformed(CLAIMING, error);
    let (mut main, mut others) = (Vec::new(), Vec::new());
    for Json(row) in rows {
        let (_, name, cursor) = detours::decode(row).map_err(malformed)?;
        if name.is_empty() {
            main.push(cursor);
        } else {
            others.push(detours::detour_cursor(row).map_err(malformed)?);
        }
    }
    let main = main.try_into().map_err(|_| {
        LogError::malformed(CLAIMING, "the stream has not one cursor for each lane")
    })?;
    Ok((main, others))
}

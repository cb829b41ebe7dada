//! What a person decides about dead letters: to replay them, here or as new messages, or to discard them.

use std::time::Duration;

use onceward_core::{Schema, TopicGlob, wire};
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, PgPool};
use uuid::Uuid;

use crate::history::Attempt;
use crate::joining::Joining;
use crate::line::line;
use crate::mark::slot_of;
use crate::sql;
use crate::stored::Stored;

/// Where a replayed dead letter goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// Back to its consumer: it is due now, behind what waits of its key. Its mark stays, so that no copy of it that the
    /// broker still has can be handled besides.
    Consumer,
    /// Through the log and the broker, as a new message with a new id and the header `onceward-replay-of`: every consumer
    /// of its topic gets it. The log of this database must have a stream that reads the topic, or else the message would lie in
    /// it for good.
    Everybody,
}

/// What became of the wish to replay a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replayed {
    /// It is replayed; the id is that of the new message, if it is one.
    Done(Option<Uuid>),
    /// There is none with that number, or it is replayed already.
    NotThere,
    /// It could not be read as a message and has no type: give it one, by [`edit`](super::edit).
    NoType,
    /// As a new message it would never be published: no stream of this database reads its topic, as where a consumer has a
    /// database of its own. Run a relay on this database with a stream for the topic, or replay it to its consumer.
    NoStream {
        /// The topic.
        topic: String,
    },
}

#[derive(FromRow)]
struct Row {
    consumer: String,
    message_id: Uuid,
    #[sqlx(flatten)]
    content: Stored,
    error: String,
    history: Json<Vec<Attempt>>,
    attempts: i32,
}

/// Locks the letter. By primary key.
const TAKE: &str = "
select
  consumer, message_id, original_id, topic, key, type, headers, payload, source, created_at, origin, error, history, attempts
from {schema}.dead_letters
where id = $1
  and state in ('dead', 'discarded')
for update";

/// The mark says that its message waits. One that was forgotten is written anew. By primary key. $1 consumer, $2 mark, $3 slot.
const MARK: &str = "
insert into {schema}.processed_messages as m (slot, consumer, message_id, outcome)
values ($3, $1, $2, 1)
on conflict (slot, consumer, message_id) do update
set outcome = 1, settled_at = clock_timestamp()
returning digest";

/// By primary key.
const SAY_REPLAYED: &str = "
update {schema}.dead_letters
set
  state = 'replayed',
  replays = replays + 1,
  changed_at = clock_timestamp(),
  decisions = decisions || jsonb_build_array(
    jsonb_build_object('at', clock_timestamp(), 'what', $2::text, 'by', $3::text))
where id = $1";

/// By primary key.
const DISCARD: &str = "
update {schema}.dead_letters
set
  state = 'discarded',
  changed_at = clock_timestamp(),
  decisions = decisions || jsonb_build_array(
    jsonb_build_object('at', clock_timestamp(), 'what', 'discarded', 'by', $2::text))
where id = any ($1)
  and state = 'dead'
returning id";

/// What the streams of this database read. Scans the table, which is small.
const PATTERNS: &str = "
select pattern
from {schema}.streams s
cross join unnest(s.topics) as pattern";

/// READ COMMITTED, so that what is done after a lock sees what the lock has waited for.
const BEGIN: &str = "begin isolation level read committed read write";

/// Replays a dead letter, in one transaction. A discarded one can be replayed too; `by` is who decided it.
///
/// # Errors
/// Any database error; nothing is changed. To [`To::Everybody`] also what enqueueing refuses (SQLSTATE `OW001`), and that the
/// user may not read the streams: it takes the rights of `onceward_admin`.
///
/// # Cancel safety
/// Dropped, it may or may not have been replayed.
pub async fn replay(
    pool: &PgPool,
    schema: &Schema,
    id: i64,
    to: To,
    by: &str,
) -> Result<Replayed, sqlx::Error> {
    let mut transaction = pool.begin_with(BEGIN).await?;
    let row: Option<Row> = sqlx::query_as(sql::over(schema, TAKE))
        .bind(id)
        .fetch_optional(&mut *transaction)
        .await?;
    let Some(row) = row else {
        return Ok(Replayed::NotThere);
    };
    let Some(kind) = row.content.kind.as_deref() else {
        return Ok(Replayed::NoType);
    };
    let (new, what) = match to {
        To::Consumer => {
            line_up(&mut transaction, schema, id, &row).await?;
            (None, "replayed")
        }
        To::Everybody => {
            let topic = &row.content.topic;
            if !is_read(&mut transaction, schema, topic).await? {
                let topic = topic.clone();
                return Ok(Replayed::NoStream { topic });
            }
            let new = enqueue(&mut transaction, schema, &row, kind).await?;
            (Some(new), "replayed as a new message")
        }
    };
    sqlx::query(sql::over(schema, SAY_REPLAYED))
        .bind(id)
        .bind(what)
        .bind(by)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(Replayed::Done(new))
}

/// Whether some stream of this database reads the topic.
async fn is_read(
    connection: &mut PgConnection,
    schema: &Schema,
    topic: &str,
) -> Result<bool, sqlx::Error> {
    let patterns: Vec<String> = sqlx::query_scalar(sql::over(schema, PATTERNS))
        .fetch_all(connection)
        .await?;
    let mut globs = patterns
        .iter()
        .filter_map(|pattern| TopicGlob::try_from(pattern.as_str()).ok());
    Ok(globs.any(|glob| glob.matches(topic)))
}

async fn line_up(
    connection: &mut PgConnection,
    schema: &Schema,
    id: i64,
    row: &Row,
) -> Result<(), sqlx::Error> {
    let digest: Option<Vec<u8>> = sqlx::query_scalar(sql::over(schema, MARK))
        .bind(&row.consumer)
        .bind(row.message_id)
        .bind(slot_of(row.message_id))
        .fetch_one(&mut *connection)
        .await?;
    let joining = Joining {
        consumer: &row.consumer,
        line: line(
            &row.content.topic,
            row.content.key.as_deref(),
            row.message_id,
        ),
        mark: row.message_id,
        digest: digest.as_deref(),
        content: &row.content,
        attempts: row.attempts,
        // All of its attempts so far.
        forgiven: row.attempts,
        history: &row.history.0,
        error: &row.error,
        delay: Duration::ZERO,
        line_delay: Duration::ZERO,
        waits_for: None,
        dead_letter: Some(id),
    };
    let hold = joining.hold(sql::over(schema, sql::HOLD));
    hold.execute(&mut *connection).await?;
    let add = joining.add(sql::over(schema, sql::ADD));
    add.execute(connection).await?;
    Ok(())
}

async fn enqueue(
    connection: &mut PgConnection,
    schema: &Schema,
    row: &Row,
    kind: &str,
) -> Result<Uuid, sqlx::Error> {
    let content = &row.content;
    let of = content.original_id.clone();
    let of = of.unwrap_or_else(|| row.message_id.to_string());
    let (mut headers, content_type) = super::outbound::headers(&content.headers.0);
    headers.insert(wire::REPLAY_OF.to_owned(), of.into());
    sqlx::query_scalar(sql::over(schema, sql::ENQUEUE))
        .bind(&content.topic)
        .bind(&content.payload)
        .bind(&content.key)
        .bind(kind)
        .bind(Json(headers))
        .bind(content_type)
        .fetch_one(connection)
        .await
}

/// Gives up dead letters that wait for a person. Their rows stay, and can still be replayed. Returns those that it was done
/// to; `by` is who decided it.
///
/// # Errors
/// Any database error; nothing is changed.
///
/// # Cancel safety
/// Dropped, they may or may not have been discarded.
pub async fn discard(
    pool: &PgPool,
    schema: &Schema,
    ids: &[i64],
    by: &str,
) -> Result<Vec<i64>, sqlx::Error> {
    sqlx::query_scalar(sql::over(schema, DISCARD))
        .bind(ids)
        .bind(by)
        .fetch_all(pool)
        .await
}

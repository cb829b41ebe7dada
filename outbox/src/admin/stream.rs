//! The streams that the database knows, and dropping one that nobody runs any more.

use serde::Serialize;
use sqlx::Row;

use super::LogAdmin;
use crate::log::LogError;
use crate::sql::render;

const DROPPING: &str = "dropping the stream";

/// How dropping a stream ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum DropStream {
    /// It is gone, with its cursors and what it had set aside.
    Dropped {
        /// How many messages went with it that were parked or due, and so were never published.
        waiting: u64,
        /// How many rows went with it of messages that had been published or discarded.
        decided: u64,
    },
    /// A relay holds it: stop that first.
    Held {
        /// Who.
        owner: String,
    },
    /// There is none of that name.
    Unknown,
}

/// Its cursors go with it. A lease that is held stays.
const DROP: &str = "
with gone as (
  delete from {{schema}}.streams
  where stream = $1 and (lease_until is null or lease_until <= clock_timestamp() or $2)
  returning 1
),
unparked as (
  delete from {{schema}}.parked
  where stream = $1 and exists (select from gone)
  returning state
)
select (select count(*) from gone) as gone,
  (select count(*) from unparked where state in ('parked', 'due')) as waiting,
  (select count(*) from unparked where state in ('published', 'discarded')) as decided,
  (select owner from {{schema}}.streams where stream = $1) as owner,
  exists (select from {{schema}}.streams where stream = $1) as known";

/// By the primary key of `streams`, and a scan of `parked`, which is small and may outlive its stream.
const STREAMS: &str = "
select stream from {{schema}}.streams
union
select stream from {{schema}}.parked
order by stream";

impl LogAdmin {
    /// The names of all streams that the database knows, also those of which only parked messages are left.
    ///
    /// # Errors
    /// That the database failed.
    ///
    /// # Cancel safety
    /// Dropped, nothing is changed; the connection is of no more use.
    pub async fn streams(&mut self) -> Result<Vec<String>, LogError> {
        let sql = render(&self.schema, STREAMS);
        self.session
            .call("listing the streams", async |connection| {
                sqlx::query_scalar(sql).fetch_all(connection).await
            })
            .await
    }

    /// Removes a stream with its cursors and what it has set aside, so that it holds no slot any more. A stream whose
    /// lease is held is only dropped by `force`, which fences its holder.
    ///
    /// # Errors
    /// That the database failed.
    ///
    /// # Cancel safety
    /// Dropped, the change may or may not have been made; the connection is of no more use.
    pub async fn drop_stream(&mut self, stream: &str, force: bool) -> Result<DropStream, LogError> {
        let sql = render(&self.schema, DROP);
        let row = self
            .session
            .call(DROPPING, async |connection| {
                sqlx::query(sql)
                    .bind(stream)
                    .bind(force)
                    .fetch_one(connection)
                    .await
            })
            .await?;
        let outcome = || {
            let gone: i64 = row.try_get("gone")?;
            let (waiting, decided): (i64, i64) = (row.try_get("waiting")?, row.try_get("decided")?);
            if gone > 0 {
                return Ok(DropStream::Dropped {
                    waiting: waiting.unsigned_abs(),
                    decided: decided.unsigned_abs(),
                });
            }
            // The statement sees what was before it, so a stream that is known here was held.
            let owner: Option<String> = row.try_get("owner")?;
            if row.try_get("known")? {
                return Ok(DropStream::Held {
                    owner: owner.unwrap_or_default(),
                });
            }
            Ok(DropStream::Unknown)
        };
        outcome().map_err(|error: sqlx::Error| LogError::malformed(DROPPING, error))
    }
}

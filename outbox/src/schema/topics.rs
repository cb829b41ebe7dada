//! Which topics a service writes: what `doctor` asks destinations about.

use onceward_core::Schema;
use sqlx::PgConnection;

use super::{InspectError, begin_reading, end_reading};
use crate::sql::render;

/// The topics of the newest messages, at most `newest` of each lane, in alphabetical order.
///
/// Reads [the log](super#what-is-read-of-the-log) in a transaction.
///
/// # Errors
/// [`InspectError`], also if the user may not read the log.
///
/// # Cancel safety
/// Nothing is changed; the connection is not to be used again.
pub async fn recent_topics(
    connection: &mut PgConnection,
    schema: &Schema,
    newest: u32,
) -> Result<Vec<String>, InspectError> {
    let mut reading = begin_reading(connection).await?;
    // By (lane, seq) backwards in each partition.
    let topics = sqlx::query_scalar(render(
        schema,
        "select distinct newest.topic
         from unnest(array[0, 1, 2]::smallint[]) l (lane)
         cross join lateral (
           select m.topic
           from {{schema}}.messages m
           where m.lane = l.lane
           order by m.seq desc
           limit $1
         ) newest
         order by newest.topic",
    ))
    .bind(i64::from(newest))
    .fetch_all(&mut *reading)
    .await
    .map_err(InspectError::about("the topics of the newest messages"))?;
    end_reading(reading).await?;
    Ok(topics)
}

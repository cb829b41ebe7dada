//! Looks at the log before a stream is claimed.

use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row};

use super::Keeper;
use crate::log::LogError;
use crate::log::identity::Facts;
use crate::log::numbers::{NUMBERS, Numbers};
use crate::sql::render_parts;

const LOOKING: &str = "looking at the stream";

/// One plain statement: the snapshot and the highest numbers belong together. The highest by `messages (lane, seq)`,
/// transactions of the future by `messages (lane, txid, seq)`, on which `seq + 0` keeps the planner; locks nothing.
const LOOK: &str = "
select pg_backend_pid(), pg_current_snapshot()::text,
  array(
    select coalesce((select max(seq) from {{schema}}.messages where lane = l), 0)
    from unnest(array[0, 1, 2]::smallint[]) l
    order by l
  ) as highest,
  exists (
    select
    from unnest(array[0, 1, 2]::smallint[]) l
    cross join lateral (
      select
      from {{schema}}.messages m
      where m.lane = l
        and m.txid >= pg_snapshot_xmax(pg_current_snapshot())
        and m.seq + 0 > coalesce((select max(c.floor) from {{schema}}.cursors c), 0)
      limit 1
    ) f
  ) as future_txid,
  (select system_identifier from {{schema}}.streams where stream = $1) as system,
  $numbers";

/// What a look at the stream found.
pub(super) struct Look {
    pub(super) snapshot: String,
    /// The highest number of each lane.
    pub(super) highest: Vec<i64>,
    pub(super) facts: Facts,
}

impl Keeper {
    pub(super) async fn look(&mut self, stream: &str) -> Result<Look, LogError> {
        let sql = render_parts(&self.schema, &LOOK.replace("$numbers", NUMBERS));
        let row = self
            .session
            .call(LOOKING, async |connection| {
                sqlx::query(sql).bind(stream).fetch_one(connection).await
            })
            .await?;
        self.session.check_pid(&row, 0)?;
        self.decode_look(&row)
            .map_err(|error| LogError::malformed(LOOKING, error))
    }

    fn decode_look(&self, row: &PgRow) -> Result<Look, sqlx::Error> {
        let highest: Vec<i64> = row.try_get("highest")?;
        Ok(Look {
            snapshot: row.try_get(1)?,
            facts: Facts {
                now: self.session.identity(),
                stored_system: row.try_get("system")?,
                future_txid: row.try_get("future_txid")?,
                highest: highest.iter().copied().max().unwrap_or(0),
                numbers: Numbers::from_row(row)?,
            },
            highest,
        })
    }
}

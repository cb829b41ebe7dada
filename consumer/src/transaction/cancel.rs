//! Ends on the server what a dropped future leaves running there: its query, its locks and its mark.

use std::time::Duration;

use sqlx::{Connection as _, PgConnection};

use super::{Database, Marked, within};

/// How long the side connection may take in all.
const SIDE: Duration = Duration::from_secs(1);

/// Cancels what a backend runs, if it is still the one that wrote the mark: it is in that transaction still, or has begun before, while
/// another one with its number has begun since. Asked for only here: it looks at all backends, which with each mark would cost more than
/// the mark. $1 the backend, $2 when it wrote the mark, $3 its transaction.
const CANCEL: &str = "
select pg_cancel_backend(a.pid)
from pg_stat_get_activity($1) a
where a.backend_start <= $2
  or a.backend_xid = $3::text::xid";

impl Database {
    /// Cancels the query of that transaction over a connection beside the pool, which may be used up.
    ///
    /// Fails when the database is out of reach: then there was an outage.
    pub(super) async fn cancel(&self, marked: &Marked) -> Result<(), sqlx::Error> {
        let options = self.pool.connect_options();
        let cancelled = async {
            let mut side = PgConnection::connect_with(&options).await?;
            sqlx::query(CANCEL)
                .bind(marked.pid)
                .bind(marked.at)
                .bind(&marked.xid)
                .execute(&mut side)
                .await?;
            side.close().await
        };
        within(SIDE, cancelled).await
    }
}

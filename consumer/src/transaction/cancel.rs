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
    /// Cancels the query of that transaction over a connection beside the pool, which may be used up. False: its backend is gone.
    ///
    /// Fails when the database is out of reach: then there was an outage.
    pub(super) async fn cancel(&self, marked: &Marked) -> Result<bool, sqlx::Error> {
        let options = self.pool.connect_options();
        let cancelled = async {
            let mut side = PgConnection::connect_with(&options).await?;
            let backend = sqlx::query(CANCEL)
                .bind(marked.pid)
                .bind(marked.at)
                .bind(&marked.xid)
                .fetch_optional(&mut side)
                .await?;
            side.close().await?;
            Ok(backend.is_some())
        };
        within(SIDE, cancelled).await
    }
}

#[cfg(test)]
mod tests {
    use onceward_testkit::postgres::Database as TestDatabase;
    use onceward_testkit::wait;
    use sqlx::Executor as _;
    use uuid::Uuid;

    use super::super::mark::Says;
    use super::super::testing::database;
    use super::*;
    use crate::mark::Mark;

    const LIMIT: Duration = Duration::from_secs(30);

    /// A backend that begins now, and its transaction, which has written a mark.
    async fn marked(test: &TestDatabase, database: &Database) -> (PgConnection, Marked) {
        let mut connection = PgConnection::connect(test.url()).await.unwrap();
        connection.execute("begin").await.unwrap();
        let mark = Mark {
            id: Uuid::now_v7(),
            digest: None,
        };
        let marked = database.insert_mark(&mut connection, &mark, Says::Handled, LIMIT);
        let marked = marked.await.unwrap().expect("the mark is not there yet");
        (connection, marked)
    }

    async fn until_it_sleeps(database: &Database, pid: i32) {
        let sleeps = "select wait_event = 'PgSleep' from pg_stat_activity where pid = $1";
        wait::until_true(LIMIT, "a backend that sleeps", || async {
            let sleeps: Option<bool> = sqlx::query_scalar(sleeps)
                .bind(pid)
                .fetch_one(&database.pool)
                .await
                .unwrap();
            sleeps == Some(true)
        })
        .await;
    }

    #[tokio::test]
    async fn what_runs_is_cancelled_even_if_the_clock_was_set_back_since_it_began() {
        let (test, database) = database().await;
        for set_back in [Duration::ZERO, Duration::from_secs(3_600)] {
            let (mut backend, mut marked) = marked(&test, &database).await;
            marked.at -= set_back;

            let (ended, ()) = tokio::join!(backend.execute("select pg_sleep(600)"), async {
                until_it_sleeps(&database, marked.pid).await;
                assert!(database.cancel(&marked).await.unwrap());
            });

            let error = ended.unwrap_err().into_database_error().unwrap();
            assert_eq!(error.code().as_deref(), Some("57014"));
        }
    }

    #[tokio::test]
    async fn another_backend_that_has_got_the_number_since_is_left_alone() {
        let (test, database) = database().await;
        let (_gone, gone) = marked(&test, &database).await;
        let (mut other, others) = marked(&test, &database).await;
        let gone = Marked {
            pid: others.pid,
            ..gone
        };

        assert!(!database.cancel(&gone).await.unwrap());
        // Not in a transaction that writes either.
        other.execute("rollback").await.unwrap();
        assert!(!database.cancel(&gone).await.unwrap());
    }
}

//! A database of a test's own, dropped with the value.

use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection as _};

use crate::{unique, wait};

const ANSWER_TAKES_AT_MOST: Duration = Duration::from_secs(2);
const DROP_TAKES_AT_MOST: Duration = Duration::from_secs(10);

/// A fresh database, and a pool of at most ten connections to it.
#[derive(Debug)]
pub struct Database {
    admin_url: String,
    url: String,
    name: String,
    pool: PgPool,
}

impl Database {
    pub(super) async fn create(admin_url: &str) -> Self {
        let name = unique("test");
        wait::until(Duration::from_secs(30), "a fresh database", || async {
            // Refused while somebody else is connected to the template; then again.
            execute(admin_url, &format!("create database {name}"))
                .await
                .ok()
        })
        .await;
        let url = with_name(admin_url, &name);
        let pool = PgPoolOptions::new()
            .max_connections(20)
            .connect(&url)
            .await
            .expect("a database that was just created can be connected to");
        Self {
            admin_url: admin_url.to_owned(),
            url,
            name,
            pool,
        }
    }

    /// Its URL, for other pools and for processes.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its URL for another role, which needs no password on a server of the testkit.
    #[must_use]
    pub fn url_as(&self, role: &str) -> String {
        let (scheme, rest) = self.url.split_once("://").expect("a URL has a scheme");
        let (_, host) = rest.split_once('@').unwrap_or(("", rest));
        format!("{scheme}://{role}@{host}")
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A pool of at most ten connections as superuser.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        static JANITOR: OnceLock<Sender<Job>> = OnceLock::new();

        let janitor = JANITOR.get_or_init(janitor);
        let (done, is_done) = channel();
        let statement = format!("drop database if exists {} with (force)", self.name);
        if janitor
            .send(Job {
                url: self.admin_url.clone(),
                statement,
                done,
            })
            .is_ok()
        {
            // Best effort: the server may be down, on purpose.
            is_done.recv_timeout(DROP_TAKES_AT_MOST).ok();
        }
    }
}

struct Job {
    url: String,
    statement: String,
    done: Sender<()>,
}

/// A thread with a runtime of its own, as a value may be dropped anywhere.
fn janitor() -> Sender<Job> {
    let (jobs, queue) = channel::<Job>();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.expect("the system has room for one more runtime");
        for Job {
            url,
            statement,
            done,
        } in queue
        {
            let bounded =
                async { tokio::time::timeout(DROP_TAKES_AT_MOST, execute(&url, &statement)).await };
            drop(runtime.block_on(bounded));
            // Nobody waits any more when it took too long.
            done.send(()).ok();
        }
    });
    jobs
}

async fn execute(url: &str, statement: &str) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    // The only part that is not constant is a name out of our own random letters.
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
        .execute(&mut connection)
        .await?;
    connection.close().await
}

/// Whether the server takes statements.
pub(super) async fn answers(url: &str) -> bool {
    let asked = async {
        let mut connection = PgConnection::connect(url).await?;
        sqlx::query("select 1").execute(&mut connection).await?;
        connection.close().await
    };
    matches!(
        tokio::time::timeout(ANSWER_TAKES_AT_MOST, asked).await,
        Ok(Ok(()))
    )
}

/// The id of the process that writes the log by itself.
pub(super) async fn wal_writer(url: &str) -> i32 {
    let sql = "select pid from pg_stat_activity where backend_type = 'walwriter'";
    let asked = async {
        let mut connection = PgConnection::connect(url).await?;
        let pid: i32 = sqlx::query_scalar(sql).fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok::<i32, sqlx::Error>(pid)
    };
    asked.await.expect("a server that runs writes its log")
}

/// `url` with another database in it.
pub(super) fn with_name(url: &str, name: &str) -> String {
    let (scheme, rest) = url.split_once("://").expect("a URL has a scheme");
    let (address, options) = rest
        .split_once('?')
        .map_or((rest, None), |(a, o)| (a, Some(o)));
    let (host, _) = address.split_once('/').unwrap_or((address, ""));
    let options = options
        .map(|options| format!("?{options}"))
        .unwrap_or_default();
    format!("{scheme}://{host}/{name}{options}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_database_keeps_host_and_options() {
        let url = with_name("postgres://u:p@h:1/postgres?sslmode=disable", "x");

        assert_eq!(url, "postgres://u:p@h:1/x?sslmode=disable");
        assert_eq!(with_name("postgres://h", "x"), "postgres://h/x");
    }
}

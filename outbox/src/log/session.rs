//! A database session of the relay's own: settings that last, an identity, and a deadline for every call.

use std::future::Future;
use std::time::Duration;

use onceward_core::Schema;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{ConnectOptions, Connection, Row};
use tokio::time::timeout;

use super::error::LogError;
use super::identity::{Identity, Server};

/// The longest that a read is given when it may take longer than usual.
const SLOWEST: Duration = Duration::from_secs(300);

/// Where the log is.
#[derive(Debug, Clone)]
pub struct LogDatabase {
    pub(crate) options: PgConnectOptions,
    pub(crate) schema: Schema,
    pub(crate) within: Duration,
    /// The same for a read of the log.
    pub(crate) read_within: Duration,
}

impl LogDatabase {
    /// The database behind `options`. The connections must be direct or session-pooled.
    #[must_use]
    pub fn new(options: PgConnectOptions, schema: Schema) -> Self {
        Self {
            options,
            schema,
            within: Duration::from_secs(10),
            read_within: Duration::from_secs(10),
        }
    }

    /// The same with so many times as long for each read of the log, but no longer than five minutes, or as long as any call if that is
    /// longer: for a read that [took too long](LogError::is_slow_read). One that hangs is noticed later then, and goes on for as long at the
    /// server if its reader is dropped. All other calls are as before.
    #[must_use]
    pub fn slower(&self, times: u32) -> Self {
        let longest = SLOWEST.max(self.within);
        Self {
            read_within: self.within.saturating_mul(times).min(longest),
            ..self.clone()
        }
    }

    /// How long any call may take, 10 s unless changed. Shorter than the lease's ttl, or a call that hangs outlives it.
    #[must_use]
    pub fn within(self, within: Duration) -> Self {
        Self {
            within,
            read_within: within,
            ..self
        }
    }
}

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Reading the log: only plans that walk its indexes, nothing is written.
    Read,
    /// Everything else.
    Write,
}

/// One connection with an owner. After a call that did not end, it is of no use: whatever it is asked then fails at once.
#[derive(Debug)]
pub(crate) struct Session {
    connection: PgConnection,
    within: Duration,
    read_within: Duration,
    pub(super) server: Server,
    pid: i32,
    broken: bool,
}

const CONNECTING: &str = "connecting";

/// No statement of ours may run on after its caller has given up; commits are durable unless a statement says otherwise.
/// The log is large and its indexes fit: a scan of it is never right, also while nothing is known of a new slot.
const SETTINGS: &str = "
select pg_backend_pid(),
  set_config('default_transaction_isolation', 'read committed', false),
  set_config('statement_timeout', $1, false),
  set_config('lock_timeout', $1, false),
  set_config('idle_in_transaction_session_timeout', $1, false),
  set_config('enable_seqscan', 'off', false),
  set_config('enable_bitmapscan', 'off', false),
  set_config('jit', 'off', false),
  set_config('synchronous_commit', case current_setting('synchronous_commit') when 'remote_apply' then 'remote_apply' else 'on' end, false)";

/// The read is written for one plan; whatever the statistics say, it shall not be left. A generic plan saves the planning.
pub(super) const READ_SETTINGS: &str = "
select pg_backend_pid(),
  set_config('default_transaction_read_only', 'on', false),
  set_config('enable_sort', 'off', false),
  set_config('enable_seqscan', 'off', false),
  set_config('enable_bitmapscan', 'off', false),
  set_config('enable_hashjoin', 'off', false),
  set_config('enable_mergejoin', 'off', false),
  set_config('jit', 'off', false),
  set_config('max_parallel_workers_per_gather', '0', false),
  set_config('plan_cache_mode', 'force_generic_plan', false)";

const IDENTITY: &str = "
select pg_backend_pid(), pg_is_in_recovery(), (select system_identifier from pg_control_system()),
  case when not pg_is_in_recovery() then substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) end,
  (extract(epoch from pg_postmaster_start_time()) * 1000000)::bigint,
  (select oid::bigint from pg_database where datname = current_database())";

impl Session {
    /// # Errors
    /// [`LogError::Standby`], [`LogError::TransactionPooler`], and those of any call.
    pub(crate) async fn open(database: &LogDatabase, purpose: Purpose) -> Result<Self, LogError> {
        let options = database.options.clone().disable_statement_logging();
        let within = database.within;
        let connection = match timeout(within, PgConnection::connect_with(&options)).await {
            Ok(connected) => connected.map_err(|source| LogError::Database {
                doing: CONNECTING,
                source,
            })?,
            Err(_) => {
                return Err(LogError::Timeout {
                    doing: CONNECTING,
                    within,
                });
            }
        };
        let mut session = Self {
            connection,
            within,
            read_within: database.read_within,
            server: Server {
                identity: Identity {
                    system: 0,
                    timeline: 0,
                },
                started: 0,
                database: 0,
            },
            pid: 0,
            broken: false,
        };
        session.identify().await?;
        match purpose {
            Purpose::Read => {
                session.set_up(SETTINGS, database.read_within).await?;
                session.set_up(READ_SETTINGS, database.read_within).await?;
            }
            Purpose::Write => session.set_up(SETTINGS, within).await?,
        }
        Ok(session)
    }

    async fn identify(&mut self) -> Result<(), LogError> {
        let query = sqlx::query(IDENTITY);
        let row = self
            .call("asking who the server is", async |connection| {
                query.fetch_one(connection).await
            })
            .await?;
        let malformed = |what: sqlx::Error| LogError::malformed("asking who the server is", what);
        let timeline: Option<String> = row.try_get(3).map_err(malformed)?;
        let Some(timeline) = timeline else {
            return Err(LogError::Standby);
        };
        self.pid = row.try_get(0).map_err(malformed)?;
        let identity = Identity {
            system: row.try_get(2).map_err(malformed)?,
            timeline: i64::from_str_radix(&timeline, 16)
                .map_err(|e| LogError::malformed("asking who the server is", e))?,
        };
        self.server = Server {
            identity,
            started: row.try_get(4).map_err(malformed)?,
            database: row.try_get(5).map_err(malformed)?,
        };
        Ok(())
    }

    /// `longest` is how long the server lets a statement run.
    async fn set_up(&mut self, settings: &'static str, longest: Duration) -> Result<(), LogError> {
        let millis = longest.as_millis().to_string();
        let row = self
            .call("setting up the session", async |connection| {
                let query = sqlx::query(settings);
                let query = if settings.contains("$1") {
                    query.bind(millis)
                } else {
                    query
                };
                query.fetch_one(connection).await
            })
            .await?;
        self.check_pid(&row, 0)
    }

    /// Which server this session is with.
    pub(crate) fn identity(&self) -> Identity {
        self.server.identity
    }

    /// The server as it runs now.
    pub(crate) fn server(&self) -> Server {
        self.server
    }

    /// How long any call may take.
    pub(crate) fn within(&self) -> Duration {
        self.within
    }

    /// Refuses a row that came from another server process than the session's own: its settings are not there.
    pub(crate) fn check_pid(&self, row: &PgRow, column: usize) -> Result<(), LogError> {
        let pid = row.try_get(column);
        self.is_own(pid.map_err(|e| LogError::malformed("asking who the server is", e))?)
    }

    /// Refuses an answer of another server process than the session's own.
    pub(crate) fn is_own(&self, pid: i32) -> Result<(), LogError> {
        if pid == self.pid {
            Ok(())
        } else {
            Err(LogError::TransactionPooler)
        }
    }

    /// Runs one call with a deadline.
    ///
    /// # Cancel safety
    /// Dropped, the session is broken: whether the statement ran is unknown, and its answer may still be on the way.
    pub(crate) async fn call<T>(
        &mut self,
        doing: &'static str,
        run: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, LogError> {
        let within = self.within;
        self.call_within(within, doing, run).await
    }

    /// The same for a read of the log, which may take longer.
    pub(crate) async fn call_read<T>(
        &mut self,
        doing: &'static str,
        run: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, LogError> {
        let within = self.read_within;
        self.call_within(within, doing, run).await
    }

    pub(super) async fn call_within<T>(
        &mut self,
        within: Duration,
        doing: &'static str,
        run: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, LogError> {
        if self.broken {
            let source = sqlx::Error::Protocol("an earlier call did not end".into());
            return Err(LogError::Database { doing, source });
        }
        self.broken = true;
        let answer = timeout(within, run(&mut self.connection)).await;
        let Ok(answer) = answer else {
            return Err(LogError::Timeout { doing, within });
        };
        let answer = answer.map_err(|source| LogError::Database { doing, source });
        // An error that the server answered leaves the session usable.
        self.broken = match &answer {
            Ok(_) => false,
            Err(LogError::Database { source, .. }) => !matches!(source, sqlx::Error::Database(_)),
            Err(_) => true,
        };
        answer
    }

    /// Says goodbye; at most a second.
    pub(crate) async fn close(self) {
        let goodbye: std::pin::Pin<Box<dyn Future<Output = _> + Send>> =
            Box::pin(self.connection.close());
        if timeout(Duration::from_secs(1), goodbye).await.is_err() {
            tracing::debug!("a database session did not close in time; it was dropped");
        }
    }
}

#[cfg(test)]
mod tests {
    use onceward_testkit::postgres::Postgres;

    use super::*;

    #[test]
    fn only_reads_get_more_time_and_no_less_than_any_call() {
        let log = LogDatabase::new(PgConnectOptions::new(), Schema::default());
        let of = |seconds, times| {
            let slower = log
                .clone()
                .within(Duration::from_secs(seconds))
                .slower(times);
            (slower.within.as_secs(), slower.read_within.as_secs())
        };

        assert_eq!(of(8, 1), (8, 8));
        assert_eq!(of(8, 4), (8, 32));
        assert_eq!(of(8, 1_024), (8, 300));
        assert_eq!(of(600, 4), (600, 600));
    }

    #[tokio::test]
    async fn a_row_from_another_server_process_is_refused() {
        let database = Postgres::shared().await.database().await;
        let log = LogDatabase::new(database.url().parse().unwrap(), Schema::default());
        let mut session = Session::open(&log, Purpose::Write).await.unwrap();
        // As behind a transaction pooler, which gives each statement the process that is free.
        session.pid += 1;

        let refused = session.set_up(SETTINGS, log.within).await;

        assert!(matches!(refused, Err(LogError::TransactionPooler)));
    }

    #[tokio::test]
    async fn a_session_whose_call_was_cut_off_is_of_no_more_use() {
        let database = Postgres::shared().await.database().await;
        let log = LogDatabase::new(database.url().parse().unwrap(), Schema::default())
            .within(Duration::from_millis(200));
        let mut session = Session::open(&log, Purpose::Write).await.unwrap();
        let slow = async |connection: &mut PgConnection| {
            sqlx::query("select pg_sleep(30)").execute(connection).await
        };
        let quick =
            async |connection: &mut PgConnection| sqlx::query("select 1").execute(connection).await;

        let cut_off = timeout(Duration::from_millis(20), session.call("sleeping", slow)).await;

        assert!(cut_off.is_err());
        assert!(session.call("asking", quick).await.is_err());
    }

    #[tokio::test]
    async fn an_error_that_the_server_answered_leaves_the_session_usable() {
        let database = Postgres::shared().await.database().await;
        let log = LogDatabase::new(database.url().parse().unwrap(), Schema::default());
        let mut session = Session::open(&log, Purpose::Write).await.unwrap();
        let ask = async |connection: &mut PgConnection, sql: &'static str| {
            sqlx::query(sql).execute(connection).await
        };

        let wrong = session
            .call("asking", async |c| ask(c, "select 1 / 0").await)
            .await;

        assert!(matches!(wrong, Err(LogError::Database { .. })));
        assert!(
            session
                .call("asking", async |c| ask(c, "select 1").await)
                .await
                .is_ok()
        );
    }
}

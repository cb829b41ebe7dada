//! PostgreSQL: a shared server with a fresh database per test, and servers of a test's own to crash and promote.

mod data;
mod database;
mod server;
mod standby;

use std::path::PathBuf;

use tokio::sync::OnceCell;

pub use database::Database;

use crate::{binaries, elsewhere};
use server::Server;

/// Settings of a server of the test's own.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether what is committed is also synced to disk. SIGKILL loses nothing either way, as the system's
    /// cache survives it; the server's own behaviour at commit differs. On, unless changed.
    pub fsync: bool,
    /// More lines for `postgresql.conf`, such as `("max_connections", "20")`. They win over the testkit's own.
    pub config: Vec<(String, String)>,
    /// The directory of `postgres` and `initdb`; else `ONCEWARD_TEST_POSTGRES_BIN`, else what is installed.
    pub bindir: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            fsync: true,
            config: Vec::new(),
            bindir: None,
        }
    }
}

impl Options {
    /// Adds a line to `postgresql.conf`.
    #[must_use]
    pub fn config(mut self, name: &str, value: &str) -> Self {
        self.config.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A running PostgreSQL: superuser `postgres`, no password, on loopback. Ends when it is dropped.
#[derive(Debug)]
pub struct Postgres {
    /// None: it runs elsewhere and is not ours to stop.
    server: Option<Server>,
    /// Of its database `postgres`.
    url: String,
}

impl Postgres {
    /// The server that all tests of this process share: the one of `ONCEWARD_TEST_POSTGRES_URL` (its role must be
    /// allowed to create databases), else one that is started now. It does not sync to disk, for speed.
    ///
    /// # Panics
    /// When there is none and none can be started.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Postgres> = OnceCell::const_new();

        SHARED
            .get_or_init(|| async {
                match elsewhere::postgres().await {
                    Some(url) => Self { server: None, url },
                    None => {
                        Self::start(Options {
                            fsync: false,
                            ..Options::default()
                        })
                        .await
                    }
                }
            })
            .await
    }

    /// Starts a server of the test's own, to kill and to start again.
    ///
    /// # Panics
    /// When PostgreSQL is not on this machine or does not start.
    pub async fn start(options: Options) -> Self {
        let server = Server::start(options).await;
        Self {
            url: server.url("postgres"),
            server: Some(server),
        }
    }

    /// The URL of one of its databases.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        database::with_name(&self.url, database)
    }

    /// A fresh, empty database.
    ///
    /// # Panics
    /// When the server does not answer.
    pub async fn database(&self) -> Database {
        Database::create(&self.url).await
    }

    /// Its port.
    ///
    /// # Panics
    /// When the server is not ours. So do all below.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.own().port()
    }

    /// The process id of the postmaster; all others are its children.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.own().pid()
    }

    /// SIGKILL, as a crash: the next start recovers.
    pub fn kill(&self) {
        self.own().kill();
    }

    /// Ends it in good order; open connections are cut, open transactions are rolled back.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn stop(&self) {
        self.own().stop().await;
    }

    /// Starts it again after [`kill`](Self::kill) or [`stop`](Self::stop): same port, same data.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_again(&self) {
        self.own().start_again().await;
    }

    /// SIGSTOP to the postmaster and to all of its processes: connections hang. [`cont`](Self::cont) ends it.
    pub fn freeze(&self) {
        self.own().freeze(true);
    }

    /// SIGSTOP to the process that writes the log by itself from time to time: from then on only what a commit waits for is written.
    ///
    /// # Panics
    /// When the server does not answer.
    pub async fn freeze_wal_writer(&self) {
        self.own().freeze_one(database::wal_writer(&self.url).await);
    }

    /// Lets a frozen server go on.
    pub fn cont(&self) {
        self.own().freeze(false);
    }

    /// Starts a standby that streams from this server, asynchronously, as `application_name = name`. Name it in
    /// `synchronous_standby_names` to make it a synchronous one.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn standby(&self, name: &str) -> Self {
        let server = standby::start(self.own(), &self.url, name).await;
        Self {
            url: server.url("postgres"),
            server: Some(server),
        }
    }

    /// Makes a standby a primary, whether or not its former primary still lives.
    ///
    /// # Panics
    /// When it is no standby, or is still one after 30 s.
    pub async fn promote(&self) {
        standby::promote(&self.url).await;
    }

    /// The server's own log: the last lines of it.
    #[must_use]
    pub fn log(&self) -> String {
        self.own().log()
    }

    fn own(&self) -> &Server {
        self.server
            .as_ref()
            .expect("ONCEWARD_TEST_POSTGRES_URL names a server that is not the test's to stop")
    }
}

/// The directory of `postgres` and `initdb` of a newer major, for [`Options::bindir`].
///
/// # Panics
/// When none was fetched by `scripts/install-servers.sh postgres-newer`.
#[must_use]
pub fn newer_bindir() -> PathBuf {
    binaries::postgres_newer().expect(
        "no newer PostgreSQL on this machine: run `scripts/install-servers.sh postgres-newer`",
    )
}

#[cfg(test)]
pub(crate) mod tests;

//! The relay: all its streams, and the emptying of slots beside them.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use onceward::{LogAdmin, LogDatabase, LogError, SharedReads};
use onceward_core::Chain;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::destination::Destination;
use crate::plan::chain;
use crate::settings::{InvalidSettings, StreamSettings};
use crate::stream::{StatusHandle, Stream, StreamStatus};

/// How often slots are looked at.
const EMPTY_EVERY: Duration = Duration::from_secs(60);

/// How long published messages stay in the log.
const DEFAULT_RETENTION: Duration = Duration::from_secs(3 * 24 * 3600);

type Running = Pin<Box<dyn Future<Output = Result<(), LogError>> + Send>>;
type Start = Box<dyn FnOnce(CancellationToken) -> Running + Send>;

/// Publishes the streams of one database. Any number of relays may run on it: each stream has one holder at a time, the others
/// take over within the lease's ttl.
///
/// ```no_run
/// use onceward::{LogDatabase, Schema};
/// use onceward_core::Source;
/// use onceward_memory::MemoryBroker;
/// use onceward_relay::{Relay, StreamSettings};
/// use tokio_util::sync::CancellationToken;
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let database = LogDatabase::new("postgres://127.0.0.1/shop".parse()?, Schema::default());
/// let settings = StreamSettings::new("events", Source::try_from("/shop/orders")?);
/// let relay = Relay::new(database).stream(settings, MemoryBroker::new());
/// relay.run(CancellationToken::new()).await?;
/// # Ok(())
/// # }
/// ```
pub struct Relay {
    database: LogDatabase,
    owner: String,
    retention: Duration,
    streams: Vec<(Arc<StreamSettings>, Start)>,
    statuses: Vec<watch::Receiver<StreamStatus>>,
    reads: SharedReads,
}

/// Why a relay did not start, or ended though nobody stopped it.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum RelayError {
    /// The settings of a stream are wrong; nothing was started.
    #[error("stream {stream:?} cannot be run with its settings")]
    Settings {
        /// The stream.
        stream: String,
        /// What is wrong with them.
        source: InvalidSettings,
    },
    /// Two streams have one name; nothing was started.
    #[error("two streams have the name {stream:?}")]
    SameName {
        /// The name.
        stream: String,
    },
    /// A stream must not be published from this database until a person has decided.
    #[error("stream {stream:?} must not be published")]
    Refused {
        /// The stream.
        stream: String,
        /// Why; its text names the page of the docs that says what to do.
        source: LogError,
    },
    /// A part of the relay ended by a panic. What was not stored is published again by the next holder.
    #[error("{part} ended without a result")]
    Ended {
        /// What it was, such as `stream "events"`.
        part: String,
        /// The panic.
        source: JoinError,
    },
}

/// As for people: with what lies behind it.
impl fmt::Debug for RelayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Chain(self))
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("owner", &self.owner)
            .field("retention", &self.retention)
            .field("streams", &self.statuses)
            .finish_non_exhaustive()
    }
}

impl Relay {
    /// A relay without streams.
    #[must_use]
    pub fn new(database: LogDatabase) -> Self {
        Self {
            database,
            owner: format!("{}#{}", hostname(), std::process::id()),
            retention: DEFAULT_RETENTION,
            streams: Vec::new(),
            statuses: Vec::new(),
            reads: SharedReads::default(),
        }
    }

    /// How long published messages stay in the log at least, 3 days unless changed. More than the schema's ring can hold
    /// (9 days as it is made) means that no slot is ever emptied: check it with [`onceward::Ring::check_retention`].
    #[must_use]
    pub fn retention(self, retention: Duration) -> Self {
        Self { retention, ..self }
    }

    /// Adds a stream and where it publishes to. Its settings are checked when the relay is run, and its name must be its own.
    #[must_use]
    pub fn stream<D: Destination>(mut self, settings: StreamSettings, destination: D) -> Self {
        let settings = Arc::new(settings);
        let (status, receiver) = StatusHandle::new(&settings.name);
        let stream = Stream {
            settings: settings.clone(),
            database: self.database.clone(),
            destination: Arc::new(destination),
            owner: self.owner.clone(),
            status,
            reads: self.reads.clone(),
        };
        self.streams
            .push((settings, Box::new(move |stop| Box::pin(stream.run(stop)))));
        self.statuses.push(receiver);
        self
    }

    /// How each stream stands, from now on. Clone what you look at: a stream waits for as long as you hold a borrow of its status.
    #[must_use]
    pub fn statuses(&self) -> Vec<watch::Receiver<StreamStatus>> {
        self.statuses.clone()
    }

    /// Runs until stopped: then what is in flight is waited for, and the leases are given back. A database or a broker that
    /// cannot be reached is waited for.
    ///
    /// # Errors
    /// - [`RelayError::Settings`] and [`RelayError::SameName`]: nothing was started; correct the settings.
    /// - [`RelayError::Refused`]: a stream must not be published from this database until a person has decided.
    /// - [`RelayError::Ended`]: a part of the relay panicked, which is a bug; run it again.
    ///
    /// After one of the last two all streams stop as they do when told to. Of several errors each is logged, and the first is given.
    ///
    /// # Cancel safety
    /// Dropped, everything stops where it stands; what was not stored is published again by the next holder.
    pub async fn run(self, stop: CancellationToken) -> Result<(), RelayError> {
        check(self.streams.iter().map(|(settings, _)| &**settings))?;
        let stop = stop.child_token();
        let mut tasks = JoinSet::new();
        // What each task does, for those that end without a result.
        let mut parts = HashMap::new();
        let (database, retention) = (self.database, self.retention);
        let sweeping = sweep(
            move || empty_slots(database.clone(), retention),
            stop.clone(),
        );
        let task = tasks.spawn(async move {
            sweeping.await;
            Ok(())
        });
        parts.insert(task.id(), "the emptying of slots".to_owned());
        for (settings, start) in self.streams {
            let stream = settings.name.clone();
            let part = format!("stream {stream:?}");
            let running = start(stop.clone());
            let refused = |source| RelayError::Refused { stream, source };
            let task = tasks.spawn(async move { running.await.map_err(refused) });
            parts.insert(task.id(), part);
        }
        let mut result = Ok(());
        while let Some(ended) = tasks.join_next_with_id().await {
            let error = match ended {
                Ok((_, Ok(()))) => continue,
                Ok((_, Err(error))) => error,
                Err(source) => {
                    let part = parts.remove(&source.id());
                    let part = part.unwrap_or_else(|| "a part".to_owned());
                    RelayError::Ended { part, source }
                }
            };
            error!(error = %chain(&error), "a part of the relay ended with an error; all streams stop");
            stop.cancel();
            result = result.and(Err(error));
        }
        result
    }
}

/// Whether these streams can be run, side by side.
fn check<'s>(streams: impl Iterator<Item = &'s StreamSettings>) -> Result<(), RelayError> {
    let mut names = BTreeSet::new();
    for settings in streams {
        let stream = || settings.name.clone();
        settings.check().map_err(|source| RelayError::Settings {
            stream: stream(),
            source,
        })?;
        if !names.insert(&settings.name) {
            return Err(RelayError::SameName { stream: stream() });
        }
    }
    Ok(())
}

/// Empties slots whose messages are old enough and that no cursor needs. Every relay does so; the database's locks keep them apart.
///
/// A stop does not wait for what `empty` asks the database: a slot is emptied whole or not at all.
async fn sweep<E>(empty: impl Fn() -> E, stop: CancellationToken)
where
    E: Future<Output = Result<Vec<i16>, LogError>>,
{
    let sweeping = async {
        loop {
            tokio::time::sleep(EMPTY_EVERY).await;
            match empty().await {
                Ok(emptied) if emptied.is_empty() => debug!("no slot to empty"),
                Ok(emptied) => info!(slots = ?emptied, "slots emptied"),
                Err(error) => {
                    warn!(error = %chain(&error), "slots could not be emptied; will try again");
                }
            }
        }
    };
    stop.run_until_cancelled(sweeping).await;
}

async fn empty_slots(database: LogDatabase, retention: Duration) -> Result<Vec<i16>, LogError> {
    let mut admin = LogAdmin::connect(&database).await?;
    let reports = admin.empty_slots(retention).await?;
    admin.close().await;
    let emptied = reports.into_iter().filter(|report| report.emptied);
    Ok(emptied.map(|report| report.slot).collect())
}

fn hostname() -> String {
    let named = std::env::var("HOSTNAME").ok();
    let read = || std::fs::read_to_string("/etc/hostname").ok();
    let name = named.or_else(read).unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "relay" } else { name }.to_owned()
}

#[cfg(test)]
mod tests;

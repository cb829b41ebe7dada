//! The configuration: one file and the environment, typed at the border, with every problem told at once.

mod address;
mod destination;
mod problem;
mod raw;
mod reader;
mod sections;
mod stream;
#[cfg(test)]
mod tests;
mod units;
mod value;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use onceward_core::Schema;
use secrecy::SecretString;

pub(crate) use problem::nearest;
pub use problem::{ConfigError, Problem};
pub(crate) use units::show_duration;

use crate::settings::StreamSettings;
use reader::Reader;

/// The file that is read when no other is named.
pub(crate) const DEFAULT_FILE: &str = "onceward.toml";

/// Everything that `onceward.toml` and the environment say. `Debug` shows no secrets.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file that was read; none: there was none, and all of it is of the environment.
    pub file: Option<PathBuf>,
    /// The database with the outbox.
    pub database: Database,
    /// The admin endpoints.
    pub admin: Admin,
    /// What is logged and how.
    pub log: Log,
    /// How long published messages stay in the log, so that they can be published again.
    pub retention: Duration,
    /// The streams, by name.
    pub streams: Vec<StreamConfig>,
}

/// The database with the outbox.
#[derive(Debug, Clone)]
pub struct Database {
    /// How to reach it; none if nothing says so. May hold a password.
    pub url: Option<SecretString>,
    /// The schema of Onceward's tables.
    pub schema: Schema,
    /// How long connecting may take. 100 ms to 5 min.
    pub connect_timeout: Duration,
    /// How long one answer may take; after that the connection counts as dead. 1 s to 10 min.
    pub answer_timeout: Duration,
}

/// The admin endpoints.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Where they listen.
    pub listen: SocketAddr,
    /// What callers must present; always set if others than this machine can reach them.
    pub token: Option<SecretString>,
}

/// What is logged and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// The least level, or directives such as `info,onceward_relay=debug`.
    pub level: String,
    /// The form of a line.
    pub format: LogFormat,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A stream and where it publishes to.
#[derive(Debug, Clone)]
pub struct StreamConfig {
    /// How it reads and publishes.
    pub settings: StreamSettings,
    /// Its broker.
    pub destination: DestinationConfig,
}

/// A broker and how to reach it.
#[derive(Debug, Clone)]
pub enum DestinationConfig {
    /// Apache Kafka.
    #[cfg(feature = "kafka")]
    Kafka(onceward_kafka::KafkaConfig),
    /// NATS JetStream.
    #[cfg(feature = "nats")]
    Nats(onceward_nats::NatsConfig),
    /// Amazon SQS.
    #[cfg(feature = "sqs")]
    Sqs(onceward_sqs::SqsConfig),
}

impl Config {
    /// Reads the file at `path`, else `onceward.toml` if there is one, and the environment above it.
    ///
    /// # Errors
    /// [`ConfigError`] with everything that is wrong. It shows no secrets.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let file = path.unwrap_or(Path::new(DEFAULT_FILE));
        let text = raw::read(file, path.is_some())?;
        let variables = raw::process_environment()?;
        let origin = match text {
            Some(_) => file.display().to_string(),
            None => "of the environment".to_owned(),
        };
        let mut config = Self::read(text.as_deref(), &origin, variables)?;
        config.file = text.is_some().then(|| file.to_owned());
        Ok(config)
    }

    fn read(
        text: Option<&str>,
        origin: &str,
        variables: raw::Variables,
    ) -> Result<Self, ConfigError> {
        let root = raw::merge(text, origin, variables)?;
        let mut problems = Vec::new();
        let config = Self::of(Reader::new("", Some(root), &mut problems));
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            Some(_) | None => Err(ConfigError {
                origin: origin.to_owned(),
                problems,
                unreadable: false,
            }),
        }
    }

    fn of(mut root: Reader<'_>) -> Option<Self> {
        let database = sections::database(root.section("database"));
        let admin = sections::admin(root.section("admin"));
        let log = sections::log(root.section("log"));
        let retention = sections::retention(root.section("retention"));
        let source = sections::source(&mut root);
        let streams = stream::streams(root.section("streams"), source.as_ref());
        root.finish();
        Some(Self {
            file: None,
            database: database?,
            admin: admin?,
            log: log?,
            retention,
            streams,
        })
    }

    /// The stream of this name.
    #[must_use]
    pub fn stream(&self, name: &str) -> Option<&StreamConfig> {
        self.streams
            .iter()
            .find(|stream| stream.settings.name == name)
    }
}

impl DestinationConfig {
    /// The broker's name, as in the configuration.
    #[must_use]
    pub fn broker(&self) -> &'static str {
        match *self {
            #[cfg(feature = "kafka")]
            Self::Kafka(_) => "kafka",
            #[cfg(feature = "nats")]
            Self::Nats(_) => "nats",
            #[cfg(feature = "sqs")]
            Self::Sqs(_) => "sqs",
        }
    }
}

impl fmt::Display for DestinationConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.broker())
    }
}

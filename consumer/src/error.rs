//! Why a consumer is not built, does not start, or ends.

use std::fmt;

use onceward_core::{InvalidGlob, InvalidTopic, Schema, SubscribeError};
use tokio::task::JoinError;

use crate::InvalidName;
use crate::schema::Right;

/// Why a consumer cannot be built: correct the program.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The name is none.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// A pattern of types is none.
    #[error("a handler's pattern of types is not valid")]
    Pattern(#[source] InvalidGlob),
    /// The topic for dead letters is none.
    #[error("the topic for dead letters is not valid")]
    Topic(#[source] InvalidTopic),
    /// Two handlers have the same pattern.
    #[error("the pattern {0:?} has two handlers")]
    PatternTwice(String),
    /// No pool was given.
    #[error("the consumer has no pool; call `pool`")]
    NoPool,
    /// There is nothing to do with any message.
    #[error(
        "the consumer has no handler; call `on`, `on_with`, `handler`, `on_batch`, `on_batch_with` or `batch`"
    )]
    NoHandler,
    /// Settings were given before any handler.
    #[error("`with` sets what the handler before it gets, and there is none")]
    SettingsWithoutHandler,
    /// Messages of a batch are deduped by their marks.
    #[error(
        "handlers of batches keep marks; leave out `dedupe_by_sequence`, or handle the messages one by one"
    )]
    BatchBySequence,
    /// Settings make no sense.
    #[error("the settings of {of} make no sense: {what}")]
    Settings {
        /// Whose.
        of: String,
        /// Why.
        what: &'static str,
    },
}

/// Why a consumer does not start, or ended without being told to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConsumerError {
    /// The database cannot be reached at the start. While the consumer runs, it waits instead.
    #[error("the database cannot be asked at the start")]
    Database(#[source] sqlx::Error),
    /// The server takes no writes.
    #[error("the database is a standby and takes no writes; give the primary's address")]
    Standby,
    /// The tables are not there.
    #[error("the database has no schema {0} with Onceward's tables; run `onceward migrate`")]
    NoSchema(Schema),
    /// The role may not do what a consumer does.
    #[error("the role {role} lacks rights; run: {}", Statements(missing))]
    Rights {
        /// The role that asked.
        role: String,
        /// What it lacks.
        missing: Vec<Right>,
    },
    /// The subscription is set up in a way that would lose messages or order.
    #[error("the subscription is refused")]
    Subscribe(#[source] SubscribeError),
    /// A part of the consumer ended by itself, which is a bug in Onceward or its adapter.
    #[error("a part of the consumer ended by itself")]
    Task(#[source] Option<JoinError>),
}

impl ConsumerError {
    pub(crate) fn task(error: Option<JoinError>) -> Self {
        Self::Task(error)
    }
}

/// The grants that are missing, as statements.
struct Statements<'a>(&'a [Right]);

impl fmt::Display for Statements<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, right) in self.0.iter().enumerate() {
            let separator = if n == 0 { "" } else { " " };
            write!(f, "{separator}{}", right.grant())?;
        }
        Ok(())
    }
}

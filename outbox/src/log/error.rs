//! What can go wrong between a relay and its log, by what to do about it.

use std::fmt;
use std::time::Duration;

use onceward_core::Chain;

use super::identity::Refusal;
use super::read::READING;

/// SQLSTATE of a statement that took longer than the server lets it.
const CANCELLED: &str = "57014";

/// An error of the log. Unless it says otherwise, drop the connection and claim again after a pause.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// Another relay holds the lease, or the stream was dropped: stop publishing at once.
    #[error("the lease of the stream is no longer ours")]
    Fenced,
    /// The database is not the one whose log the stream has read. Nothing is published until a person has decided.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The connection leads to a standby.
    #[error(
        "the database is a standby; connect the relay to the primary (docs/recovery.md#standby)"
    )]
    Standby,
    /// The connection changes its server process between statements.
    #[error(
        "a transaction pooler stands between the relay and the database; the relay needs direct or session-pooled connections (docs/recovery.md#transaction-pooler)"
    )]
    TransactionPooler,
    /// The connections of one relay lead to different servers: a failover goes on.
    #[error(
        "two connections of the relay lead to different servers (docs/recovery.md#different-servers)"
    )]
    DifferentServers,
    /// The database did not answer in time. What was asked may have happened.
    #[error("the database did not answer within {within:?} while {doing}")]
    Timeout {
        /// What was asked.
        doing: &'static str,
        /// How long the answer was waited for.
        within: Duration,
    },
    /// What was read is not durable on the named standby; it is read again later.
    #[error("the standby {standby:?} has not flushed what was read within {within:?}")]
    NotReplicated {
        /// The standby's `application_name`.
        standby: String,
        /// How long it was waited for.
        within: Duration,
    },
    /// The database's answer makes no sense; its schema is not the one this release knows.
    #[error("the database's answer is not understood while {doing}: {what}")]
    Malformed {
        /// What was asked.
        doing: &'static str,
        /// What is wrong with the answer.
        what: String,
    },
    /// The database refused or the connection broke.
    #[error("the database failed while {doing}")]
    Database {
        /// What was asked.
        doing: &'static str,
        /// The driver's error.
        source: sqlx::Error,
    },
    /// A task that worked on the log ended by a panic or was aborted.
    #[error("a task that worked on the log did not end in good order")]
    Task(#[source] tokio::task::JoinError),
}

/// As for people: with what lies behind it.
impl fmt::Debug for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Chain(self))
    }
}

impl LogError {
    /// Whether somebody else publishes now, or may.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        matches!(self, Self::Fenced)
    }

    /// Whether a read of the log took longer than it may, or was cancelled at the server: it may have to go through a transaction of many
    /// millions of messages that had its id, and had not ended, behind all that the last read saw. Connect with [`LogDatabase::slower`](super::LogDatabase::slower) then.
    #[must_use]
    pub fn is_slow_read(&self) -> bool {
        match self {
            Self::Timeout { doing, .. } => *doing == READING,
            Self::Database { doing, source } => {
                let error = source.as_database_error();
                let is_cancelled = error.is_some_and(|e| e.code().as_deref() == Some(CANCELLED));
                *doing == READING && is_cancelled
            }
            Self::Fenced
            | Self::Refused(_)
            | Self::Standby
            | Self::TransactionPooler
            | Self::DifferentServers
            | Self::NotReplicated { .. }
            | Self::Malformed { .. }
            | Self::Task(_) => false,
        }
    }

    /// Whether a person must decide before anything is published.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_))
    }

    /// The error of a task that did not end in good order.
    #[must_use]
    pub fn task(error: tokio::task::JoinError) -> Self {
        Self::Task(error)
    }

    pub(crate) fn malformed(doing: &'static str, what: impl ToString) -> Self {
        Self::Malformed {
            doing,
            what: what.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_the_way_to_the_server_names_a_section_that_is_there() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/recovery.md");
        let text = std::fs::read_to_string(page).unwrap();
        let titles = text.lines().filter_map(|line| line.strip_prefix("## "));
        let anchors: Vec<String> = titles
            .map(|title| title.to_lowercase().replace(' ', "-"))
            .collect();

        for error in [
            LogError::Standby,
            LogError::TransactionPooler,
            LogError::DifferentServers,
        ] {
            let told = error.to_string();
            let (_, anchor) = told.split_once("docs/recovery.md#").unwrap();
            let anchor = anchor.trim_end_matches(')').to_owned();
            assert!(anchors.contains(&anchor), "{told}");
        }
    }
}

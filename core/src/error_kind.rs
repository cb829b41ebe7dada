//! What went wrong between us and a broker, as far as anything can be decided by it.

use std::error::Error;
use std::fmt;

use crate::Chain;

/// A source of an error, as libraries give it.
pub type BoxError = Box<dyn Error + Send + Sync + 'static>;

/// Why a broker did not take a message. An error that an adapter does not know is [`Unavailable`](Self::Unavailable):
/// nobody is parked on doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The broker is out of reach, or answered something that is not known.
    Unavailable,
    /// The topic takes nothing more for now: it is full, or the broker asks for less.
    Throttled,
    /// Credentials or rights are missing.
    Unauthorized,
    /// The topic, stream or queue does not exist.
    UnknownTopic,
    /// The message exceeds a limit of the broker.
    TooLarge,
    /// The broker refuses this very message, whatever its size.
    Rejected,
}

/// Whose fault an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The destination's: every message would fail, so wait.
    Destination,
    /// One topic's: every message of it would fail, so that topic waits.
    Topic,
    /// The message's own: waiting does not help.
    Message,
}

impl ErrorKind {
    /// Whose fault it is.
    #[must_use]
    pub const fn fault(self) -> Fault {
        match self {
            Self::Unavailable => Fault::Destination,
            // A full stream or a queue that asks for less leaves the others alone.
            Self::Throttled | Self::Unauthorized | Self::UnknownTopic => Fault::Topic,
            Self::TooLarge | Self::Rejected => Fault::Message,
        }
    }

    /// The kind's name in tables, metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Throttled => "throttled",
            Self::Unauthorized => "unauthorized",
            Self::UnknownTopic => "unknown_topic",
            Self::TooLarge => "too_large",
            Self::Rejected => "rejected",
        }
    }
}

/// A publish attempt that failed.
#[derive(thiserror::Error)]
#[error("{what}")]
pub struct PublishError {
    /// What can be decided by.
    pub kind: ErrorKind,
    /// What happened, for people; never a payload or a secret.
    pub what: String,
    /// The library's own error.
    #[source]
    pub source: Option<BoxError>,
}

/// Of what lies behind it, only what it says: the `Debug` of a library's error may hold settings, and what was sent.
impl fmt::Debug for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = self.source.as_deref();
        f.debug_struct("PublishError")
            .field("kind", &self.kind)
            .field("what", &self.what)
            .field("source", &source.map(|source| Chain(source).to_string()))
            .finish()
    }
}

impl PublishError {
    /// An error without a library's error behind it.
    pub fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into(),
            source: None,
        }
    }

    /// An error with the library's own behind it.
    pub fn with_source(
        kind: ErrorKind,
        what: impl Into<String>,
        source: impl Into<BoxError>,
    ) -> Self {
        Self {
            kind,
            what: what.into(),
            source: Some(source.into()),
        }
    }
}

/// Why a subscriber could not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SubscribeErrorKind {
    /// The broker is out of reach: wait and try again; no attempt is burnt.
    Unavailable,
    /// Credentials or rights are missing: wait, and tell a person.
    Unauthorized,
    /// The subscription is set up in a way that would lose messages or order: refuse to run.
    Misconfigured,
    /// The delivery is no longer ours to ack: it will come again, or somebody else has it.
    Expired,
}

/// A subscriber's or an acker's failure.
#[derive(thiserror::Error)]
#[error("{what}")]
pub struct SubscribeError {
    /// What can be decided by.
    pub kind: SubscribeErrorKind,
    /// What happened, and for [`SubscribeErrorKind::Misconfigured`] what to change.
    pub what: String,
    /// The library's own error.
    #[source]
    pub source: Option<BoxError>,
}

/// As for people: with what lies behind it.
impl fmt::Debug for SubscribeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Chain(self))
    }
}

impl SubscribeError {
    /// An error without a library's error behind it.
    pub fn new(kind: SubscribeErrorKind, what: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into(),
            source: None,
        }
    }

    /// An error with the library's own behind it.
    pub fn with_source(
        kind: SubscribeErrorKind,
        what: impl Into<String>,
        source: impl Into<BoxError>,
    ) -> Self {
        Self {
            kind,
            what: what.into(),
            source: Some(source.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error as libraries have them: it keeps what it was given.
    #[derive(Debug, thiserror::Error)]
    #[error("the request failed")]
    struct OfLibrary {
        request: &'static str,
    }

    #[test]
    fn what_a_library_s_error_holds_and_does_not_say_is_not_shown() {
        let source = || OfLibrary { request: "hunter2" };
        let refused = PublishError::with_source(ErrorKind::Rejected, "refused", source());
        let kind = SubscribeErrorKind::Unavailable;
        let lost = SubscribeError::with_source(kind, "lost", source());

        for shown in [format!("{refused:?} {refused}"), format!("{lost:?} {lost}")] {
            assert!(!shown.contains("hunter2"), "{shown}");
            assert!(shown.contains("the request failed"), "{shown}");
        }
    }
}

//! What a user writes: a handler, and the errors by which it says what is to become of a message.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use futures_util::future::BoxFuture;
use onceward_core::{BoxError, Message};

use crate::Tx;

/// Handles messages, with all their effects in one transaction.
///
/// What is written through `tx` is committed exactly once per message, together with the mark that the message is
/// settled. Other effects (calls, mails, files) may happen again when an attempt fails or its answer is lost: give
/// them [`Tx::idempotency_key`].
///
/// The handler's promises:
/// - It passes on every database error. After one, Postgres refuses the rest of the transaction; a handler that goes
///   on all the same has failed, whatever it returns.
/// - It never runs SQL `commit`, `rollback` or `begin`; a nested `begin()` of sqlx is a savepoint and allowed.
/// - It never blocks its thread: a deadline cannot end that.
///
/// # Cancel safety
/// At its deadline the future is dropped and the transaction is rolled back.
pub trait Handler: Send + Sync + 'static {
    /// Handles one message.
    ///
    /// # Errors
    /// [`HandlerError`]: nothing of it is kept; try again, later, or never, as the error says.
    fn handle(
        &self,
        message: &Message,
        tx: &mut Tx,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;
}

/// Why a message was not handled, and what is to become of it. `?` on any error means: try again.
///
/// It does not implement [`std::error::Error`], as that is what lets `?` take any error.
pub struct HandlerError {
    pub(crate) verdict: Verdict,
    pub(crate) error: BoxError,
}

/// What is to become of a message whose attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Try again, after the backoff.
    Retry,
    /// Try again, after this long.
    RetryAfter(Duration),
    /// Dead letter: the handler says so.
    Reject,
    /// Dead letter: the payload is not what the handler expects.
    Payload,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Said(String);

impl HandlerError {
    /// The message can never be handled: it becomes a dead letter now, with this reason.
    #[must_use]
    pub fn reject(reason: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Reject,
            error: Box::new(Said(reason.into())),
        }
    }

    /// Try again after `delay`, in place of the backoff. It counts as an attempt, and the key waits that long.
    #[must_use]
    pub fn retry_after(delay: Duration) -> Self {
        Self {
            verdict: Verdict::RetryAfter(delay),
            error: Box::new(Said(format!("the handler asked to wait {delay:?}"))),
        }
    }

    /// The same with an error to tell of.
    #[must_use]
    pub fn because(mut self, error: impl Into<BoxError>) -> Self {
        self.error = match self.verdict {
            Verdict::Reject => Box::new(Because {
                what: self.error.to_string(),
                source: error.into(),
            }),
            Verdict::Retry | Verdict::RetryAfter(_) | Verdict::Payload => error.into(),
        };
        self
    }

    /// The payload is not what the handler expects: dead letter now.
    pub(crate) fn payload(error: impl Into<BoxError>) -> Self {
        Self {
            verdict: Verdict::Payload,
            error: error.into(),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{what}")]
struct Because {
    what: String,
    source: BoxError,
}

impl<E: Into<BoxError>> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self {
            verdict: Verdict::Retry,
            error: error.into(),
        }
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerError")
            .field("verdict", &self.verdict)
            .field("error", &self.error)
            .finish()
    }
}

/// A handler whose type is forgotten.
pub(crate) trait AnyHandler: Send + Sync + 'static {
    fn call<'a>(
        &'a self,
        message: &'a Message,
        tx: &'a mut Tx,
    ) -> BoxFuture<'a, Result<(), HandlerError>>;
}

/// A [`Handler`] as [`AnyHandler`].
pub(crate) struct Whole<H>(pub(crate) H);

impl<H: Handler> AnyHandler for Whole<H> {
    fn call<'a>(
        &'a self,
        message: &'a Message,
        tx: &'a mut Tx,
    ) -> BoxFuture<'a, Result<(), HandlerError>> {
        Box::pin(self.0.handle(message, tx))
    }
}

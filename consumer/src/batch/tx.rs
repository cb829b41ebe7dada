//! The transaction that a handler of batches writes in.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Instant;

use onceward_core::Message;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::session::Session;

/// The transaction in which a batch is handled, a [`PgConnection`] to sqlx.
///
/// It is committed after the handler has returned `Ok`, and only then; there is no `commit` in reach. A nested `begin()` of
/// [`sqlx::Connection`] is a savepoint.
pub struct BatchTx {
    pub(crate) session: Session,
    pub(crate) messages: Arc<[Arc<Message>]>,
    pub(crate) marks: Arc<[Uuid]>,
    pub(crate) attempt: u32,
    pub(crate) deadline: Instant,
}

impl BatchTx {
    /// The messages that are handled, at least one, those of a key in their order.
    #[must_use]
    pub fn messages(&self) -> &[Arc<Message>] {
        &self.messages
    }

    /// For each message, in the same order, what is the same for each attempt at it and for no other message: see
    /// [`Tx::idempotency_key`](crate::Tx::idempotency_key). Which messages make up a batch may change from attempt to attempt, so
    /// there is none for the batch.
    #[must_use]
    pub fn idempotency_keys(&self) -> &[Uuid] {
        &self.marks
    }

    /// Which attempt this is, counted from 1, at the only message of a batch. At several it is always the first: if it
    /// fails, they are handled one by one.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// When the attempt ends, whether or not the handler has returned.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }
}

impl Deref for BatchTx {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.session.reference()
    }
}

impl DerefMut for BatchTx {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.session.connection()
    }
}

impl fmt::Debug for BatchTx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchTx")
            .field("messages", &self.messages.len())
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

//! The transaction that a handler writes in.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Instant;

use onceward_core::{Message, MessageId};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::BatchTx;

/// The transaction in which a message is handled, a [`PgConnection`] to sqlx.
///
/// It is committed after the handler has returned `Ok`, and only then; there is no `commit` in reach.
///
/// ```no_run
/// # use onceward_consumer::{HandlerError, Tx};
/// # #[derive(serde::Deserialize)] struct OrderCreated { order: i64 }
/// async fn on_created(event: OrderCreated, tx: &mut Tx) -> Result<(), HandlerError> {
///     sqlx::query("insert into invoices (order_id) values ($1)")
///         .bind(event.order)
///         .execute(&mut **tx)
///         .await?;
///     Ok(())
/// }
/// ```
///
/// A nested `begin()` of [`sqlx::Connection`] is a savepoint.
pub struct Tx {
    /// A batch of one.
    pub(crate) batch: BatchTx,
    pub(crate) message: Arc<Message>,
    pub(crate) mark: Uuid,
}

impl Tx {
    /// The message that is handled, with its headers, key and topic.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// Its id. Unique per source only, if the message is not one of Onceward's.
    #[must_use]
    pub fn message_id(&self) -> &MessageId {
        &self.message.id
    }

    /// The same for each attempt at this message and for no other message: give it to whatever is called outside
    /// the database, so that it can drop what it has done already.
    ///
    /// It stays the same after restarts, through waits and when the dead letter is replayed, but not when that is replayed as
    /// a new message. It is worth as much as the other side's memory of it: mind for how long that lasts. The call itself is
    /// best made by a handler of its own, for a message that the deciding transaction has enqueued.
    #[must_use]
    pub fn idempotency_key(&self) -> Uuid {
        self.mark
    }

    /// Which attempt this is, counted from 1. Of those before a restart of the process, the ones are counted after which the
    /// message waited in the database.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.batch.attempt
    }

    /// When the attempt ends, whether or not the handler has returned.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.batch.deadline
    }
}

impl Deref for Tx {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.batch
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.batch
    }
}

impl fmt::Debug for Tx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tx")
            .field("message", &self.message)
            .field("attempt", &self.batch.attempt)
            .finish_non_exhaustive()
    }
}

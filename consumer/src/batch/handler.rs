//! What a user writes for batches.

use std::future::Future;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use onceward_core::Message;

use crate::handler::AnyHandler;
use crate::{BatchTx, HandlerError, Tx};

/// Handles several messages in one transaction.
///
/// What is written through `tx` is committed exactly once per message, together with the marks that all of them are
/// settled. A batch holds messages of one key only in their order, and without a gap; no two batches of a member have a key
/// in common. Which messages come together is by chance.
///
/// The handler's promises are those of a [`Handler`](crate::Handler), and one more:
/// - It handles all of them or fails. If it fails, by whichever error, nothing of the batch is kept, and its messages are
///   handled one by one, as batches of one: only then an error counts, retries, or rejects, and for that message alone.
///
/// # Cancel safety
/// At its deadline the future is dropped and the transaction is rolled back.
pub trait BatchHandler: Send + Sync + 'static {
    /// Handles the messages, at least one.
    ///
    /// # Errors
    /// [`HandlerError`]: nothing of them is kept. Of several messages each is tried by itself; of one it is as for a
    /// [`Handler`](crate::Handler).
    fn handle(
        &self,
        messages: &[Arc<Message>],
        tx: &mut BatchTx,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;
}

/// A handler of batches whose type is forgotten. The messages are those of the transaction.
pub(crate) trait AnyBatch: Send + Sync + 'static {
    fn call<'a>(&'a self, tx: &'a mut BatchTx) -> BoxFuture<'a, Result<(), HandlerError>>;
}

/// A [`BatchHandler`] as [`AnyBatch`].
pub(crate) struct WholeBatch<H>(pub(crate) H);

impl<H: BatchHandler> AnyBatch for WholeBatch<H> {
    fn call<'a>(&'a self, tx: &'a mut BatchTx) -> BoxFuture<'a, Result<(), HandlerError>> {
        let messages = tx.messages.clone();
        Box::pin(async move { self.0.handle(&messages, tx).await })
    }
}

/// Gives a handler of batches one message.
pub(crate) struct Alone(pub(crate) Arc<dyn AnyBatch>);

impl AnyHandler for Alone {
    fn call<'a>(
        &'a self,
        _: &'a Message,
        tx: &'a mut Tx,
    ) -> BoxFuture<'a, Result<(), HandlerError>> {
        self.0.call(&mut tx.batch)
    }
}

//! Functions as handlers of batches: `async fn (Vec<event>, &mut BatchTx)`, with or without state before them.

use std::future::{Future, ready};
use std::marker::PhantomData;

use futures_util::future::BoxFuture;
use serde::de::DeserializeOwned;

use super::{AnyBatch, BatchTx};
use crate::HandlerError;

/// A function that handles batches of events of type `T`:
/// `async fn f(events: Vec<T>, tx: &mut BatchTx) -> Result<(), HandlerError>`.
///
/// Function items and closures that capture nothing implement it; what a handler needs besides goes into
/// [`ConsumerBuilder::on_batch_with`](crate::ConsumerBuilder::on_batch_with).
pub trait BatchFn<'t, T>: Send + Sync + 'static {
    /// What the function returns.
    type Future: Future<Output = Result<(), HandlerError>> + Send + 't;

    /// Calls it.
    fn call(&self, events: Vec<T>, tx: &'t mut BatchTx) -> Self::Future;
}

impl<'t, F, Fut, T> BatchFn<'t, T> for F
where
    F: Fn(Vec<T>, &'t mut BatchTx) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), HandlerError>> + Send + 't,
{
    type Future = Fut;

    fn call(&self, events: Vec<T>, tx: &'t mut BatchTx) -> Fut {
        self(events, tx)
    }
}

/// A function with state before the events:
/// `async fn f(state: S, events: Vec<T>, tx: &mut BatchTx) -> Result<(), HandlerError>`.
pub trait BatchStateFn<'t, S, T>: Send + Sync + 'static {
    /// What the function returns.
    type Future: Future<Output = Result<(), HandlerError>> + Send + 't;

    /// Calls it.
    fn call(&self, state: S, events: Vec<T>, tx: &'t mut BatchTx) -> Self::Future;
}

impl<'t, F, Fut, S, T> BatchStateFn<'t, S, T> for F
where
    F: Fn(S, Vec<T>, &'t mut BatchTx) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), HandlerError>> + Send + 't,
{
    type Future = Fut;

    fn call(&self, state: S, events: Vec<T>, tx: &'t mut BatchTx) -> Fut {
        self(state, events, tx)
    }
}

/// A [`BatchFn`] behind JSON.
pub(crate) struct OfEvents<F, T> {
    pub(crate) function: F,
    pub(crate) event: PhantomData<fn(T)>,
}

impl<F, T> AnyBatch for OfEvents<F, T>
where
    F: for<'t> BatchFn<'t, T>,
    T: DeserializeOwned + Send + 'static,
{
    fn call<'a>(&'a self, tx: &'a mut BatchTx) -> BoxFuture<'a, Result<(), HandlerError>> {
        match events(tx) {
            Ok(events) => Box::pin(self.function.call(events, tx)),
            Err(error) => Box::pin(ready(Err(error))),
        }
    }
}

/// A [`BatchStateFn`] behind JSON, with its state.
pub(crate) struct OfStateAndEvents<F, S, T> {
    pub(crate) function: F,
    pub(crate) state: S,
    pub(crate) event: PhantomData<fn(T)>,
}

impl<F, S, T> AnyBatch for OfStateAndEvents<F, S, T>
where
    F: for<'t> BatchStateFn<'t, S, T>,
    S: Clone + Send + Sync + 'static,
    T: DeserializeOwned + Send + 'static,
{
    fn call<'a>(&'a self, tx: &'a mut BatchTx) -> BoxFuture<'a, Result<(), HandlerError>> {
        match events(tx) {
            Ok(events) => Box::pin(self.function.call(self.state.clone(), events, tx)),
            Err(error) => Box::pin(ready(Err(error))),
        }
    }
}

/// One payload that is no `T` fails the batch: alone, its message is found to be the guilty one.
fn events<T: DeserializeOwned>(tx: &BatchTx) -> Result<Vec<T>, HandlerError> {
    let read = |payload: &[u8]| serde_json::from_slice(payload).map_err(HandlerError::payload);
    let messages = tx.messages.iter();
    messages.map(|message| read(&message.payload)).collect()
}

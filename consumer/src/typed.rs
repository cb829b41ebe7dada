//! Functions as handlers: `async fn (event, &mut Tx)`, with or without state before them.

use std::future::{Future, ready};
use std::marker::PhantomData;

use futures_util::future::BoxFuture;
use onceward_core::Message;
use serde::de::DeserializeOwned;

use crate::handler::AnyHandler;
use crate::{HandlerError, Tx};

/// A function that handles events of type `T`: `async fn f(event: T, tx: &mut Tx) -> Result<(), HandlerError>`.
///
/// Function items and closures that capture nothing implement it; what a handler needs besides goes into
/// [`ConsumerBuilder::on_with`](crate::ConsumerBuilder::on_with).
pub trait EventFn<'t, T>: Send + Sync + 'static {
    /// What the function returns.
    type Future: Future<Output = Result<(), HandlerError>> + Send + 't;

    /// Calls it.
    fn call(&self, event: T, tx: &'t mut Tx) -> Self::Future;
}

impl<'t, F, Fut, T> EventFn<'t, T> for F
where
    F: Fn(T, &'t mut Tx) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), HandlerError>> + Send + 't,
{
    type Future = Fut;

    fn call(&self, event: T, tx: &'t mut Tx) -> Fut {
        self(event, tx)
    }
}

/// A function with state before the event: `async fn f(state: S, event: T, tx: &mut Tx) -> Result<(), HandlerError>`.
pub trait StateFn<'t, S, T>: Send + Sync + 'static {
    /// What the function returns.
    type Future: Future<Output = Result<(), HandlerError>> + Send + 't;

    /// Calls it.
    fn call(&self, state: S, event: T, tx: &'t mut Tx) -> Self::Future;
}

impl<'t, F, Fut, S, T> StateFn<'t, S, T> for F
where
    F: Fn(S, T, &'t mut Tx) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), HandlerError>> + Send + 't,
{
    type Future = Fut;

    fn call(&self, state: S, event: T, tx: &'t mut Tx) -> Fut {
        self(state, event, tx)
    }
}

/// An [`EventFn`] behind JSON.
pub(crate) struct OfEvent<F, T> {
    pub(crate) function: F,
    pub(crate) event: PhantomData<fn(T)>,
}

impl<F, T> AnyHandler for OfEvent<F, T>
where
    F: for<'t> EventFn<'t, T>,
    T: DeserializeOwned + Send + 'static,
{
    fn call<'a>(
        &'a self,
        message: &'a Message,
        tx: &'a mut Tx,
    ) -> BoxFuture<'a, Result<(), HandlerError>> {
        match serde_json::from_slice::<T>(&message.payload) {
            Ok(event) => Box::pin(self.function.call(event, tx)),
            Err(error) => Box::pin(ready(Err(HandlerError::payload(error)))),
        }
    }
}

/// A [`StateFn`] behind JSON, with its state.
pub(crate) struct OfState<F, S, T> {
    pub(crate) function: F,
    pub(crate) state: S,
    pub(crate) event: PhantomData<fn(T)>,
}

impl<F, S, T> AnyHandler for OfState<F, S, T>
where
    F: for<'t> StateFn<'t, S, T>,
    S: Clone + Send + Sync + 'static,
    T: DeserializeOwned + Send + 'static,
{
    fn call<'a>(
        &'a self,
        message: &'a Message,
        tx: &'a mut Tx,
    ) -> BoxFuture<'a, Result<(), HandlerError>> {
        match serde_json::from_slice::<T>(&message.payload) {
            Ok(event) => Box::pin(self.function.call(self.state.clone(), event, tx)),
            Err(error) => Box::pin(ready(Err(HandlerError::payload(error)))),
        }
    }
}

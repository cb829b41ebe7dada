//! The consumer as a user builds and runs it.

mod start;

use std::marker::PhantomData;
use std::sync::Arc;

use onceward_core::{InvalidGlob, Schema, Subscriber, Topic};
use serde::de::DeserializeOwned;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::batch::{AnyBatch, OfEvents, OfStateAndEvents, WholeBatch};
use crate::handler::{AnyHandler, Whole};
use crate::router::Route;
use crate::typed::{OfEvent, OfState};
use crate::{
    BatchFn, BatchHandler, BatchStateFn, BuildError, ConsumerError, ConsumerName, EventFn,
    FailingTypes, Handler, HandlerSettings, Limits, Settled, StateFn,
};

/// A consumer: handlers by type, and the database in which their effects happen once.
///
/// ```no_run
/// use onceward_consumer::{CancellationToken, Consumer, HandlerError, Tx};
///
/// #[derive(serde::Deserialize)]
/// struct OrderCreated { order: i64, amount: i64 }
///
/// async fn on_created(event: OrderCreated, tx: &mut Tx) -> Result<(), HandlerError> {
///     sqlx::query("insert into invoices (order_id, amount) values ($1, $2)")
///         .bind(event.order).bind(event.amount)
///         .execute(&mut **tx).await?;
///     Ok(())
/// }
/// # async fn example(pool: sqlx::PgPool, subscriber: onceward_memory::MemorySubscriber) -> Result<(), Box<dyn std::error::Error>> {
/// let consumer = Consumer::builder("billing").pool(pool).on("orders.created", on_created).build()?;
/// consumer.run(subscriber, CancellationToken::new()).await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Consumer {
    name: ConsumerName,
    pool: PgPool,
    schema: Schema,
    routes: Vec<Route>,
    defaults: HandlerSettings,
    limits: Limits,
    failing_types: FailingTypes,
    outbound: Option<Topic>,
    by_sequence: bool,
}

/// A consumer being built. Nothing is checked until [`build`](Self::build).
#[derive(Debug)]
#[must_use]
pub struct ConsumerBuilder {
    name: String,
    pool: Option<PgPool>,
    schema: Schema,
    routes: Vec<Route>,
    defaults: HandlerSettings,
    limits: Limits,
    failing_types: FailingTypes,
    outbound: Option<Topic>,
    by_sequence: bool,
    /// The first mistake.
    mistake: Option<BuildError>,
}

impl Consumer {
    /// Begins to build a consumer. Its marks are kept under `name`, `[a-z][a-z0-9_]*`; all its members use the same,
    /// and several consumers on one database use different ones.
    pub fn builder(name: &str) -> ConsumerBuilder {
        ConsumerBuilder {
            name: name.to_owned(),
            pool: None,
            schema: Schema::default(),
            routes: Vec::new(),
            defaults: HandlerSettings::default(),
            limits: Limits::default(),
            failing_types: FailingTypes::default(),
            outbound: None,
            by_sequence: false,
            mistake: None,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &ConsumerName {
        &self.name
    }

    /// Handles what `subscriber` brings until `stop`; then lets what runs end within [`Limits::grace`].
    ///
    /// An outage of the database or of the broker is waited out and costs no message an attempt.
    ///
    /// # Errors
    /// [`ConsumerError`]: at the start when the database is out of reach, is not migrated, has tables that were altered so that rows may be
    /// lost, or its role lacks rights; later when the subscription is refused.
    ///
    /// # Cancel safety
    /// Dropped, handlers end at once and are rolled back. What was not acked comes again, and the marks drop what was
    /// handled. It counts as a crash: what was in work is handled alone next time, and a message that was alone three times when that
    /// happened becomes a dead letter. To end in good order, cancel `stop`.
    pub async fn run<S: Subscriber>(
        self,
        subscriber: S,
        stop: CancellationToken,
    ) -> Result<(), ConsumerError> {
        self.start(subscriber, stop, false).await.map(drop)
    }

    /// Handles what `subscriber` brings until the broker has nothing more for it, and tells what was settled. A message
    /// that waits for its next attempt is waited for if that is due within five seconds. For tests, with the broker in
    /// memory, and for jobs that empty a queue. Waits for ever for a partition of its own.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    ///
    /// # Cancel safety
    /// As for [`run`](Self::run).
    pub async fn run_until_idle<S: Subscriber>(
        self,
        subscriber: S,
    ) -> Result<Settled, ConsumerError> {
        self.start(subscriber, CancellationToken::new(), true).await
    }
}

impl ConsumerBuilder {
    /// The database in which effects and marks are written. Required.
    ///
    /// Behind a transaction pooler, one that does not know prepared statements needs
    /// `PgConnectOptions::statement_cache_capacity(0)`.
    pub fn pool(mut self, pool: PgPool) -> Self {
        self.pool = Some(pool);
        self
    }

    /// The schema of Onceward's tables. Default `onceward`.
    pub fn schema(mut self, schema: Schema) -> Self {
        self.schema = schema;
        self
    }

    /// Handles messages whose type matches `types` by a function: `async fn f(event: T, tx: &mut Tx)`, the payload read
    /// as JSON. A payload that is no `T` becomes a dead letter with reason `payload`.
    ///
    /// In `types`, `*` matches any run of characters. A pattern without `*` wins over one with it, then the one with
    /// more characters that are not `*`, then the first one registered.
    pub fn on<F, T>(self, types: &str, function: F) -> Self
    where
        F: for<'t> EventFn<'t, T>,
        T: DeserializeOwned + Send + 'static,
    {
        let event = PhantomData;
        self.route(types, Some(Arc::new(OfEvent { function, event })))
    }

    /// As [`on`](Self::on), by a function that takes some state before the event: `async fn f(state: S, event: T, tx: &mut Tx)`.
    /// The state is cloned for each attempt.
    pub fn on_with<F, S, T>(self, types: &str, state: S, function: F) -> Self
    where
        F: for<'t> StateFn<'t, S, T>,
        S: Clone + Send + Sync + 'static,
        T: DeserializeOwned + Send + 'static,
    {
        let handler = OfState {
            function,
            state,
            event: PhantomData,
        };
        self.route(types, Some(Arc::new(handler)))
    }

    /// As [`on`](Self::on), by a [`Handler`], which gets the message as it is.
    pub fn handler<H: Handler>(self, types: &str, handler: H) -> Self {
        self.route(types, Some(Arc::new(Whole(handler))))
    }

    /// As [`on`](Self::on), several messages in one transaction: `async fn f(events: Vec<T>, tx: &mut BatchTx)`. See
    /// [`BatchHandler`].
    pub fn on_batch<F, T>(self, types: &str, function: F) -> Self
    where
        F: for<'t> BatchFn<'t, T>,
        T: DeserializeOwned + Send + 'static,
    {
        let event = PhantomData;
        self.batches(types, Arc::new(OfEvents { function, event }))
    }

    /// As [`on_batch`](Self::on_batch), by a function that takes some state before the events, cloned for each attempt.
    pub fn on_batch_with<F, S, T>(self, types: &str, state: S, function: F) -> Self
    where
        F: for<'t> BatchStateFn<'t, S, T>,
        S: Clone + Send + Sync + 'static,
        T: DeserializeOwned + Send + 'static,
    {
        let handler = OfStateAndEvents {
            function,
            state,
            event: PhantomData,
        };
        self.batches(types, Arc::new(handler))
    }

    /// As [`on_batch`](Self::on_batch), by a [`BatchHandler`], which gets the messages as they are.
    pub fn batch<H: BatchHandler>(self, types: &str, handler: H) -> Self {
        self.batches(types, Arc::new(WholeBatch(handler)))
    }

    /// Settles messages of these types without doing anything. Types that nothing is said about become dead letters
    /// with reason `no_handler`: to drop them in silence would be a loss.
    pub fn ignore(self, types: &str) -> Self {
        self.route(types, None)
    }

    /// Settings of the handler registered last, in place of the defaults.
    pub fn with(mut self, settings: HandlerSettings) -> Self {
        match self.routes.last_mut() {
            Some(route) => route.settings = Some(settings),
            None => self.note(BuildError::SettingsWithoutHandler),
        }
        self
    }

    /// Settings of all handlers that have none of their own.
    pub fn defaults(mut self, settings: HandlerSettings) -> Self {
        self.defaults = settings;
        self
    }

    /// How much the consumer holds and runs.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// When a type of which most messages fail is paused.
    pub fn failing_types(mut self, settings: FailingTypes) -> Self {
        self.failing_types = settings;
        self
    }

    /// Dedupes messages of ours that have a key and a [sequence](crate::Message::sequence) by that: one row for each key in
    /// `key_sequences`, in place of a mark for each message. All others keep marks. Not with handlers of batches.
    ///
    /// All members say so or none: stop all of them before you switch it on or off. The guide to consuming tells what producers
    /// must keep to, and what may be handled twice after a switch.
    ///
    /// ```no_run
    /// # use onceward_consumer::{BuildError, Consumer, HandlerError, Tx};
    /// # async fn on_created(event: String, tx: &mut Tx) -> Result<(), HandlerError> { Ok(()) }
    /// # fn example(pool: sqlx::PgPool) -> Result<Consumer, BuildError> {
    /// Consumer::builder("billing").pool(pool).dedupe_by_sequence().on("orders.created", on_created).build()
    /// # }
    /// ```
    pub fn dedupe_by_sequence(mut self) -> Self {
        self.by_sequence = true;
        self
    }

    /// Sends each dead letter on to `topic` besides, by a relay that reads this database's log: it is enqueued in the
    /// transaction that writes it, under its key and type, with headers `onceward-dead-letter-reason`, `-consumer`, `-topic`
    /// and `-id`. The consumer's role needs `onceward_writer` too. What enqueueing refuses (a payload that is too large) is
    /// in the table only.
    pub fn dead_letters_to(mut self, topic: &str) -> Self {
        match Topic::try_from(topic) {
            Ok(topic) => self.outbound = Some(topic),
            Err(error) => self.note(BuildError::Topic(error)),
        }
        self
    }

    /// Checks everything.
    ///
    /// # Errors
    /// The first [`BuildError`]: correct the program.
    pub fn build(mut self) -> Result<Consumer, BuildError> {
        if let Some(mistake) = self.mistake.take() {
            return Err(mistake);
        }
        let name = ConsumerName::try_from(self.name.as_str())?;
        let pool = self.pool.take().ok_or(BuildError::NoPool)?;
        if self.routes.is_empty() {
            return Err(BuildError::NoHandler);
        }
        if self.by_sequence && self.routes.iter().any(|route| route.batch.is_some()) {
            return Err(BuildError::BatchBySequence);
        }
        let fault = |of: &str, fault: Option<&'static str>| {
            fault.map(|what| BuildError::Settings {
                of: of.to_owned(),
                what,
            })
        };
        let of_routes = self.routes.iter().filter_map(|route| {
            let settings = route.settings.as_ref()?;
            fault(route.pattern.as_str(), settings.fault())
        });
        let mistake = fault("the consumer", self.limits.fault())
            .into_iter()
            .chain(fault("the defaults", self.defaults.fault()))
            .chain(fault("failing types", self.failing_types.fault()))
            .chain(of_routes)
            .next();
        match mistake {
            Some(mistake) => Err(mistake),
            None => Ok(Consumer {
                name,
                pool,
                schema: self.schema,
                routes: self.routes,
                defaults: self.defaults,
                limits: self.limits,
                failing_types: self.failing_types,
                outbound: self.outbound,
                by_sequence: self.by_sequence,
            }),
        }
    }

    fn route(self, types: &str, handler: Option<Arc<dyn AnyHandler>>) -> Self {
        self.add(types, Route::new(types, handler))
    }

    fn batches(self, types: &str, handler: Arc<dyn AnyBatch>) -> Self {
        self.add(types, Route::of_batches(types, handler))
    }

    fn add(mut self, types: &str, route: Result<Route, InvalidGlob>) -> Self {
        match route {
            Ok(route) if self.routes.iter().any(|one| one.pattern == route.pattern) => {
                self.note(BuildError::PatternTwice(types.to_owned()));
            }
            Ok(route) => self.routes.push(route),
            Err(error) => self.note(BuildError::Pattern(error)),
        }
        self
    }

    fn note(&mut self, mistake: BuildError) {
        self.mistake.get_or_insert(mistake);
    }
}

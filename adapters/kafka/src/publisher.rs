//! Sessions on Kafka: an idempotent producer that stores a prefix of what it is offered, or ends.

mod blame;
mod reports;
mod session;

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use onceward_core::{
    Batch, Capabilities, ErrorKind, InFlightPerKey, Order, Outcome, Outgoing, PublishError,
    Publisher, Receipts, Route, TopicReport,
};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{BaseProducer, BaseRecord};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::config::{KafkaConfig, producer};
use crate::errors::publish_error;
use crate::headers::{self, BROKER, Encoded};
use crate::topics::Topics;
use reports::{Reports, Shared, serve};
use session::{Phase, Reason};

/// How long `abandon` may take.
const ABANDON_WITHIN: Duration = Duration::from_secs(1);

/// Requests are made no larger than this, unless the team says otherwise or a topic allows less.
const LARGEST_REQUEST: u64 = 1_000_000;

/// librdkafka makes no requests smaller than this. Each message may still have one of its own.
const SMALLEST_REQUEST: u64 = 1;

/// One session to a Kafka cluster.
///
/// Its client is made with the first offer, when the limits of the topics are known. Dropping the session ends it: what is not on
/// the wire yet does not leave.
pub struct KafkaPublisher {
    config: Arc<KafkaConfig>,
    topics: Arc<Topics>,
    shared: Arc<Shared>,
    client: Option<Weak<BaseProducer<Reports>>>,
    largest_request: u64,
    limits: HashMap<Route, Option<u64>>,
    compressed: bool,
}

impl std::fmt::Debug for KafkaPublisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaPublisher")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Resolves to the receipts of one offer, at the latest by its deadline.
#[derive(Debug)]
pub struct KafkaPending {
    receipts: oneshot::Receiver<Receipts>,
    messages: usize,
}

impl Future for KafkaPending {
    type Output = Receipts;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Receipts> {
        let messages = self.messages;
        Pin::new(&mut self.receipts)
            .poll(context)
            .map(|answer| match answer {
                Ok(receipts) => receipts,
                Err(_) => unanswered(
                    messages,
                    &Reason::new(ErrorKind::Unavailable, "the session has ended"),
                ),
            })
    }
}

fn unanswered(messages: usize, why: &Reason) -> Receipts {
    let mut receipts = Receipts::unconfirmed(messages);
    receipts.end_session(why.error());
    receipts
}

/// Why a message was not sent.
struct NotSent {
    outcome: Outcome,
    why: Reason,
}

impl NotSent {
    /// The message itself is not fit to be sent.
    fn unfit(error: PublishError) -> Self {
        Self {
            why: Reason::new(error.kind, error.what.clone()),
            outcome: Outcome::Failed(error),
        }
    }

    /// The session cannot send it; another may.
    fn session(why: Reason) -> Self {
        Self {
            outcome: Outcome::Unconfirmed,
            why,
        }
    }
}

/// Ends the session unless disarmed: an offer that is cancelled leaves a gap.
struct Cancelled<'a>(Option<&'a Shared>);

impl Drop for Cancelled<'_> {
    fn drop(&mut self) {
        if let Some(shared) = self.0.take() {
            shared.end(Reason::new(
                ErrorKind::Unavailable,
                "an offer was cancelled",
            ));
        }
    }
}

impl KafkaPublisher {
    pub(crate) fn new(config: Arc<KafkaConfig>, topics: Arc<Topics>) -> Self {
        let number = |name: &str| config.properties.get(name)?.parse().ok();
        let compressed = ["compression.type", "compression.codec"]
            .iter()
            .any(|name| config.properties.get(*name).is_some_and(|c| c != "none"));
        Self {
            largest_request: number("batch.size").unwrap_or(LARGEST_REQUEST),
            compressed,
            config,
            topics,
            shared: Arc::new(Shared::new()),
            client: None,
            limits: HashMap::new(),
        }
    }

    /// Asks whether the cluster answers, whatever topics it has. Takes at most five seconds.
    ///
    /// # Errors
    /// [`PublishError`] of kind `Unavailable`, also when it refuses the credentials, which librdkafka does not tell apart.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub async fn reach(&self) -> Result<(), PublishError> {
        self.topics.reach().await
    }

    /// Reads the limits of topics that this session has not seen yet.
    async fn learn(&mut self, batch: &Batch, deadline: Instant) {
        let mut new: Vec<Route> = Vec::new();
        let mut last = None;
        for outgoing in &batch.messages {
            let route = &outgoing.route;
            if last == Some(route) {
                continue;
            }
            last = Some(route);
            if !self.limits.contains_key(route) && !new.contains(route) {
                new.push(route.clone());
            }
        }
        if new.is_empty() {
            return;
        }
        let unread: Vec<Route> = new
            .iter()
            .filter(|route| self.topics.limit(route).is_none())
            .cloned()
            .collect();
        if !unread.is_empty() {
            // A cluster that does not answer costs a part of the deadline and no more.
            let within = deadline.saturating_duration_since(Instant::now()) / 4;
            drop(timeout(within, self.topics.learn_limits(&unread)).await);
        }
        for route in new {
            let limit = self.topics.limit(&route).flatten();
            self.limits.insert(route, limit);
        }
    }

    /// The session's client, made now if there is none yet.
    fn client(&mut self) -> Result<Weak<BaseProducer<Reports>>, Reason> {
        if let Some(client) = &self.client {
            return Ok(Weak::clone(client));
        }
        if let Some(limit) = self.topics.smallest_limit() {
            self.largest_request = self.largest_request.min(limit.max(SMALLEST_REQUEST));
        }
        let failed = |what: String| Reason::new(ErrorKind::Unavailable, what);
        let settings = producer(&self.config, Some(self.largest_request));
        let client: BaseProducer<Reports> = settings
            .create_with_context(Reports(Arc::clone(&self.shared)))
            .map_err(|error| failed(format!("no Kafka client can be made: {error}")))?;
        let client = Arc::new(client);
        let weak = Arc::downgrade(&client);
        let (shared, topics) = (Arc::clone(&self.shared), Arc::clone(&self.topics));
        std::thread::Builder::new()
            .name("onceward-kafka-session".to_owned())
            .spawn(move || serve(client, &shared, &topics))
            .map_err(|error| failed(format!("no thread can be started: {error}")))?;
        self.client = Some(Weak::clone(&weak));
        Ok(weak)
    }

    /// Hands over the messages from `first` on; gives the number of the one that was not sent, and why.
    async fn send_all(
        &mut self,
        batch: &Batch,
        first: usize,
        client: &Weak<BaseProducer<Reports>>,
    ) -> Option<(usize, NotSent)> {
        for (index, outgoing) in batch.messages.iter().enumerate() {
            if let Err(not_sent) = self.send(outgoing, first + index, client).await {
                return Some((first + index, not_sent));
            }
        }
        None
    }

    async fn send(
        &mut self,
        outgoing: &Outgoing,
        number: usize,
        client: &Weak<BaseProducer<Reports>>,
    ) -> Result<(), NotSent> {
        let Encoded { headers, alone } = headers::encode(outgoing).map_err(NotSent::unfit)?;
        self.check_size(outgoing, alone).await?;
        let message = &outgoing.message;
        let mut record = BaseRecord::with_opaque_to(outgoing.route.as_str(), number)
            .payload(&message.payload[..])
            .headers(headers);
        record.key = message.key.as_ref().map(|key| key.as_str().as_bytes());
        loop {
            // Before the attempt, so that room made meanwhile is not missed.
            let moved = self.shared.moved.notified();
            match self.shared.send(client, record).map_err(NotSent::session)? {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(Code::QueueFull), back)) => record = back,
                Err((error, _)) => return Err(not_taken(outgoing, error)),
            }
            moved.await;
        }
    }

    /// Holds back a message that the broker would refuse for its size.
    async fn check_size(&mut self, outgoing: &Outgoing, alone: u64) -> Result<(), NotSent> {
        let route = &outgoing.route;
        let limit = self.limits.get(route).copied().flatten();
        let Some(limit) = limit else { return Ok(()) };
        if limit.max(SMALLEST_REQUEST) < self.largest_request {
            let what = format!(
                "{route} takes requests of {limit} bytes at most: the next session makes smaller ones"
            );
            return Err(NotSent::session(Reason::new(ErrorKind::Unavailable, what)));
        }
        // The broker compares compressed sizes: then only it can tell.
        if self.compressed || alone <= limit {
            return Ok(());
        }
        // The limit may have been raised since it was read.
        self.topics.learn_limits(std::slice::from_ref(route)).await;
        let limit = self.topics.limit(route).flatten();
        self.limits.insert(route.clone(), limit);
        match limit {
            Some(limit) if alone > limit => {
                let what = format!(
                    "it takes {alone} bytes and {route} takes {limit} at most (max.message.bytes)"
                );
                Err(NotSent::unfit(PublishError::new(ErrorKind::TooLarge, what)))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn end_reason(&self) -> Option<Reason> {
        match self.shared.locked().phase() {
            Phase::Open => None,
            Phase::Draining(why) | Phase::Over(why) => Some(why.clone()),
        }
    }
}

/// What it means that librdkafka itself does not take a message.
fn not_taken(outgoing: &Outgoing, error: KafkaError) -> NotSent {
    let code = error.rdkafka_error_code();
    if code.is_some_and(crate::errors::is_unanswered) {
        return NotSent::session(Reason {
            kind: ErrorKind::Unavailable,
            what: "the Kafka client has failed".to_owned(),
            code,
        });
    }
    let what = format!("the Kafka client does not take it for {}", outgoing.route);
    if matches!(error, KafkaError::Nul(_)) {
        return NotSent::unfit(PublishError::with_source(
            ErrorKind::UnknownTopic,
            what,
            error,
        ));
    }
    NotSent::unfit(publish_error(what, error))
}

impl Publisher for KafkaPublisher {
    type Pending = KafkaPending;

    fn capabilities(&self) -> Capabilities {
        capabilities()
    }

    async fn offer(&mut self, batch: Arc<Batch>) -> KafkaPending {
        let messages = batch.messages.len();
        let (done, receipts) = oneshot::channel();
        let pending = KafkaPending { receipts, messages };
        if let Some(why) = self.end_reason() {
            drop(done.send(unanswered(messages, &why)));
            return pending;
        }
        if messages == 0 {
            drop(done.send(Receipts::unconfirmed(0)));
            return pending;
        }
        let shared = Arc::clone(&self.shared);
        let mut cancelled = Cancelled(Some(&shared));
        let deadline = Instant::now() + self.config.deadline;
        self.learn(&batch, deadline).await;
        match self.client() {
            Ok(client) => {
                let first = shared.take(Arc::clone(&batch), deadline, done);
                if let Some((number, not_sent)) = self.send_all(&batch, first, &client).await {
                    shared.locked().cut(number, not_sent.outcome, not_sent.why);
                }
            }
            Err(why) => {
                drop(done.send(unanswered(messages, &why)));
                shared.drain(why);
            }
        }
        cancelled.0 = None;
        pending
    }

    async fn check(&mut self, routes: &[Route]) -> Vec<TopicReport> {
        self.topics.check(routes).await
    }

    async fn abandon(&mut self) {
        self.shared.end(Reason::new(
            ErrorKind::Unavailable,
            "the session was abandoned",
        ));
        if self.client.is_none() {
            self.shared.never_began();
        }
        drop(timeout(ABANDON_WITHIN, self.shared.ended()).await);
    }

    async fn close(self, within: Duration) {
        if self.client.is_none() {
            return;
        }
        let why = Reason::new(ErrorKind::Unavailable, "the session was closed");
        self.shared.drain(why);
        // Whatever is left is ended by the drop of `self`.
        drop(timeout(within, self.shared.ended()).await);
    }
}

impl Drop for KafkaPublisher {
    fn drop(&mut self) {
        self.shared.end(Reason::new(
            ErrorKind::Unavailable,
            "the session was dropped",
        ));
    }
}

/// What Kafka promises.
pub(crate) fn capabilities() -> Capabilities {
    Capabilities {
        broker: BROKER,
        order: Order::PerKey,
        in_flight_per_key: InFlightPerKey::Any,
        broker_dedupe: None,
        hold_limit: None,
        redelivery_count: false,
        positions: true,
        retention: None,
        max_message: None,
    }
}

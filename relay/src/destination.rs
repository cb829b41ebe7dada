//! The brokers a stream can publish to. The one file that runs them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use onceward_core::{Batch, Capabilities, PublishError, Publisher, Receipts, Route, TopicReport};

use crate::config::DestinationConfig;

#[cfg(not(any(feature = "kafka", feature = "nats", feature = "sqs")))]
compile_error!(
    "a relay without a broker publishes nothing: enable the feature `kafka`, `nats` or `sqs`"
);

/// Where a stream publishes to: opens one session after another, and at times one beside it that only asks about routes.
pub trait Destination: Send + Sync + 'static {
    /// A session.
    type Publisher: Publisher;

    /// Opens a session.
    ///
    /// # Errors
    /// [`PublishError`] when the broker is out of reach or refuses us; the relay tries again later.
    ///
    /// # Cancel safety
    /// Safe to drop: nothing was offered yet.
    fn open(&self) -> impl Future<Output = Result<Self::Publisher, PublishError>> + Send;
}

/// A broker of the configuration.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "there is one of these for each stream; whether they differ that much hangs on the features"
)]
pub enum Broker {
    /// Apache Kafka.
    #[cfg(feature = "kafka")]
    Kafka(onceward_kafka::Kafka),
    /// NATS JetStream.
    #[cfg(feature = "nats")]
    Nats(onceward_nats::NatsConfig),
    /// Amazon SQS.
    #[cfg(feature = "sqs")]
    Sqs(onceward_sqs::Sqs),
}

/// A session to a broker of the configuration.
#[derive(Debug)]
pub enum BrokerSession {
    /// To Apache Kafka.
    #[cfg(feature = "kafka")]
    Kafka(onceward_kafka::KafkaPublisher),
    /// To NATS JetStream.
    #[cfg(feature = "nats")]
    Nats(onceward_nats::NatsPublisher),
    /// To Amazon SQS.
    #[cfg(feature = "sqs")]
    Sqs(onceward_sqs::SqsPublisher),
}

/// Why a broker of the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the destination cannot be used")]
pub struct DestinationError(#[source] onceward_core::BoxError);

impl Broker {
    /// A broker by its configuration. It need not be there yet.
    ///
    /// # Errors
    /// [`DestinationError`] when settings do not fit together.
    pub fn new(config: &DestinationConfig) -> Result<Self, DestinationError> {
        match config {
            #[cfg(feature = "kafka")]
            DestinationConfig::Kafka(config) => onceward_kafka::Kafka::new(config.clone())
                .map(Self::Kafka)
                .map_err(|error| DestinationError(error.into())),
            #[cfg(feature = "nats")]
            DestinationConfig::Nats(config) => Ok(Self::Nats(config.clone())),
            #[cfg(feature = "sqs")]
            DestinationConfig::Sqs(config) => Ok(Self::Sqs(onceward_sqs::Sqs::new(config.clone()))),
        }
    }
}

impl Destination for Broker {
    type Publisher = BrokerSession;

    async fn open(&self) -> Result<BrokerSession, PublishError> {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(kafka) => Ok(BrokerSession::Kafka(kafka.publisher())),
            #[cfg(feature = "nats")]
            Self::Nats(config) => onceward_nats::NatsPublisher::connect(config)
                .await
                .map(BrokerSession::Nats),
            #[cfg(feature = "sqs")]
            Self::Sqs(sqs) => sqs.publisher().await.map(BrokerSession::Sqs),
        }
    }
}

/// Calls the same method of whichever session it is.
macro_rules! each {
    ($session:expr, $publisher:ident => $call:expr) => {
        match $session {
            #[cfg(feature = "kafka")]
            BrokerSession::Kafka($publisher) => $call,
            #[cfg(feature = "nats")]
            BrokerSession::Nats($publisher) => $call,
            #[cfg(feature = "sqs")]
            BrokerSession::Sqs($publisher) => $call,
        }
    };
}

impl BrokerSession {
    /// Asks whether the broker answers, whatever topics it has.
    ///
    /// # Errors
    /// [`PublishError`] when the broker is out of reach or refuses us.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub async fn reach(&self) -> Result<(), PublishError> {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(publisher) => publisher.reach().await,
            // Its session is opened on a connection.
            #[cfg(feature = "nats")]
            Self::Nats(_) => Ok(()),
            #[cfg(feature = "sqs")]
            Self::Sqs(publisher) => publisher.reach().await,
        }
    }
}

impl Publisher for BrokerSession {
    type Pending = Pin<Box<dyn Future<Output = Receipts> + Send>>;

    fn capabilities(&self) -> Capabilities {
        each!(self, publisher => publisher.capabilities())
    }

    async fn offer(&mut self, batch: Arc<Batch>) -> Self::Pending {
        each!(self, publisher => Box::pin(publisher.offer(batch).await))
    }

    async fn check(&mut self, routes: &[Route]) -> Vec<TopicReport> {
        each!(self, publisher => publisher.check(routes).await)
    }

    async fn abandon(&mut self) {
        each!(self, publisher => publisher.abandon().await);
    }

    async fn close(self, within: Duration) {
        each!(self, publisher => publisher.close(within).await);
    }
}

/// A broker in memory, for tests and examples.
#[cfg(feature = "memory")]
impl Destination for onceward_memory::MemoryBroker {
    type Publisher = onceward_memory::MemoryPublisher;

    async fn open(&self) -> Result<Self::Publisher, PublishError> {
        Ok(self.publisher())
    }
}

//! A cluster, on which sessions and members are opened.

use std::sync::Arc;

use onceward_core::{SubscribeError, SubscribeErrorKind};
use rdkafka::error::KafkaError;
use rdkafka::producer::BaseProducer;

use crate::config::{self, KafkaConfig, KafkaSubscription};
use crate::topics::Topics;
use crate::{KafkaConfigError, KafkaPublisher, KafkaSubscriber};

/// A Kafka cluster. Sessions opened on one of these share what is known of its topics.
///
/// ```no_run
/// use onceward_kafka::{Kafka, KafkaConfig, KafkaSubscription};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let kafka = Kafka::new(KafkaConfig::new("127.0.0.1:9092"))?;
/// let session = kafka.publisher();
/// let member = kafka.subscriber(KafkaSubscription::new("billing", ["orders.created"]))?;
/// # drop((session, member));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Kafka {
    config: Arc<KafkaConfig>,
    topics: Arc<Topics>,
}

impl std::fmt::Debug for Kafka {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kafka")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Kafka {
    /// Checks the configuration. The cluster need not be there yet.
    ///
    /// # Errors
    /// The first of [`KafkaConfig::problems`], or [`KafkaConfigError::Together`] when properties do not fit together.
    pub fn new(config: KafkaConfig) -> Result<Self, KafkaConfigError> {
        if let Some(problem) = config.problems().into_iter().next() {
            return Err(problem);
        }
        let together = |error: KafkaError| {
            KafkaConfigError::Together(config.without_secrets(error.to_string()))
        };
        // A session's client is made and thrown away: librdkafka tells only then whether its settings fit together.
        let trial: BaseProducer = config::producer(&config, None).create().map_err(together)?;
        std::thread::spawn(move || drop(trial));
        let topics = Topics::new(&config::base(&config)).map_err(together)?;
        Ok(Self {
            config: Arc::new(config),
            topics: Arc::new(topics),
        })
    }

    /// Opens a session. Nothing is sent before its first offer.
    #[must_use]
    pub fn publisher(&self) -> KafkaPublisher {
        KafkaPublisher::new(Arc::clone(&self.config), Arc::clone(&self.topics))
    }

    /// Opens a member of a consumer group, which joins it in the background.
    ///
    /// # Errors
    /// [`SubscribeErrorKind::Misconfigured`] when the subscription or the properties cannot be used.
    pub fn subscriber(
        &self,
        subscription: KafkaSubscription,
    ) -> Result<KafkaSubscriber, SubscribeError> {
        if let Some(problem) = subscription.problems().into_iter().next() {
            let what = "the subscription cannot be used";
            let kind = SubscribeErrorKind::Misconfigured;
            return Err(SubscribeError::with_source(kind, what, problem));
        }
        KafkaSubscriber::join(&self.config, subscription)
    }
}

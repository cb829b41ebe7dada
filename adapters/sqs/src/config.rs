//! How to reach SQS, and how a session and a member behave.

use std::fmt;
use std::time::Duration;

use onceward_core::Order;
use secrecy::SecretString;

/// How to reach SQS, and how a session behaves. `Debug` shows no secret.
#[derive(Clone)]
pub struct SqsConfig {
    /// The region; none: that of the SDK's usual chain (`AWS_REGION`, the profile, the instance).
    pub region: Option<String>,
    /// Where the API answers, for emulators and private endpoints; none: the region's own.
    pub endpoint_url: Option<String>,
    /// The profile of the shared files to use; none: that of the SDK's usual chain.
    pub profile: Option<String>,
    /// Who we are; none: the SDK's usual chain (environment, profile, web identity, container, instance).
    pub access_key: Option<AccessKey>,
    /// What the queues promise. [`Order::PerKey`]: a standard queue is refused. [`Order::None`]: any queue may be used.
    pub order: Order,
    /// How long one attempt to connect may take.
    pub connect_timeout: Duration,
    /// How long an answer of the API may take, beyond what a long poll waits.
    pub request_timeout: Duration,
    /// How long a message that is sent may stay unanswered before the session is over, and how long one may wait to be sent before it is
    /// given up as unconfirmed. Publishers only.
    pub deadline: Duration,
    /// How many messages may be unconfirmed at a time, at least 1. Publishers only.
    pub max_in_flight: usize,
    /// How many calls that send may be on their way at a time, at least 1. Each holds up to ten messages. Publishers only.
    pub max_calls: usize,
}

/// An access key in place of the SDK's usual chain. `Debug` shows no secret.
#[derive(Clone)]
pub struct AccessKey {
    /// Its id.
    pub id: String,
    /// Its secret.
    pub secret: SecretString,
    /// The token of a temporary one.
    pub session_token: Option<SecretString>,
}

impl SqsConfig {
    /// Everything by the SDK's usual chain, FIFO queues only.
    #[must_use]
    pub fn new() -> Self {
        Self {
            region: None,
            endpoint_url: None,
            profile: None,
            access_key: None,
            order: Order::PerKey,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
            deadline: Duration::from_secs(15),
            max_in_flight: 1_024,
            max_calls: 32,
        }
    }

    /// Lets standard queues be used too, which keep no order.
    #[must_use]
    pub fn without_order(mut self) -> Self {
        self.order = Order::None;
        self
    }

    /// [`endpoint_url`](Self::endpoint_url) for people: without a user and a password before its host.
    #[must_use]
    pub fn endpoint(&self) -> Option<String> {
        let shown = |url: &String| match (url.split_once("://"), url.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, place))) => format!("{scheme}://{place}"),
            (None, Some((_, place))) => place.to_owned(),
            (_, None) => url.clone(),
        };
        self.endpoint_url.as_ref().map(shown)
    }

    /// An emulator at this address, which takes any credentials.
    pub fn emulator(endpoint_url: impl Into<String>) -> Self {
        Self {
            region: Some("us-east-1".to_owned()),
            endpoint_url: Some(endpoint_url.into()),
            access_key: Some(AccessKey {
                id: "emulator".to_owned(),
                secret: "emulator".into(),
                session_token: None,
            }),
            ..Self::new()
        }
    }
}

impl Default for SqsConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SqsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqsConfig")
            .field("region", &self.region)
            .field("endpoint_url", &self.endpoint())
            .field("profile", &self.profile)
            .field("access_key", &self.access_key)
            .field("order", &self.order)
            .field("connect_timeout", &self.connect_timeout)
            .field("request_timeout", &self.request_timeout)
            .field("deadline", &self.deadline)
            .field("max_in_flight", &self.max_in_flight)
            .field("max_calls", &self.max_calls)
            .finish()
    }
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Which queues a member reads, and how.
#[derive(Debug, Clone)]
pub struct SubscriberConfig {
    /// The names or URLs of the queues. All members of a consumer read the same ones.
    pub queues: Vec<String>,
    /// How long a delivery stays invisible to other members unless it is extended; 1 s to 12 h, in whole seconds.
    pub visibility: Duration,
    /// How long a poll of an empty queue waits at SQS; at most 20 s, in whole seconds.
    pub wait: Duration,
    /// How many polls of one queue are under way at a time, at least 1. Each brings up to ten messages.
    pub receivers: usize,
    /// How many deliveries wait in this member at most, at least 1.
    pub buffer: usize,
    /// How often the consumer itself tries a message before it gives it up. A queue that moves messages to its own dead letter
    /// queue at or before that many receives is warned of.
    pub attempts: u32,
}

impl SubscriberConfig {
    /// Settings for these queues, everything else at its default.
    pub fn new<S: Into<String>>(queues: impl IntoIterator<Item = S>) -> Self {
        Self {
            queues: queues.into_iter().map(Into::into).collect(),
            visibility: Duration::from_secs(30),
            wait: Duration::from_secs(20),
            receivers: 2,
            buffer: 200,
            attempts: 10,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_shown() {
        let mut config = SqsConfig::emulator("http://anna:hunter2@localhost:9324");
        config.access_key = Some(AccessKey {
            id: "AKIA".to_owned(),
            secret: "hunter2".into(),
            session_token: Some("hunter2".into()),
        });

        let shown = format!("{config:?}");

        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("AKIA"), "{shown}");
        assert!(shown.contains("\"http://localhost:9324\""), "{shown}");
    }
}

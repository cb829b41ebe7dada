//! What a team may set of Kafka, and what the promise keeps for itself.

mod clients;
mod refused;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use onceward_core::Route;
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;

use crate::KafkaConfigError;

pub(crate) use clients::{base, consumer, producer};

/// How long a message may take to be confirmed, unless the configuration says otherwise.
const DEADLINE: Duration = Duration::from_secs(30);

/// How long a revoked partition is kept for work in progress, unless the subscription says otherwise.
const REVOKE_WITHIN: Duration = Duration::from_secs(10);

/// How often positions are committed, unless the subscription says otherwise.
const COMMIT_EVERY: Duration = Duration::from_secs(1);

/// A Kafka cluster and how to talk to it.
///
/// ```
/// use onceward_kafka::KafkaConfig;
///
/// let config = KafkaConfig::new("127.0.0.1:9092").property("compression.type", "lz4");
/// assert!(config.problems().is_empty());
///
/// let unsafe_config = KafkaConfig::new("127.0.0.1:9092").property("acks", "1");
/// assert_eq!(unsafe_config.problems().len(), 1);
/// ```
#[derive(Clone)]
pub struct KafkaConfig {
    /// `host:port` of one or more brokers, separated by commas.
    pub brokers: String,
    /// librdkafka's own properties, by their names. Those that the promise depends on are refused.
    pub properties: BTreeMap<String, String>,
    /// How long a message may take to be confirmed; after that its session is over. Must be longer than zero; 30 s unless set.
    pub deadline: Duration,
}

impl KafkaConfig {
    /// A cluster with the defaults. `brokers`: `host:port` of one or more, separated by commas.
    #[must_use]
    pub fn new(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            properties: BTreeMap::new(),
            deadline: DEADLINE,
        }
    }

    /// Sets one of librdkafka's properties.
    #[must_use]
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.insert(name.into(), value.into());
        self
    }

    /// Sets how long a message may take to be confirmed.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The brokers without what stands before the last `@`: it may be a password, which may hold a comma.
    fn hosts(&self) -> String {
        let hosts = self.brokers.rsplit_once('@');
        hosts.map_or_else(|| self.brokers.clone(), |(_, hosts)| format!("…@{hosts}"))
    }

    /// What librdkafka says, without the values of secrets. Names of files and users, addresses and choices stay: they tell what is wrong.
    pub(crate) fn without_secrets(&self, said: String) -> String {
        const TELL: [&str; 6] = [
            ".location",
            ".username",
            ".url",
            ".method",
            ".scope",
            ".jwt",
        ];
        let tells = |name: &str| TELL.iter().any(|end| name.ends_with(end));
        let properties = self.properties.iter();
        let secrets =
            properties.filter(|(name, value)| is_secret(name) && !tells(name) && !value.is_empty());
        let mut values: Vec<&String> = secrets.map(|(_, value)| value).collect();
        // One may be the beginning of another.
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        let hide = |said: String, value: &String| said.replace(value.as_str(), "…");
        values.into_iter().fold(said, hide)
    }

    /// Everything that is wrong with it, without asking the cluster. Values of secrets are not shown.
    #[must_use]
    pub fn problems(&self) -> Vec<KafkaConfigError> {
        let mut problems = Vec::new();
        if self.brokers.trim().is_empty() {
            problems.push(KafkaConfigError::NoBrokers);
        }
        if self.brokers.contains('@') {
            problems.push(KafkaConfigError::UserInBrokers);
        }
        if self.deadline.is_zero() {
            problems.push(KafkaConfigError::NoDeadline);
        }
        let properties = self.properties.iter();
        problems.extend(properties.filter_map(|(name, value)| problem(name, value)));
        problems
    }
}

fn problem(name: &str, value: &str) -> Option<KafkaConfigError> {
    if let Some(why) = refused::why(name) {
        return Some(KafkaConfigError::Refused {
            name: name.to_owned(),
            why,
        });
    }
    let mut alone = ClientConfig::new();
    alone.set(name, value);
    let KafkaError::ClientConfig(result, what, ..) = alone.create_native_config().err()? else {
        return None;
    };
    let name = name.to_owned();
    if result == RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN {
        return Some(KafkaConfigError::Unknown(name));
    }
    let hidden = || "librdkafka does not take its value".to_owned();
    let what = if is_secret(&name) { hidden() } else { what };
    Some(KafkaConfigError::Invalid { name, what })
}

/// Whether the value of a property must not be shown.
fn is_secret(name: &str) -> bool {
    const PARTS: [&str; 8] = [
        "password",
        "secret",
        "passphrase",
        "ssl.key",
        "ssl_key",
        "oauthbearer",
        "token",
        "username",
    ];
    PARTS.iter().any(|part| name.contains(part))
}

impl fmt::Debug for KafkaConfig {
    /// Shows no secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: BTreeMap<&str, &str> = self
            .properties
            .iter()
            .map(|(name, value)| {
                let value = if is_secret(name) { "…" } else { value };
                (name.as_str(), value)
            })
            .collect();
        f.debug_struct("KafkaConfig")
            .field("brokers", &self.hosts())
            .field("properties", &shown)
            .field("deadline", &self.deadline)
            .finish()
    }
}

/// Where a group begins in a partition in which it has no position yet. Used once: the position is committed at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// At the oldest message that is retained.
    #[default]
    Earliest,
    /// With what comes once the member is there that owns the topic's first partition, if the group has a position in no partition of the topic. It gets one in each of them at
    /// once; a partition that is added later to the topic is read from its oldest message.
    Latest,
}

/// Who reads what.
#[derive(Debug, Clone)]
pub struct KafkaSubscription {
    /// The consumer group.
    pub group: String,
    /// The topics.
    pub topics: Vec<Route>,
    /// Where the group begins where it has no position yet.
    pub start: Start,
    /// How long a partition that goes to another member is kept for work in progress; 10 s unless set. Stay well below
    /// `max.poll.interval.ms` (5 min), within which the whole rebalance must be done.
    pub revoke_within: Duration,
    /// How often positions are committed; 1 s unless set. After a crash, what was acked since comes again.
    pub commit_every: Duration,
}

impl KafkaSubscription {
    /// A member of `group` that reads `topics`, with the defaults.
    pub fn new<T: AsRef<str>>(
        group: impl Into<String>,
        topics: impl IntoIterator<Item = T>,
    ) -> Self {
        let topics = topics.into_iter();
        Self {
            group: group.into(),
            topics: topics.map(|topic| Route::new(topic.as_ref())).collect(),
            start: Start::default(),
            revoke_within: REVOKE_WITHIN,
            commit_every: COMMIT_EVERY,
        }
    }

    /// Sets where the group begins in a partition in which it has no position yet.
    #[must_use]
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Sets how long a partition that goes to another member is kept for work in progress.
    #[must_use]
    pub fn revoke_within(mut self, within: Duration) -> Self {
        self.revoke_within = within;
        self
    }

    /// Everything that is wrong with it, without asking the cluster.
    #[must_use]
    pub fn problems(&self) -> Vec<KafkaConfigError> {
        let mut problems = Vec::new();
        if self.group.is_empty() {
            problems.push(KafkaConfigError::NoGroup);
        }
        if self.topics.is_empty() {
            problems.push(KafkaConfigError::NoTopics);
        }
        let unreadable = |topic: &&Route| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            topic.as_str().is_empty() || !topic.as_str().chars().all(allowed)
        };
        let unreadable = self.topics.iter().filter(unreadable);
        problems.extend(unreadable.map(|topic| KafkaConfigError::Topic(topic.to_string())));
        problems
    }
}

#[cfg(test)]
mod tests;

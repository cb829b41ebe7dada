//! What a queue says about itself, and what of it is dangerous. Reading is pure.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::QueueAttributeName as Name;
use serde_json::Value;

use crate::errors::{self, Trouble};
use crate::queue::QueueName;

/// What SQS takes in one call, and as one message unless the queue says less.
pub(crate) const MOST_BYTES: u64 = 1024 * 1024;

/// Below this, messages vanish unread over a long weekend.
const SHORT_RETENTION: Duration = Duration::from_secs(4 * 24 * 60 * 60);

/// What is known of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// The largest message in bytes, attributes included.
    pub(crate) limit: u64,
    /// How long a message stays, read or not.
    pub(crate) retention: Option<Duration>,
    /// How long each message is kept back first.
    pub(crate) delay: Duration,
    /// After how many receives SQS moves a message to a dead letter queue.
    pub(crate) max_receives: Option<u64>,
    /// Visible, invisible and delayed messages, approximately.
    pub(crate) messages: u64,
    fifo: bool,
    content_based_deduplication: bool,
    /// Whether each key has a limit of its own; none: the queue does not say.
    high_throughput: Option<bool>,
}

/// Asks a queue.
pub(crate) async fn ask(client: &Client, url: &str) -> Result<Attributes, Trouble> {
    let asked = client
        .get_queue_attributes()
        .queue_url(url)
        .attribute_names(Name::All)
        .send()
        .await
        .map_err(errors::trouble)?;
    let told = asked.attributes.unwrap_or_default();
    Ok(read(&told))
}

fn read(told: &HashMap<Name, String>) -> Attributes {
    let number = |name: Name| -> Option<u64> { told.get(&name)?.parse().ok() };
    let is = |name: Name, value: &str| told.get(&name).is_some_and(|told| told == value);
    let messages = [
        Name::ApproximateNumberOfMessages,
        Name::ApproximateNumberOfMessagesNotVisible,
        Name::ApproximateNumberOfMessagesDelayed,
    ];
    Attributes {
        limit: number(Name::MaximumMessageSize).unwrap_or(MOST_BYTES),
        retention: number(Name::MessageRetentionPeriod).map(Duration::from_secs),
        delay: Duration::from_secs(number(Name::DelaySeconds).unwrap_or(0)),
        max_receives: told
            .get(&Name::RedrivePolicy)
            .and_then(|policy| max_receives(policy)),
        messages: messages.into_iter().filter_map(number).sum(),
        fifo: is(Name::FifoQueue, "true"),
        content_based_deduplication: is(Name::ContentBasedDeduplication, "true"),
        high_throughput: told
            .get(&Name::FifoThroughputLimit)
            .map(|limit| limit == "perMessageGroupId"),
    }
}

/// The number comes as one or as a text.
fn max_receives(policy: &str) -> Option<u64> {
    let policy: Value = serde_json::from_str(policy).ok()?;
    let count = &policy["maxReceiveCount"];
    count.as_u64().or_else(|| count.as_str()?.parse().ok())
}

impl Attributes {
    /// What could lose, repeat or slow messages that are published there, each with what to change.
    pub(crate) fn warnings(&self, name: &QueueName) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(retention) = self.retention.filter(|kept| *kept < SHORT_RETENTION) {
            warnings.push(format!(
                "queue {name} removes messages after {retention:?}, read or not; keep MessageRetentionPeriod longer than any consumer may be away (at most 14 days)"
            ));
        }
        if let Some(receives) = self.max_receives {
            warnings.push(format!(
                "queue {name} moves a message to its own dead letter queue after {receives} receives, of which an outage takes some; keep maxReceiveCount well above the consumer's attempts, or leave the redrive policy out"
            ));
        }
        if self.delay > Duration::ZERO {
            warnings.push(format!(
                "queue {name} keeps each message back for {:?}; set DelaySeconds to 0 unless that is wanted",
                self.delay
            ));
        }
        if self.content_based_deduplication {
            warnings.push(format!(
                "queue {name} has ContentBasedDeduplication, which has no effect here: each message brings an id of its own"
            ));
        }
        if self.fifo && self.high_throughput == Some(false) {
            warnings.push(format!(
                "queue {name} may be limited to 300 calls a second in all; with FifoThroughputLimit = perMessageGroupId and DeduplicationScope = messageGroup each key has a limit of its own"
            ));
        }
        warnings
    }

    /// What a consumer of that many attempts has to know.
    pub(crate) fn consumer_warning(&self, name: &QueueName, attempts: u32) -> Option<String> {
        let receives = self
            .max_receives
            .filter(|most| *most <= u64::from(attempts))?;
        Some(format!(
            "queue {name} moves a message to its own dead letter queue after {receives} receives, before this consumer has made its {attempts} attempts; raise maxReceiveCount above that, or leave the redrive policy out"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(pairs: &[(Name, &str)]) -> Attributes {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (name.clone(), (*value).to_owned()));
        read(&pairs.collect())
    }

    fn name() -> QueueName {
        QueueName::parse("orders.fifo").unwrap()
    }

    #[test]
    fn a_queue_that_says_nothing_takes_what_sqs_takes() {
        let attributes = told(&[]);

        assert_eq!(attributes.limit, MOST_BYTES);
        assert_eq!(attributes.warnings(&name()), Vec::<String>::new());
    }

    #[test]
    fn a_server_that_does_not_tell_how_calls_are_limited_is_not_warned_of() {
        let silent = told(&[(Name::FifoQueue, "true")]);
        let wide = told(&[
            (Name::FifoQueue, "true"),
            (Name::FifoThroughputLimit, "perMessageGroupId"),
        ]);

        assert_eq!(silent.warnings(&name()), Vec::<String>::new());
        assert_eq!(wide.warnings(&name()), Vec::<String>::new());
    }

    #[test]
    fn dangerous_settings_are_told_with_what_to_change() {
        let attributes = told(&[
            (Name::MaximumMessageSize, "1024"),
            (Name::MessageRetentionPeriod, "3600"),
            (
                Name::RedrivePolicy,
                r#"{"deadLetterTargetArn":"x","maxReceiveCount":"3"}"#,
            ),
            (Name::DelaySeconds, "5"),
            (Name::FifoQueue, "true"),
            (Name::ContentBasedDeduplication, "true"),
            (Name::FifoThroughputLimit, "perQueue"),
        ]);

        let warnings = attributes.warnings(&name()).join("\n");

        for word in [
            "MessageRetentionPeriod",
            "maxReceiveCount",
            "DelaySeconds",
            "ContentBasedDeduplication",
            "FifoThroughputLimit",
        ] {
            assert!(warnings.contains(word), "{word}: {warnings}");
        }
        assert_eq!(attributes.limit, 1_024);
    }

    #[test]
    fn a_consumer_is_warned_when_the_queue_gives_up_before_it_does() {
        let policy = |count: &str| {
            told(&[(
                Name::RedrivePolicy,
                &format!(r#"{{"maxReceiveCount":{count}}}"#),
            )])
        };

        assert!(policy("10").consumer_warning(&name(), 10).is_some());
        assert!(policy("11").consumer_warning(&name(), 10).is_none());
        assert!(told(&[]).consumer_warning(&name(), 10).is_none());
    }

    #[test]
    fn everything_that_is_not_deleted_counts() {
        let attributes = told(&[
            (Name::ApproximateNumberOfMessages, "1"),
            (Name::ApproximateNumberOfMessagesNotVisible, "2"),
            (Name::ApproximateNumberOfMessagesDelayed, "4"),
        ]);

        assert_eq!(attributes.messages, 7);
    }
}

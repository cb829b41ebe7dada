//! Judges a member's settings and looks its queues up.

use std::time::Duration;

use aws_sdk_sqs::Client;
use onceward_core::{ErrorKind, Order, Partition, SubscribeError, SubscribeErrorKind};
use tracing::warn;

use super::{HOLD_LIMIT, Reading};
use crate::config::SubscriberConfig;
use crate::connection;
use crate::queue::QueueName;

/// The longest that a poll may wait at SQS.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

fn misconfigured(what: impl Into<String>) -> SubscribeError {
    SubscribeError::new(SubscribeErrorKind::Misconfigured, what)
}

/// The names of the queues. Pure.
pub(super) fn check(
    config: &SubscriberConfig,
    order: Order,
) -> Result<Vec<QueueName>, SubscribeError> {
    if config.queues.is_empty() {
        return Err(misconfigured("no queue is named: there is nothing to read"));
    }
    if config.visibility < Duration::from_secs(1) || config.visibility > HOLD_LIMIT {
        return Err(misconfigured("visibility must be from 1 s to 12 h"));
    }
    if config.wait > LONGEST_WAIT {
        return Err(misconfigured("wait must be at most 20 s"));
    }
    let mut names = Vec::with_capacity(config.queues.len());
    for queue in &config.queues {
        let name = QueueName::parse(queue).map_err(|error| misconfigured(error.to_string()))?;
        match order {
            Order::PerKey if !name.is_fifo() => {
                return Err(misconfigured(format!(
                    "queue {name} is a standard queue, which keeps no order; read one whose name ends in .fifo, or say `without_order`"
                )));
            }
            Order::PerKey | Order::None => names.push(name),
        }
    }
    Ok(names)
}

/// Looks the queues up, and warns of settings that would lose messages to a dead letter queue of SQS.
pub(super) async fn find(
    client: &Client,
    names: &[QueueName],
    attempts: u32,
) -> Result<Vec<Reading>, SubscribeError> {
    let mut readings = Vec::with_capacity(names.len());
    for name in names {
        let queue = Box::pin(connection::find(client, name)).await;
        let queue = queue.map_err(|trouble| match trouble.kind {
            ErrorKind::UnknownTopic => misconfigured(trouble.what),
            ErrorKind::Unavailable
            | ErrorKind::Throttled
            | ErrorKind::Unauthorized
            | ErrorKind::TooLarge
            | ErrorKind::Rejected => trouble.into_subscribe_error(),
        })?;
        if let Some(what) = queue.attributes.consumer_warning(name, attempts) {
            warn!(queue = %name, what, "the queue gives messages up before the consumer does");
        }
        readings.push(Reading {
            name: name.clone(),
            url: queue.url,
            partition: Partition::new(name.as_str()),
            retention: queue.attributes.retention,
        });
    }
    Ok(readings)
}

#[cfg(test)]
mod tests {
    use onceward_testkit::{Log, unique};
    use serde_json::json;

    use super::*;
    use crate::{Sqs, SqsConfig};

    #[tokio::test]
    async fn a_queue_that_gives_messages_up_before_the_consumer_does_is_warned_of() {
        let server = onceward_testkit::sqs::Sqs::shared().await;
        let (queue, dead) = (
            format!("{}.fifo", unique("redrive")),
            format!("{}.fifo", unique("dead")),
        );
        let dead = server.create_queue(&dead, &[]).await;
        let asked = json!({ "QueueUrl": dead, "AttributeNames": ["QueueArn"] });
        let told = server.call("GetQueueAttributes", asked).await;
        let target = &told["Attributes"]["QueueArn"];
        let policy = json!({ "deadLetterTargetArn": target, "maxReceiveCount": 5 });
        server
            .create_queue(&queue, &[("RedrivePolicy", &policy.to_string())])
            .await;
        let log = Log::of_this_thread();
        let names = [QueueName::parse(&queue).unwrap()];
        let client = Sqs::new(SqsConfig::emulator(server.url())).client().await;

        find(&client, &names, 4).await.unwrap();
        let silent = log.lines_with("WARN");
        find(&client, &names, 5).await.unwrap();
        let warned = log.lines_with("WARN");

        assert!(silent.is_empty(), "{silent:?}");
        assert_eq!(warned.len(), 1, "{warned:?}");
        for word in [queue.as_str(), "after 5 receives", "its 5 attempts"] {
            assert!(warned[0].contains(word), "{word}: {warned:?}");
        }
    }

    #[test]
    fn settings_that_sqs_does_not_take_are_refused_with_what_it_takes() {
        let refused = |change: fn(&mut SubscriberConfig), order| {
            let mut config = SubscriberConfig::new(["orders.fifo"]);
            change(&mut config);
            let error = check(&config, order).unwrap_err();
            assert_eq!(error.kind, SubscribeErrorKind::Misconfigured);
            error.what
        };

        assert!(refused(|c| c.queues.clear(), Order::PerKey).contains("no queue"));
        assert!(refused(|c| c.visibility = Duration::ZERO, Order::PerKey).contains("12 h"));
        assert!(refused(|c| c.wait = Duration::from_secs(21), Order::PerKey).contains("20 s"));
        let standard: fn(&mut SubscriberConfig) = |c| c.queues = vec!["orders".to_owned()];
        assert!(refused(standard, Order::PerKey).contains(".fifo"));
        let topic: fn(&mut SubscriberConfig) = |c| c.queues = vec!["orders.created".to_owned()];
        assert!(refused(topic, Order::None).contains("orders.created"));
    }
}

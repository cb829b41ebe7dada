//! What to do about a destination that does not take what it would be given. Pure.

use onceward_core::ErrorKind;

use crate::config::{DestinationConfig, StreamConfig};

/// What to do about the destination of a stream, or about one of its routes.
#[cfg_attr(
    not(feature = "sqs"),
    expect(
        unused_variables,
        reason = "only of queues it is known which names they never have"
    )
)]
pub(super) fn of(stream: &StreamConfig, route: Option<&str>, kind: ErrorKind) -> String {
    let name = &stream.settings.name;
    match &stream.destination {
        #[cfg(feature = "sqs")]
        DestinationConfig::Sqs(config) => sqs(name, config, route, kind),
        #[cfg(feature = "kafka")]
        DestinationConfig::Kafka(_) => kafka(name, kind),
        #[cfg(feature = "nats")]
        DestinationConfig::Nats(_) => any(name, kind),
    }
}

#[cfg(feature = "kafka")]
fn kafka(stream: &str, kind: ErrorKind) -> String {
    match kind {
        // To librdkafka a broker that refuses us is one that is not there.
        ErrorKind::Unavailable => format!(
            "check that the broker runs, can be reached from here under streams.{stream}.kafka.brokers, and takes the credentials"
        ),
        ErrorKind::Throttled
        | ErrorKind::Unauthorized
        | ErrorKind::UnknownTopic
        | ErrorKind::TooLarge
        | ErrorKind::Rejected => any(stream, kind),
    }
}

fn any(stream: &str, kind: ErrorKind) -> String {
    match kind {
        ErrorKind::Unavailable => {
            "check that the broker runs and can be reached from here under the configured address"
                .to_owned()
        }
        ErrorKind::Throttled => "raise the broker's quota, or wait".to_owned(),
        ErrorKind::Unauthorized => {
            "check the credentials, and that they may publish there".to_owned()
        }
        ErrorKind::UnknownTopic => format!(
            "create it on the broker, or correct streams.{stream}.route or streams.{stream}.routes"
        ),
        ErrorKind::TooLarge | ErrorKind::Rejected => "look at the broker's log".to_owned(),
    }
}

#[cfg(feature = "sqs")]
fn sqs(
    stream: &str,
    config: &onceward_sqs::SqsConfig,
    route: Option<&str>,
    kind: ErrorKind,
) -> String {
    let region = match &config.region {
        Some(region) => format!("streams.{stream}.sqs.region, now {region}"),
        None => format!("streams.{stream}.sqs.region, or AWS_REGION"),
    };
    match kind {
        ErrorKind::Unavailable => match config.endpoint() {
            Some(url) => format!(
                "check that SQS answers at {url} (streams.{stream}.sqs.endpoint_url), and that the region is set ({region})"
            ),
            None => format!(
                "check that the region is set and right ({region}), and that its endpoint can be reached from here"
            ),
        },
        ErrorKind::Unauthorized => format!(
            "check the credentials, that they may publish there, and that the region is that of the queues ({region})"
        ),
        ErrorKind::UnknownTopic => queue(stream, config.order, route, &region),
        ErrorKind::Throttled | ErrorKind::TooLarge | ErrorKind::Rejected => any(stream, kind),
    }
}

/// What to do about a queue that cannot be used: it is missing, or could never be.
#[cfg(feature = "sqs")]
fn queue(stream: &str, order: onceward_core::Order, route: Option<&str>, region: &str) -> String {
    use onceward_core::Order;

    let settings = format!("streams.{stream}.route or streams.{stream}.routes");
    let parsed = route.map(onceward_sqs::QueueName::parse);
    match (parsed, order) {
        (Some(Err(_)), _) => format!(
            "name a queue by {settings}, such as route = \"orders.fifo\" for all topics: SQS takes no such name"
        ),
        (Some(Ok(queue)), Order::PerKey) if !queue.is_fifo() => format!(
            "name a queue that ends in .fifo by {settings}, or set streams.{stream}.sqs.order = \"none\""
        ),
        (Some(Ok(_)) | None, Order::PerKey | Order::None) => {
            format!("create the queue, or correct {settings}, or the region ({region})")
        }
    }
}

#[cfg(all(test, feature = "sqs"))]
mod tests {
    use super::*;

    #[test]
    fn on_sqs_the_setting_is_named_that_is_to_be_changed() {
        let config = onceward_sqs::SqsConfig::new();
        let told = |route, kind| sqs("events", &config, route, kind);

        for (told, part) in [
            (
                told(None, ErrorKind::Unavailable),
                "streams.events.sqs.region, or AWS_REGION",
            ),
            (
                told(None, ErrorKind::Unauthorized),
                "streams.events.sqs.region",
            ),
            (
                told(Some("orders.created.fifo"), ErrorKind::UnknownTopic),
                "name a queue by streams.events.route",
            ),
            (
                told(Some("orders"), ErrorKind::UnknownTopic),
                "streams.events.sqs.order = \"none\"",
            ),
            (
                told(Some("orders.fifo"), ErrorKind::UnknownTopic),
                "create the queue",
            ),
        ] {
            assert!(told.contains(part), "{part:?} is not in {told}");
        }
    }

    #[test]
    fn an_emulator_that_does_not_answer_is_told_with_its_address() {
        let config = onceward_sqs::SqsConfig::emulator("http://anna:hunter2@127.0.0.1:1");

        let told = sqs("events", &config, None, ErrorKind::Unavailable);

        assert!(told.contains("http://127.0.0.1:1"), "{told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
}

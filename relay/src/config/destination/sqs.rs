//! Reads how SQS is reached, and whether the routes of a stream are names of its queues.

use std::ops::RangeInclusive;
use std::time::Duration;

use onceward_core::{Order, Route, Topic};
use onceward_sqs::{AccessKey, QueueName, SqsConfig};

use crate::config::DestinationConfig;
use crate::config::address;
use crate::config::reader::Reader;
use crate::settings::StreamSettings;

const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);

pub(super) fn sqs(mut section: Reader<'_>, settings: &StreamSettings) -> Option<DestinationConfig> {
    let mut config = SqsConfig::new();
    config.deadline = settings.offer_deadline;
    config.region = section.text("region");
    config.endpoint_url = section.text("endpoint_url");
    if let Some(url) = &config.endpoint_url
        && let Err(problem) = address::http(url)
    {
        section.refuse("endpoint_url", problem);
    }
    config.profile = section.text("profile");
    config.access_key = access_key(&mut section);
    if config.access_key.is_some() && config.profile.is_some() {
        section.refuse(
            "profile",
            "is set together with access_key_id; set one of them",
        );
    }
    let orders = [("per_key", Order::PerKey), ("none", Order::None)];
    config.order = section.choice("order", &orders).unwrap_or(config.order);
    config.connect_timeout = section.duration("connect_timeout", config.connect_timeout, TIMEOUT);
    config.request_timeout = section.duration("request_timeout", config.request_timeout, TIMEOUT);
    config.max_in_flight = section.count("max_in_flight", config.max_in_flight, 1..=100_000);
    config.max_calls = section.count("max_calls", config.max_calls, 1..=1_000);
    section.finish();
    Some(DestinationConfig::Sqs(config))
}

/// A key in place of the SDK's usual chain.
fn access_key(section: &mut Reader<'_>) -> Option<AccessKey> {
    let id = section.text("access_key_id");
    let secret = section.secret("secret_access_key", "secret_access_key_file");
    let session_token = section.secret("session_token", "session_token_file");
    match (id, secret) {
        (Some(id), Some(secret)) => Some(AccessKey {
            id,
            secret,
            session_token,
        }),
        (None, None) if session_token.is_none() => None,
        (None, _) => {
            section.refuse("access_key_id", "is missing; the rest of the key needs it");
            None
        }
        (Some(_), None) => {
            section.refuse(
                "secret_access_key",
                "is missing; access_key_id needs it, here or as secret_access_key_file",
            );
            None
        }
    }
}

/// Refuses routes that are no queue of this destination, as far as they can be known at start.
pub(super) fn queues(stream: &mut Reader<'_>, settings: &StreamSettings, order: Order) {
    for (topic, route) in settings.route.named() {
        if let Some(problem) = problem(route, order) {
            stream.refuse_entry("routes", topic, problem);
        }
    }
    for glob in &settings.topics {
        let listed = |(topic, _): (&str, &Route)| glob.matches(topic);
        // Any topic that it matches stands for all of them.
        let example = glob.as_str().replace('*', "x");
        let Ok(topic) = Topic::try_from(example.as_str()) else {
            continue;
        };
        if settings.route.named().any(listed) {
            continue;
        }
        let routes = settings.route.routes(&topic);
        if let Some(problem) = routes.iter().find_map(|route| problem(route, order)) {
            stream.refuse(
                "route",
                format!("gives a topic such as {topic} a queue that cannot be: {problem}"),
            );
            return;
        }
    }
}

fn problem(route: &Route, order: Order) -> Option<String> {
    match QueueName::parse(route.as_str()) {
        Err(error) => Some(error.to_string()),
        Ok(name) if order == Order::PerKey && !name.is_fifo() => Some(format!(
            "{name} is a standard queue, which keeps no order; use one whose name ends in .fifo, or say order = \"none\" in the section sqs"
        )),
        Ok(_) => None,
    }
}

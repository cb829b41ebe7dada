//! The durable that the members share: found or made, and refused when it would lose messages or order.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::consumer::{
    AckPolicy, Config, DeliverPolicy, Info, PriorityPolicy, ReplayPolicy,
};
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{self, ConsumerErrorKind, RetentionPolicy};
use async_nats::jetstream::{Context, Error, ErrorCode};
use onceward_core::{BoxError, ErrorKind, Partition, SubscribeError, SubscribeErrorKind};
use serde_json::json;

use super::positions::reads_everything;
use super::pull::GROUP;
use crate::config::SubscriberConfig;
use crate::publisher::stream_of;

/// Deliveries that may be unacked at a time, over all that a member buffers and works on.
const MAX_ACK_PENDING: i64 = 10_000;
/// The oldest server that can take a durable back to its oldest unacked message.
const OLDEST_SERVER: (u64, u64) = (2, 14);

/// A durable that is fit for use.
#[derive(Debug, Clone)]
pub(crate) struct Durable {
    pub(crate) stream: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) partition: Partition,
    pub(crate) filters: Vec<String>,
    /// Whether every gap in the stream's numbers is a loss.
    pub(crate) whole: bool,
    pub(crate) ack_wait: Duration,
    pub(crate) takeover_after: Duration,
    /// When it was made: two durables of one name, as in two JetStream domains, are told apart by it.
    pub(crate) made: Arc<str>,
}

/// Refuses a server that cannot reset a consumer.
pub(crate) fn check_server(version: &str) -> Result<(), SubscribeError> {
    let mut numbers = version.split(['.', '-']).map(str::parse::<u64>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) < OLDEST_SERVER => {
            Err(misconfigured(format!(
                "the server is {version}; consumers need nats-server 2.14 or newer, as older ones cannot keep order when another member takes over"
            )))
        }
        // A version that is not understood is not refused: the reset will tell.
        _ => Ok(()),
    }
}

/// Refuses names that NATS would refuse with less to say.
pub(crate) fn check_names(config: &SubscriberConfig) -> Result<(), SubscribeError> {
    let name = config.durable.as_str();
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name.is_empty() || !name.chars().all(allowed) {
        return Err(misconfigured(format!(
            "{name:?} is no name for a durable; allowed are A-Z a-z 0-9 - _"
        )));
    }
    Ok(())
}

/// Finds the durables of one stream, or makes them, and refuses any that would lose messages or order.
pub(crate) async fn ensure(
    context: &Context,
    configs: &[SubscriberConfig],
) -> Result<Vec<Durable>, SubscribeError> {
    let mut durables = Vec::with_capacity(configs.len());
    let Some(first) = configs.first() else {
        return Ok(durables);
    };
    let stream = stream(context, first).await?;
    for config in configs {
        let name = config.durable.as_str();
        let info = match info(context, &stream.name, name).await? {
            Some(info) => info,
            None => create(context, &stream.name, config).await?,
        };
        durables.push(fit(&stream, &info, config)?);
    }
    Ok(durables)
}

/// Looks at the durable again: a person may have changed or deleted it.
pub(crate) async fn look_again(
    context: &Context,
    config: &SubscriberConfig,
) -> Result<Durable, SubscribeError> {
    let stream = stream(context, config).await?;
    let name = config.durable.as_str();
    let info = info(context, &stream.name, name).await?.ok_or_else(|| {
        // Made again it would begin anew, so that is for a person to decide.
        unavailable(format!(
            "the durable {name} of stream {} was deleted; restart to make it again, from the stream's beginning",
            stream.name
        ))
    })?;
    fit(&stream, &info, config)
}

async fn stream(
    context: &Context,
    config: &SubscriberConfig,
) -> Result<stream::Config, SubscribeError> {
    let name = match (&config.stream, config.subjects.first()) {
        (Some(stream), _) => stream.clone(),
        (None, Some(subject)) => stream_of(context, subject).await.map_err(|error| {
            let kind = match error.kind {
                ErrorKind::UnknownTopic => SubscribeErrorKind::Misconfigured,
                ErrorKind::Unauthorized => SubscribeErrorKind::Unauthorized,
                ErrorKind::Unavailable
                | ErrorKind::Throttled
                | ErrorKind::TooLarge
                | ErrorKind::Rejected => SubscribeErrorKind::Unavailable,
            };
            let what = error.what.clone();
            SubscribeError::with_source(kind, what, error)
        })?,
        (None, None) => {
            return Err(misconfigured(
                "a member must be told what to read: subjects is empty".to_owned(),
            ));
        }
    };
    let found = context.get_stream(&name).await;
    let stream = found.map_err(|error| {
        SubscribeError::with_source(
            SubscribeErrorKind::Unavailable,
            format!("stream {name} does not answer"),
            error,
        )
    })?;
    Ok(stream.cached_info().config.clone())
}

/// The durable as the server tells it, if it exists.
pub(crate) async fn info(
    context: &Context,
    stream: &str,
    durable: &str,
) -> Result<Option<Info>, SubscribeError> {
    let subject = format!("CONSUMER.INFO.{stream}.{durable}");
    match context.request(subject, &json!({})).await {
        Ok(Response::Ok(info)) => Ok(Some(info)),
        Ok(Response::Err { error }) if error.error_code() == ErrorCode::CONSUMER_NOT_FOUND => {
            Ok(None)
        }
        Ok(Response::Err { error }) => Err(no_answer(error)),
        Err(error) => Err(no_answer(error)),
    }
}

async fn create(
    context: &Context,
    stream: &str,
    config: &SubscriberConfig,
) -> Result<Info, SubscribeError> {
    let wanted = pull::Config {
        durable_name: Some(config.durable.clone()),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait: config.ack_wait,
        max_deliver: -1,
        filter_subjects: config.subjects.clone(),
        replay_policy: ReplayPolicy::Instant,
        max_ack_pending: MAX_ACK_PENDING,
        priority_policy: PriorityPolicy::PinnedClient,
        priority_groups: vec![GROUP.to_owned()],
        priority_timeout: config.takeover_after.max(Duration::from_secs(1)),
        ..pull::Config::default()
    };
    // Two members that make it at the same time ask for the same, which the server answers alike.
    let created = context.create_consumer_on_stream(wanted, stream).await;
    let consumer = created.map_err(|error| {
        let what = format!("the durable {} cannot be made", config.durable);
        SubscribeError::with_source(not_made(&error.kind()), what, error)
    })?;
    Ok(consumer.cached_info().clone())
}

/// Why a durable could not be made.
fn not_made(error: &ConsumerErrorKind) -> SubscribeErrorKind {
    match error {
        ConsumerErrorKind::JetStream(refusal) if !is_passing(refusal) => {
            SubscribeErrorKind::Misconfigured
        }
        ConsumerErrorKind::InvalidConsumerType
        | ConsumerErrorKind::InvalidName
        | ConsumerErrorKind::Other => SubscribeErrorKind::Misconfigured,
        ConsumerErrorKind::JetStream(_)
        | ConsumerErrorKind::TimedOut
        | ConsumerErrorKind::Request => SubscribeErrorKind::Unavailable,
    }
}

/// Whether the server refused something that it may do later: a status of 500 and above speaks of the server, not of what it was asked.
pub(crate) fn is_passing(refusal: &Error) -> bool {
    refusal.code() >= 500
}

fn fit(
    stream: &stream::Config,
    info: &Info,
    wanted: &SubscriberConfig,
) -> Result<Durable, SubscribeError> {
    if let Some(problem) = problem(&info.config, wanted) {
        return Err(misconfigured(format!(
            "the durable {} of stream {} {problem}",
            info.name, stream.name
        )));
    }
    let filters = filters(&info.config);
    let limits_only = stream.retention == RetentionPolicy::Limits;
    Ok(Durable {
        whole: limits_only && reads_everything(&filters, &stream.subjects),
        stream: stream.name.as_str().into(),
        name: info.name.as_str().into(),
        partition: Partition::new(&format!("{}/{}", stream.name, info.name)),
        filters,
        ack_wait: info.config.ack_wait,
        takeover_after: info.config.priority_timeout,
        made: info.created.to_string().into(),
    })
}

fn filters(config: &Config) -> Vec<String> {
    let mut filters = config.filter_subjects.clone();
    if !config.filter_subject.is_empty() {
        filters.push(config.filter_subject.clone());
    }
    filters.sort();
    filters
}

/// What about a durable would lose messages or order, and what to change.
fn problem(config: &Config, wanted: &SubscriberConfig) -> Option<String> {
    if config.max_deliver > 0 {
        return Some(format!(
            "has max_deliver = {}: a message that fails so often is dropped without a word; set it to -1",
            config.max_deliver
        ));
    }
    if config.ack_policy != AckPolicy::Explicit {
        return Some(
            "does not ask for explicit acks: what is not settled would count as done; set ack_policy = explicit"
                .to_owned(),
        );
    }
    let ours = config.priority_groups == [GROUP.to_owned()];
    if config.priority_policy != PriorityPolicy::PinnedClient || !ours {
        return Some(format!(
            "has no pinned client: two members would read one key at once; delete it, or make it with priority_policy = pinned_client and the one group {GROUP}"
        ));
    }
    if !config.backoff.is_empty() {
        return Some(
            "has a backoff: deliveries would come again while they are in work; remove it"
                .to_owned(),
        );
    }
    if config.deliver_subject.is_some() || config.headers_only {
        return Some(
            "is a push consumer or delivers headers only; make a pull consumer".to_owned(),
        );
    }
    let mut subjects = wanted.subjects.clone();
    subjects.sort();
    let filters = filters(config);
    (filters != subjects).then(|| {
        format!("reads {filters:?} and this member wants {subjects:?}; change one of them, with no member running")
    })
}

pub(crate) fn misconfigured(what: String) -> SubscribeError {
    SubscribeError::new(SubscribeErrorKind::Misconfigured, what)
}

pub(crate) fn unavailable(what: String) -> SubscribeError {
    SubscribeError::new(SubscribeErrorKind::Unavailable, what)
}

pub(crate) fn no_answer(error: impl Into<BoxError>) -> SubscribeError {
    SubscribeError::with_source(
        SubscribeErrorKind::Unavailable,
        "JetStream does not answer",
        error,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> SubscriberConfig {
        SubscriberConfig::new("billing", ["orders.>"])
    }

    fn good() -> Config {
        Config {
            ack_policy: AckPolicy::Explicit,
            max_deliver: -1,
            filter_subject: "orders.>".to_owned(),
            priority_policy: PriorityPolicy::PinnedClient,
            priority_groups: vec![GROUP.to_owned()],
            ..Config::default()
        }
    }

    #[test]
    fn a_durable_that_loses_messages_or_order_is_refused_with_what_to_change() {
        assert_eq!(problem(&good(), &wanted()), None);
        type Spoil = fn(&mut Config);
        let cases: [(&str, Spoil); 6] = [
            ("max_deliver", |c| c.max_deliver = 3),
            ("ack_policy", |c| c.ack_policy = AckPolicy::None),
            ("pinned_client", |c| {
                c.priority_policy = PriorityPolicy::None;
            }),
            ("backoff", |c| c.backoff = vec![Duration::from_secs(1)]),
            ("headers only", |c| c.headers_only = true),
            ("wants", |c| c.filter_subject = "other".to_owned()),
        ];
        for (word, spoil) in cases {
            let mut config = good();
            spoil(&mut config);

            let problem = problem(&config, &wanted()).unwrap();

            assert!(problem.contains(word), "{problem}");
        }
    }

    #[test]
    fn a_durable_that_the_server_cannot_make_now_is_tried_again() {
        let refused = |code: u16| {
            let refusal = json!({ "code": code, "err_code": 10_012, "description": "x" });
            ConsumerErrorKind::JetStream(serde_json::from_value(refusal).unwrap())
        };

        for passing in [refused(500), refused(503), ConsumerErrorKind::TimedOut] {
            assert_eq!(not_made(&passing), SubscribeErrorKind::Unavailable);
        }
        assert_eq!(not_made(&refused(400)), SubscribeErrorKind::Misconfigured);
    }

    #[test]
    fn a_server_that_cannot_reset_a_consumer_is_refused() {
        for (version, taken) in [
            ("2.13.9", false),
            ("2.14.0", true),
            ("2.15.1", true),
            ("2.14.0-RC.1", true),
            ("3.0.0", true),
            ("", true),
        ] {
            assert_eq!(check_server(version).is_ok(), taken, "{version}");
        }
    }
}

//! Asks which stream takes a route, what it limits, and what of its settings is dangerous.

use async_nats::jetstream::Context;
use async_nats::jetstream::context::{GetStreamByNameErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::Info;
use futures_util::stream::{self, StreamExt as _};
use onceward_core::{ErrorKind, PublishError, Route, TopicReport, TopicState};

use super::warnings;

/// Routes that are asked about at a time.
const ASKED_AT_ONCE: usize = 8;

/// One report per route, in order.
pub(crate) async fn routes(
    context: &Context,
    max_payload: u64,
    routes: &[Route],
) -> Vec<TopicReport> {
    let asked = routes.iter().map(|route| async move {
        TopicReport {
            route: route.clone(),
            state: state(context, max_payload, route).await,
        }
    });
    let asked: Vec<_> = asked.collect();
    stream::iter(asked).buffered(ASKED_AT_ONCE).collect().await
}

async fn state(
    context: &Context,
    max_payload: u64,
    route: &Route,
) -> Result<TopicState, PublishError> {
    let name = stream_of(context, route.as_str()).await?;
    let info = info(context, &name).await?;
    match warnings::refusal(&info.config) {
        Some(refusal) => Err(refusal),
        None => Ok(TopicState {
            max_message: Some(largest(&info, max_payload)),
            warnings: warnings::warnings(&info),
            unread: None,
        }),
    }
}

fn largest(info: &Info, max_payload: u64) -> u64 {
    match u64::try_from(info.config.max_message_size) {
        Ok(limit) if limit > 0 => limit.min(max_payload),
        Ok(_) | Err(_) => max_payload,
    }
}

/// The stream that takes a subject.
pub(crate) async fn stream_of(context: &Context, subject: &str) -> Result<String, PublishError> {
    context
        .stream_by_subject(subject)
        .await
        .map_err(|error| match error.kind() {
            GetStreamByNameErrorKind::NotFound | GetStreamByNameErrorKind::InvalidSubject => {
                PublishError::with_source(
                    ErrorKind::UnknownTopic,
                    format!(
                        "no stream takes the subject {subject}; make one, or add the subject to one"
                    ),
                    error,
                )
            }
            GetStreamByNameErrorKind::Request | GetStreamByNameErrorKind::JetStream(_) => {
                PublishError::with_source(
                    ErrorKind::Unavailable,
                    "JetStream does not answer",
                    error,
                )
            }
        })
}

async fn info(context: &Context, stream: &str) -> Result<Info, PublishError> {
    let found = context.get_stream(stream).await;
    let stream = found.map_err(|error| match error.kind() {
        GetStreamErrorKind::EmptyName
        | GetStreamErrorKind::Request
        | GetStreamErrorKind::InvalidStreamName
        | GetStreamErrorKind::JetStream(_) => {
            PublishError::with_source(ErrorKind::Unavailable, "JetStream does not answer", error)
        }
    })?;
    Ok(stream.cached_info().clone())
}

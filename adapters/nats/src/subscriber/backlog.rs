//! What waits in the stream for a durable, and since when.

use async_nats::jetstream::Context;
use async_nats::jetstream::stream::RawMessageErrorKind;
use onceward_core::{Backlog, SubscribeError};

use super::durable::{self, Durable, no_answer, unavailable};

/// With more filters than that, asking each for its oldest message costs too much.
const MOST_FILTERS: usize = 16;

/// Two requests, and one more per filter beyond the first.
pub(crate) async fn ask(context: &Context, durable: &Durable) -> Result<Backlog, SubscribeError> {
    let info = durable::info(context, &durable.stream, &durable.name).await?;
    let info = info.ok_or_else(|| unavailable("the durable was deleted".to_owned()))?;
    let count = info.num_pending + info.num_ack_pending as u64;
    let oldest = match count {
        0 => None,
        _ => oldest(context, durable, info.ack_floor.stream_sequence + 1).await?,
    };
    Ok(Backlog {
        partition: durable.partition.clone(),
        count,
        oldest: oldest.map(Into::into),
    })
}

/// When the oldest message at or after `from` was stored. It may be acked already, if one before it is not.
async fn oldest(
    context: &Context,
    durable: &Durable,
    from: u64,
) -> Result<Option<time::OffsetDateTime>, SubscribeError> {
    if durable.filters.len() > MOST_FILTERS {
        return Ok(None);
    }
    let stream = context.get_stream_no_info(&*durable.stream).await;
    let stream = stream.map_err(no_answer)?;
    let everything = [">".to_owned()];
    let filters = match durable.filters.as_slice() {
        [] => everything.as_slice(),
        filters => filters,
    };
    let mut oldest: Option<(u64, time::OffsetDateTime)> = None;
    for filter in filters {
        match stream.get_first_raw_message_by_subject(filter, from).await {
            Ok(message) if oldest.is_none_or(|(sequence, _)| message.sequence < sequence) => {
                oldest = Some((message.sequence, message.time));
            }
            Ok(_) => {}
            Err(error) => match error.kind() {
                RawMessageErrorKind::NoMessageFound => {}
                RawMessageErrorKind::InvalidSubject
                | RawMessageErrorKind::JetStream(_)
                | RawMessageErrorKind::Other => return Err(no_answer(error)),
            },
        }
    }
    Ok(oldest.map(|(_, time)| time))
}

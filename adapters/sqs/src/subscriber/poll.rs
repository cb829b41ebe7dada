//! One long poll, and the deliveries that it brings.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::timeout::TimeoutConfig;
use aws_sdk_sqs::types::{Message, MessageSystemAttributeName as System};
use onceward_core::{Delivery, Origin};

use super::Reading;
use super::acker::SqsToken;
use crate::errors::{self, Trouble};
use crate::headers::{self, BROKER};

/// How a poll is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Poll {
    /// At most ten.
    pub(super) most: usize,
    pub(super) wait: Duration,
    pub(super) visibility: Duration,
    /// How long an answer may take, beyond what the poll waits.
    pub(super) timeout: Duration,
}

/// What a poll brought.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) messages: Vec<Message>,
    /// When the answer came. Their visibility counts from some time before, while the poll waited at SQS; of that nothing is told.
    pub(super) at: Instant,
}

/// Asks once. Without a message it takes as long as the poll waits.
pub(super) async fn ask(client: Client, url: String, poll: Poll) -> Result<Received, Trouble> {
    let seconds = |duration: Duration| i32::try_from(duration.as_secs()).unwrap_or(i32::MAX);
    let timeouts = TimeoutConfig::builder()
        .operation_timeout(poll.wait + poll.timeout)
        .build();
    let patient = aws_sdk_sqs::config::Builder::new().timeout_config(timeouts);
    let answer = client
        .receive_message()
        .queue_url(url)
        .max_number_of_messages(i32::try_from(poll.most).unwrap_or(1))
        .wait_time_seconds(seconds(poll.wait))
        .visibility_timeout(seconds(poll.visibility))
        .message_system_attribute_names(System::All)
        .message_attribute_names("All")
        .customize()
        .config_override(patient)
        .send()
        .await
        .map_err(errors::trouble)?;
    Ok(Received {
        messages: answer.messages.unwrap_or_default(),
        at: Instant::now(),
    })
}

/// The delivery that a message is. None without a handle to settle it by, which SQS always gives.
pub(super) fn delivery(
    message: Message,
    number: u64,
    (queue, reading): (usize, &Reading),
    received: Instant,
    visibility: Duration,
) -> Option<Delivery<SqsToken>> {
    let receipt: Arc<str> = message.receipt_handle.as_deref()?.into();
    let system = |name: System| -> Option<u64> {
        let told = message.attributes.as_ref()?.get(&name)?;
        told.parse().ok()
    };
    let told = message.attributes.as_ref();
    // A standard queue may tell of groups too, and keeps no order in them.
    let told = told.filter(|_| reading.name.is_fifo());
    let group = told.and_then(|told| told.get(&System::MessageGroupId));
    let group = group.map(|group| group.as_str().into());
    let receives = system(System::ApproximateReceiveCount);
    let sent_at = system(System::SentTimestamp);
    let origin = Origin {
        broker: BROKER,
        partition: reading.partition.clone(),
        position: None,
        redelivered: receives.and_then(|receives| u32::try_from(receives.saturating_sub(1)).ok()),
        sent_at: sent_at.map(|millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis)),
    };
    Some(Delivery {
        message: headers::decode(reading.name.as_str(), message),
        origin,
        deadline: Some(received + visibility),
        token: SqsToken {
            number,
            queue,
            group,
            receipt,
            received,
        },
    })
}

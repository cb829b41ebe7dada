//! What waits in the queues: the counts of SQS are approximate, and it does not tell how old the oldest message is.

use aws_sdk_sqs::Client;
use onceward_core::{Backlog, SubscribeError};

use super::Reading;
use crate::attributes;
use crate::errors::Trouble;

/// One request per queue. Deliveries in work and messages that are kept back count too.
pub(super) async fn ask(
    client: &Client,
    readings: &[Reading],
) -> Result<Vec<Backlog>, SubscribeError> {
    let mut backlogs = Vec::with_capacity(readings.len());
    for reading in readings {
        let attributes = Box::pin(attributes::ask(client, &reading.url)).await;
        backlogs.push(Backlog {
            partition: reading.partition.clone(),
            count: attributes.map_err(Trouble::into_subscribe_error)?.messages,
            oldest: None,
        });
    }
    Ok(backlogs)
}

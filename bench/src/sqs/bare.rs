//! The bare SDK: what a careful user writes by hand.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use aws_credential_types::Credentials;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::{BehaviorVersion, Region};
use aws_sdk_sqs::types::{
    DeleteMessageBatchRequestEntry, Message as Received, MessageAttributeValue,
    SendMessageBatchRequestEntry,
};
use onceward_testkit::sqs::Sqs as Server;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{CALLS, MESSAGES, POLLS};
use crate::backlog::{KEYS, payload};
use crate::consume::lot::Copies;
use crate::cost::{Meter, Stage};
use crate::outcome::Outcome;

pub(super) fn client(server: &Server) -> Client {
    let config = aws_sdk_sqs::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(server.url())
        .credentials_provider(Credentials::from_keys("bench", "bench", None))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    Client::from_conf(config)
}

/// Sends all: ten in a call, of ten groups.
pub(super) async fn send(client: &Client, url: &str, meter: Meter) -> Outcome<Stage> {
    // Connects.
    client.get_queue_attributes().queue_url(url).send().await?;
    let clock = meter.start()?;
    let turns = Arc::new(Semaphore::new(CALLS));
    let mut calls: JoinSet<Outcome> = JoinSet::new();
    for first in (0..MESSAGES).step_by(10) {
        let turn = turns.clone().acquire_owned().await?;
        let entries = (first..first + 10)
            .map(entry)
            .collect::<Outcome<Vec<_>>>()?;
        let call = client
            .send_message_batch()
            .queue_url(url)
            .set_entries(Some(entries));
        calls.spawn(async move {
            let answer = call.send().await?;
            drop(turn);
            match answer.failed.is_empty() {
                true => Ok(()),
                false => Err("an entry failed".into()),
            }
        });
    }
    while let Some(ended) = calls.join_next().await {
        ended??;
    }
    clock.stop(MESSAGES)
}

fn entry(n: u64) -> Outcome<SendMessageBatchRequestEntry> {
    let id = uuid::Uuid::now_v7().to_string();
    let attributes = [
        ("ce-specversion", "1.0".to_owned()),
        ("ce-id", id.clone()),
        ("ce-type", "bench".to_owned()),
        ("ce-source", "/bench".to_owned()),
        ("ce-partitionkey", format!("k{}", n % KEYS)),
        ("onceward-seq", n.to_string()),
    ];
    let mut entry = SendMessageBatchRequestEntry::builder()
        .id((n % 10).to_string())
        .message_body(String::from_utf8_lossy(&payload()))
        .message_group_id(format!("k{}", n % KEYS))
        .message_deduplication_id(id);
    for (name, value) in attributes {
        let value = MessageAttributeValue::builder()
            .data_type("String")
            .string_value(value)
            .build()?;
        entry = entry.message_attributes(name, value);
    }
    Ok(entry.build()?)
}

/// Receives and deletes everything: the next poll does not wait for the deletion of what the one before brought. It takes copies for messages.
pub(super) async fn receive(
    client: &Client,
    url: &str,
    meter: Meter,
    copies: Copies,
) -> Outcome<Stage> {
    let first = Arc::new(OnceLock::new());
    let left = Arc::new(AtomicU64::new(MESSAGES + copies.of(MESSAGES)));
    let mut polls: JoinSet<Outcome> = JoinSet::new();
    for _ in 0..POLLS {
        let (client, url) = (client.clone(), url.to_owned());
        let (left, first) = (Arc::clone(&left), Arc::clone(&first));
        polls.spawn(async move {
            let mut deletions: JoinSet<Outcome> = JoinSet::new();
            while left.load(Ordering::Relaxed) > 0 {
                let poll = client.receive_message().queue_url(&url);
                let poll = poll
                    .max_number_of_messages(10)
                    .message_attribute_names("All");
                let messages = poll.send().await?.messages.unwrap_or_default();
                if messages.is_empty() {
                    continue;
                }
                let count = messages.len() as u64;
                if first.get().is_none() {
                    let clock = meter.start()?;
                    first.get_or_init(|| (clock, count));
                }
                left.fetch_sub(count, Ordering::Relaxed);
                deletions.spawn(delete(client.clone(), url.clone(), messages));
            }
            while let Some(ended) = deletions.join_next().await {
                ended??;
            }
            Ok(())
        });
    }
    while let Some(ended) = polls.join_next().await {
        ended??;
    }
    // What the first messages took is not known.
    let (clock, already) = first.get().ok_or("nothing was received")?;
    clock.stop(MESSAGES - already)
}

async fn delete(client: Client, url: String, messages: Vec<Received>) -> Outcome {
    let mut entries = Vec::new();
    for (n, message) in messages.into_iter().enumerate() {
        let entry = DeleteMessageBatchRequestEntry::builder()
            .id(n.to_string())
            .set_receipt_handle(message.receipt_handle);
        entries.push(entry.build()?);
    }
    let call = client.delete_message_batch().queue_url(url);
    let answer = call.set_entries(Some(entries)).send().await?;
    match answer.failed.is_empty() {
        true => Ok(()),
        false => Err("an entry failed".into()),
    }
}

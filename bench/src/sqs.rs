//! W4: SQS by way of ElasticMQ. Sending, and receiving with each message handled once, beside the bare SDK on the same server.
//!
//! The bare client does what a careful user writes by hand: calls of ten messages of ten groups, the CloudEvents attributes, as
//! many calls at a time as the adapter makes, and a look at each entry's outcome.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use aws_credential_types::Credentials;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::{BehaviorVersion, Region};
use aws_sdk_sqs::types::{
    DeleteMessageBatchRequestEntry, Message as Received, MessageAttributeValue,
    SendMessageBatchRequestEntry,
};
use onceward_consumer::CancellationToken;
use onceward_sqs::{Sqs, SqsConfig, SubscriberConfig};
use onceward_testkit::sqs::Sqs as Server;
use onceward_testkit::unique;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::Arguments;
use crate::backlog::{KEYS, payload};
use crate::consume::{Count, DEADLINE, Manner, Tally, batches, offer, per_second, pool};
use crate::outcome::Outcome;
use crate::results::Results;
use crate::world::World;

/// Messages of one run: the emulator is slow.
const MESSAGES: u64 = 5_000;
/// Calls at a time, as the adapter makes them.
const CALLS: usize = 32;
/// Polls at a time, as the adapter makes them.
const POLLS: usize = 2;

pub(crate) async fn measure(
    world: &World,
    arguments: &Arguments,
    results: &mut Results,
) -> Outcome {
    let rate = ("rate", "msg/s");
    for _ in 0..arguments.repeats {
        for manner in [Manner::OneByOne, Manner::Batches] {
            let variant = manner.variant("sqs");
            let (sending, handling) = (("W4", "sqs-send"), ("W4", variant.as_str()));
            // A fresh server for each of the two: the emulator gets slower with all that it has ever held. In memory: with its
            // database, calls that hang for 20 s now and then would decide who is faster.
            let server = Server::start().await;
            let client = client(&server);
            let queue = fresh_queue(&server).await.1;
            results.add(
                sending,
                "raw-client",
                rate,
                send_bare(&client, &queue).await?,
            );
            let received = receive_bare(&client, &queue).await?;
            results.add(handling, "raw-client", rate, received);
            drop(server);
            let server = Server::start().await;
            let queue = fresh_queue(&server).await.0;
            results.add(sending, "onceward", rate, send(&server, &queue).await?);
            let handled = handle(world, &server, &queue, manner).await?;
            results.add(handling, "onceward", rate, handled);
        }
    }
    Ok(())
}

fn client(server: &Server) -> Client {
    let config = aws_sdk_sqs::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(server.url())
        .credentials_provider(Credentials::from_keys("bench", "bench", None))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    Client::from_conf(config)
}

/// The name and the URL of a fresh queue.
async fn fresh_queue(server: &Server) -> (String, String) {
    let name = format!("{}.fifo", unique("bench"));
    let url = server.create_queue(&name, &[]).await;
    (name, url)
}

async fn send(server: &Server, queue: &str) -> Outcome<f64> {
    let batches = batches(queue, MESSAGES)?;
    let mut config = SqsConfig::emulator(server.url());
    config.deadline = DEADLINE;
    let publisher = Sqs::new(config).publisher().await?;
    let begun = Instant::now();
    offer(publisher, batches).await?;
    Ok(per_second(MESSAGES, begun.elapsed()))
}

async fn send_bare(client: &Client, url: &str) -> Outcome<f64> {
    let begun = Instant::now();
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
    Ok(per_second(MESSAGES, begun.elapsed()))
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

/// Receives and deletes everything: the next poll does not wait for the deletion of what the one before brought.
async fn receive_bare(client: &Client, url: &str) -> Outcome<f64> {
    let begun = Arc::new(OnceLock::new());
    let left = Arc::new(AtomicU64::new(MESSAGES));
    let mut polls: JoinSet<Outcome> = JoinSet::new();
    for _ in 0..POLLS {
        let (client, url) = (client.clone(), url.to_owned());
        let (left, begun) = (Arc::clone(&left), Arc::clone(&begun));
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
                begun.get_or_init(Instant::now);
                left.fetch_sub(messages.len() as u64, Ordering::Relaxed);
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
    let begun = begun.get().ok_or("nothing was received")?;
    Ok(per_second(MESSAGES, begun.elapsed()))
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

async fn handle(world: &World, server: &Server, queue: &str, manner: Manner) -> Outcome<f64> {
    let database = world.database().await?;
    let tally = Tally::of(MESSAGES);
    let consumer = manner.consumer(pool(&database).await?, Count(Arc::clone(&tally)))?;
    let mut reads = SubscriberConfig::new([queue]);
    reads.receivers = POLLS;
    reads.wait = Duration::from_secs(1);
    let member = Sqs::new(SqsConfig::emulator(server.url()))
        .subscriber(reads)
        .await?;
    let stop = CancellationToken::new();
    let running = tokio::spawn(consumer.run(member, stop.clone()));
    let rate = tally.rate(database.pool()).await?;
    stop.cancel();
    running.await??;
    Ok(rate)
}

//! The brokers' own clients, without a relay: how fast they publish, and how soon a message of theirs can be read.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use onceward_core::wire::{self, Style};
use onceward_core::{MAX_PAYLOAD, Message, Outgoing, Route, Source};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use uuid::Uuid;

use super::Broker;
use crate::backlog::{KEYS, TOPIC, payload};
use crate::outcome::Outcome;
use crate::world::World;

/// Publish acks that the NATS client waits for at a time.
const ACKS: usize = 2_000;

pub(super) fn drain_to_kafka(brokers: &str, topic: &str, messages: u64) -> Outcome {
    let producer = producer(brokers, "5")?;
    let sample = sample(topic, Uuid::now_v7())?;
    let headers = kafka_headers(&sample);
    for n in 0..messages {
        let key = format!("k{}", n % KEYS);
        let mut record = BaseRecord::to(topic)
            .key(&key)
            .payload(&sample.message.payload[..])
            .headers(headers.clone());
        while let Err((error, back)) = producer.send(record) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(error.into());
            }
            record = back;
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    producer.flush(Duration::from_secs(120))?;
    Ok(())
}

pub(super) async fn drain_to_nats(world: &World, subject: &str, messages: u64) -> Outcome {
    let jetstream = jetstream::new(world.nats_client().await?);
    let sample = sample(subject, Uuid::now_v7())?;
    let template = nats_headers(&sample);
    let mut acks = FuturesUnordered::new();
    for n in 0..messages {
        let mut headers = template.clone();
        headers.insert("Nats-Msg-Id", format!("{subject}:{n}").as_str());
        let subject = subject.to_owned();
        let ack = jetstream.publish_with_headers(subject, headers, sample.message.payload.clone());
        acks.push(ack.await?.into_future());
        if acks.len() >= ACKS
            && let Some(ack) = acks.next().await
        {
            ack?;
        }
    }
    while let Some(ack) = acks.next().await {
        ack?;
    }
    Ok(())
}

/// Publishes single messages, each at once.
pub(crate) enum Single {
    Kafka {
        producer: Producing,
        topic: String,
    },
    Nats {
        jetstream: jetstream::Context,
        subject: String,
    },
}

impl Single {
    pub(crate) async fn connect(world: &World, (broker, route): (Broker, &str)) -> Outcome<Self> {
        let route = route.to_owned();
        Ok(match broker {
            Broker::Kafka => Self::Kafka {
                producer: producer(world.kafka.brokers(), "0")?,
                topic: route,
            },
            Broker::Nats => Self::Nats {
                jetstream: jetstream::new(world.nats_client().await?),
                subject: route,
            },
        })
    }

    /// Hands a message to the client. It does not wait for the ack: a message that is not stored is missed by the reader.
    pub(crate) async fn send(&self, id: Uuid, key: &str) -> Outcome {
        match self {
            Self::Kafka { producer, topic } => {
                let sample = sample(topic, id)?;
                let record = BaseRecord::to(topic)
                    .key(key)
                    .payload(&sample.message.payload[..])
                    .headers(kafka_headers(&sample));
                producer.send(record).map_err(|(error, _)| error)?;
            }
            Self::Nats { jetstream, subject } => {
                let sample = sample(subject, id)?;
                let mut headers = nats_headers(&sample);
                headers.insert("Nats-Msg-Id", id.to_string());
                let (subject, payload) = (subject.clone(), sample.message.payload.clone());
                jetstream
                    .publish_with_headers(subject, headers, payload)
                    .await?;
            }
        }
        Ok(())
    }
}

/// A client that polls in a thread of its own.
type Producing = ThreadedProducer<DefaultProducerContext>;

fn producer(brokers: &str, linger_ms: &str) -> Outcome<Producing> {
    Ok(ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", linger_ms)
        .set("partitioner", "murmur2_random")
        .set("queue.buffering.max.messages", "200000")
        .create()?)
}

fn kafka_headers(message: &Outgoing) -> OwnedHeaders {
    let mut headers = OwnedHeaders::new();
    for (key, value) in wire::encode(message, Style::Underscore) {
        let value = Some(value.as_bytes());
        headers = headers.insert(Header { key, value });
    }
    headers
}

fn nats_headers(message: &Outgoing) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in wire::encode(message, Style::Dash) {
        headers.insert(name, value.as_ref());
    }
    headers
}

/// A message as the relay sends it.
fn sample(route: &str, id: Uuid) -> Outcome<Outgoing> {
    let draft = Message::bytes(TOPIC, payload()).key("k500").id(id);
    let mut message = draft.finish(MAX_PAYLOAD)?.message;
    message.source = Some(Source::try_from("/bench")?);
    message.seq = Some(500_000);
    message.time = Some(time::OffsetDateTime::now_utc());
    Ok(Outgoing {
        route: Route::new(route),
        message,
        replay: None,
    })
}

//! The brokers' own clients, without a relay: how fast they publish, and how soon a message of theirs can be read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use onceward_core::wire::{self, Style};
use onceward_core::{MAX_PAYLOAD, Message, Outgoing, Route, Source};
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{
    BaseRecord, DefaultProducerContext, DeliveryResult, ProducerContext, ThreadedProducer,
};
use uuid::Uuid;

use super::Broker;
use crate::backlog::{KEYS, TOPIC, payload};
use crate::cost::Stage;
use crate::outcome::Outcome;
use crate::world::World;

/// Publish acks that the NATS client waits for at a time.
const ACKS: usize = 2_000;

/// How often the loops of the Kafka client look for room and for the last ack.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// A run in which Kafka does not ack everything after so long has failed.
const ACKED_WITHIN: Duration = Duration::from_secs(120);

/// What a message carries beside its key and its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum With {
    /// The headers that a relay gives it.
    Headers,
    Nothing,
}

/// Publishes to Kafka as fast as its client goes. The clock starts when a first message is acked: the client is connected then and has
/// its producer id; it ends with the last ack.
pub(crate) async fn drain_to_kafka(
    world: &World,
    topic: &str,
    messages: u64,
    with: With,
) -> Outcome<Stage> {
    let (brokers, topic) = (world.kafka.brokers().to_owned(), topic.to_owned());
    let meter = world.meter(Broker::Kafka);
    let drain = move || {
        let reports = Arc::new(Reports::default());
        let producer = producer(&brokers, "5", Counting(Arc::clone(&reports)))?;
        let sample = sample(&topic, Uuid::now_v7())?;
        let headers = match with {
            With::Headers => Some(kafka_headers(&sample)),
            With::Nothing => None,
        };
        let payload = &sample.message.payload[..];
        send(&producer, &topic, 0, (payload, headers.as_ref()))?;
        reports.reach(1)?;
        let clock = meter.start()?;
        for n in 0..messages {
            send(&producer, &topic, n, (payload, headers.as_ref()))?;
        }
        reports.reach(messages + 1)?;
        clock.stop(messages)
    };
    tokio::task::spawn_blocking(drain).await?
}

/// Hands a message to the client, once there is room. The queue is so long that none of what waits for room is missed: what it holds
/// keeps the client busy for a hundred times as long as a look takes.
fn send(
    producer: &ThreadedProducer<Counting>,
    topic: &str,
    n: u64,
    (payload, headers): (&[u8], Option<&OwnedHeaders>),
) -> Outcome {
    let key = format!("k{}", n % KEYS);
    let mut record = BaseRecord::to(topic).key(&key).payload(payload);
    record.headers = headers.cloned();
    while let Err((error, back)) = producer.send(record) {
        if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
            return Err(error.into());
        }
        record = back;
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

/// What the client has reported so far. Its `flush` looks only every 100 ms, which would be a part of the figure.
#[derive(Debug, Default)]
struct Reports {
    acked: AtomicU64,
    failed: OnceLock<KafkaError>,
}

impl Reports {
    /// Waits until so many messages are acked.
    fn reach(&self, count: u64) -> Outcome {
        let deadline = Instant::now() + ACKED_WITHIN;
        while self.acked.load(Ordering::Relaxed) < count {
            if let Some(error) = self.failed.get() {
                return Err(error.clone().into());
            }
            if Instant::now() > deadline {
                return Err("Kafka does not ack what the bare client sent".into());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }
}

/// Counts the reports of a client.
#[derive(Debug)]
struct Counting(Arc<Reports>);

impl ClientContext for Counting {}

impl ProducerContext for Counting {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => {
                self.0.acked.fetch_add(1, Ordering::Relaxed);
            }
            Err((error, _)) => {
                self.0.failed.get_or_init(|| error.clone());
            }
        }
    }
}

/// Publishes to JetStream as fast as its client goes. The clock starts when a first message is acked.
pub(super) async fn drain_to_nats(world: &World, subject: &str, messages: u64) -> Outcome<Stage> {
    let jetstream = jetstream::new(world.nats_client().await?);
    let sample = sample(subject, Uuid::now_v7())?;
    let template = nats_headers(&sample);
    let publish = async |id: String| {
        let mut headers = template.clone();
        headers.insert("Nats-Msg-Id", id.as_str());
        let (subject, payload) = (subject.to_owned(), sample.message.payload.clone());
        let ack = jetstream.publish_with_headers(subject, headers, payload);
        Outcome::Ok(ack.await?.into_future())
    };
    publish(format!("{subject}:first")).await?.await?;
    let clock = world.meter(Broker::Nats).start()?;
    let mut acks = FuturesUnordered::new();
    for n in 0..messages {
        acks.push(publish(format!("{subject}:{n}")).await?);
        if acks.len() >= ACKS
            && let Some(ack) = acks.next().await
        {
            ack?;
        }
    }
    while let Some(ack) = acks.next().await {
        ack?;
    }
    clock.stop(messages)
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
                producer: producer(world.kafka.brokers(), "0", DefaultProducerContext)?,
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

/// As durable as the relay's, and with requests as large. The queue is longer than what is in flight, and bounds the memory.
fn producer<C: ProducerContext + 'static>(
    brokers: &str,
    linger_ms: &str,
    context: C,
) -> Outcome<ThreadedProducer<C>> {
    Ok(ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", linger_ms)
        .set("partitioner", "murmur2_random")
        .set("queue.buffering.max.messages", "200000")
        .create_with_context(context)?)
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

//! The two brokers, as far as the benchmarks need them: fresh routes, how much they hold, and who reads them.

pub(crate) mod bare;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use futures_util::StreamExt;
use onceward_testkit::unique;
use rdkafka::consumer::{BaseConsumer, Consumer, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Headers, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;
use uuid::Uuid;

use self::bare::With;
use crate::backlog;
use crate::cost::Stage;
use crate::outcome::Outcome;
use crate::world::World;

/// Partitions of a Kafka topic, unless a workload says otherwise.
const PARTITIONS: u16 = 4;

/// How long Kafka may take to tell of a topic.
const ANSWER: Duration = Duration::from_secs(10);

/// How often each broker takes what warms it up, and the partitions of Kafka's topic.
const WARM_UPS: usize = 3;
const WARM_UP_PARTITIONS: u16 = 12;

/// Which broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broker {
    Kafka,
    Nats,
}

impl Broker {
    pub(crate) const ALL: [Self; 2] = [Self::Kafka, Self::Nats];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Nats => "nats",
        }
    }

    /// A fresh topic, or a fresh stream whose only subject has the same name.
    pub(crate) async fn route(self, world: &World) -> Outcome<String> {
        self.route_of(world, PARTITIONS).await
    }

    /// The same with so many partitions, which only Kafka has.
    pub(crate) async fn route_of(self, world: &World, partitions: u16) -> Outcome<String> {
        let route = unique("bench");
        match self {
            Self::Kafka => world.kafka.create_topic(&route, partitions, &[]).await,
            Self::Nats => {
                let jetstream = jetstream::new(world.nats_client().await?);
                let config = jetstream::stream::Config {
                    name: route.clone(),
                    subjects: vec![route.clone()],
                    ..Default::default()
                };
                jetstream.create_stream(config).await?;
            }
        }
        Ok(route)
    }

    /// Throws a route and all it holds away.
    pub(crate) async fn forget(self, world: &World, route: &str) -> Outcome {
        match self {
            // Kafka deletes in the background, at a moment of its own: it would disturb the next run.
            Self::Kafka => {}
            Self::Nats => {
                let jetstream = jetstream::new(world.nats_client().await?);
                jetstream.delete_stream(route).await?;
            }
        }
        Ok(())
    }

    /// Publishes with the bare client, as fast as it goes with durable acks, and one message before to get connected.
    pub(crate) async fn publish_bare(
        self,
        world: &World,
        route: &str,
        messages: u64,
    ) -> Outcome<Stage> {
        match self {
            Self::Kafka => bare::drain_to_kafka(world, route, messages, With::Headers).await,
            Self::Nats => bare::drain_to_nats(world, route, messages).await,
        }
    }
}

/// Has the brokers take so many messages, some times over: their first steps are slow, and would be those of the first contestant.
pub(crate) async fn warm_up(world: &World, messages: u64) -> Outcome {
    for broker in Broker::ALL {
        for _ in 0..WARM_UPS {
            let route = broker.route_of(world, WARM_UP_PARTITIONS).await?;
            let bare = broker.publish_bare(world, &route, messages).await?;
            broker.forget(world, &route).await?;
            let (name, rate) = (broker.name(), bare.rate);
            eprintln!("  {name} warms up: {rate:.0} msg/s by the bare client");
        }
    }
    Ok(())
}

fn partitions(client: &BaseConsumer, topic: &str) -> Outcome<i32> {
    let answer = client.fetch_metadata(Some(topic), ANSWER)?;
    let topic = answer.topics().first().ok_or("no such topic")?;
    Ok(i32::try_from(topic.partitions().len())?)
}

/// What a partition holds. One of a fresh topic may be without a leader for a moment, also after it had one.
fn held_by(client: &BaseConsumer, topic: &str, partition: i32) -> Outcome<u64> {
    let deadline = Instant::now() + ANSWER;
    loop {
        match client.fetch_watermarks(topic, partition, ANSWER) {
            Ok((low, high)) => return Ok(u64::try_from(high - low)?),
            Err(KafkaError::MetadataFetch(
                RDKafkaErrorCode::NotLeaderForPartition | RDKafkaErrorCode::LeaderNotAvailable,
            )) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Tells how much a broker holds of a route, by its own word.
pub(crate) enum Witness {
    Kafka {
        client: Arc<BaseConsumer>,
        topic: String,
        partitions: i32,
    },
    Nats(Box<jetstream::stream::Stream>),
}

impl Witness {
    pub(crate) async fn of(world: &World, (broker, route): (Broker, &str)) -> Outcome<Self> {
        match broker {
            Broker::Kafka => {
                let (brokers, topic) = (world.kafka.brokers().to_owned(), route.to_owned());
                tokio::task::spawn_blocking(move || {
                    let client: BaseConsumer = ClientConfig::new()
                        .set("bootstrap.servers", brokers)
                        .create()?;
                    let partitions = partitions(&client, &topic)?;
                    let client = Arc::new(client);
                    Ok(Self::Kafka {
                        client,
                        topic,
                        partitions,
                    })
                })
                .await?
            }
            Broker::Nats => {
                let jetstream = jetstream::new(world.nats_client().await?);
                Ok(Self::Nats(Box::new(jetstream.get_stream(route).await?)))
            }
        }
    }

    /// How many messages it holds now.
    pub(crate) async fn held(&mut self) -> Outcome<u64> {
        match self {
            Self::Kafka {
                client,
                topic,
                partitions,
            } => {
                let (client, topic, partitions) = (Arc::clone(client), topic.clone(), *partitions);
                tokio::task::spawn_blocking(move || {
                    let mut held = 0;
                    for partition in 0..partitions {
                        held += held_by(&client, &topic, partition)?;
                    }
                    Ok(held)
                })
                .await?
            }
            Self::Nats(stream) => Ok(stream.info().await?.state.messages),
        }
    }
}

/// Where a message's id is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IdIn {
    /// In the header that a relay of ours gives it.
    Header,
    /// In its payload; on Kafka only.
    Payload,
}

fn id_of(message: &impl Message, id_in: IdIn) -> Outcome<Uuid> {
    match id_in {
        IdIn::Header => {
            let headers = message.headers().ok_or("no headers")?;
            let id = headers.iter().find(|header| header.key == "ce_id");
            let id = id.and_then(|header| header.value).ok_or("no id")?;
            Ok(std::str::from_utf8(id)?.parse()?)
        }
        IdIn::Payload => {
            let payload = message.payload().ok_or("no payload")?;
            Ok(backlog::id_in(payload).ok_or("no id in the payload")?)
        }
    }
}

/// Reads a route from its beginning and reports the id and the moment of each message. Ends when what it gives is dropped.
pub(crate) async fn read(
    world: &World,
    (broker, route): (Broker, &str),
    id_in: IdIn,
    seen: UnboundedSender<(Uuid, Instant)>,
) -> Outcome<JoinSet<Outcome>> {
    let mut tasks = JoinSet::new();
    match broker {
        Broker::Nats => {
            // Core NATS would be faster than the stream itself; an ordered consumer sees what is stored.
            let jetstream = jetstream::new(world.nats_client().await?);
            let stream = jetstream.get_stream(route).await?;
            let config = jetstream::consumer::push::OrderedConfig {
                deliver_subject: world.nats_client().await?.new_inbox(),
                ..Default::default()
            };
            let mut messages = stream.create_consumer(config).await?.messages().await?;
            tasks.spawn(async move {
                while let Some(message) = messages.next().await {
                    let message = message?;
                    let id = message
                        .headers
                        .as_ref()
                        .and_then(|headers| headers.get("ce-id"));
                    seen.send((id.ok_or("no id")?.as_str().parse()?, Instant::now()))?;
                }
                Ok(())
            });
        }
        Broker::Kafka => {
            let consumer: StreamConsumer = ClientConfig::new()
                .set("bootstrap.servers", world.kafka.brokers())
                .set("group.id", route)
                .set("enable.auto.commit", "false")
                .set("auto.offset.reset", "earliest")
                .set("fetch.wait.max.ms", "5")
                .create()?;
            let Witness::Kafka { partitions, .. } = Witness::of(world, (broker, route)).await?
            else {
                return Err("Kafka's witness is another one".into());
            };
            let mut assigned = TopicPartitionList::new();
            for partition in 0..partitions {
                assigned.add_partition_offset(route, partition, Offset::Beginning)?;
            }
            consumer.assign(&assigned)?;
            tasks.spawn(async move {
                loop {
                    let message = consumer.recv().await?;
                    seen.send((id_of(&message, id_in)?, Instant::now()))?;
                }
            });
        }
    }
    Ok(tasks)
}

//! W4: how fast messages are handled once, with a handler that does nothing: one by one, and in batches; beside the bare client
//! and the bare transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use onceward_consumer::{
    BatchHandler, BatchSettings, BatchTx, CancellationToken, Consumer, ConsumerBuilder, Handler,
    HandlerError, HandlerSettings, Limits, Message, Tx,
};
use onceward_core::{Batch, MAX_PAYLOAD, Outgoing, Publisher, Route, Source};
use onceward_kafka::{Kafka, KafkaConfig, KafkaSubscription};
use onceward_nats::{NatsConfig, NatsPublisher, NatsSubscriber, SubscriberConfig};
use onceward_testkit::postgres::Database;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::Arguments;
use crate::backlog::{KEYS, TOPIC, payload};
use crate::broker::Broker;
use crate::outcome::Outcome;
use crate::results::Results;
use crate::spread;
use crate::world::World;

/// Messages of one run.
const MESSAGES: u64 = 30_000;

/// Handlers at a time, and connections of the bare transactions.
pub(crate) const CONCURRENCY: u32 = 16;

/// Batches at a time, and messages of one.
const BATCHES: usize = 4;
const BATCH: usize = 250;

/// Deliveries in memory, of both: enough for all batches and for as many that wait.
const MEMORY: usize = 2_000;

/// 100,000 messages of 1,000 other keys that wait for another attempt, as the consumer writes them.
const RETRIES: &str = "
insert into onceward.held_keys (consumer, line, topic, key, due_at)
select 'bench', md5(k::text)::uuid, 'orders.created', 'held-' || k, now() + interval '1 hour'
from generate_series(0, 999) k;
insert into onceward.processed_messages (slot, consumer, message_id, outcome)
select 0, 'bench', md5('m' || n)::uuid, 1 from generate_series(1, 100000) n;
insert into onceward.retries (consumer, line, message_id, mark_slot, topic, key, type, payload, due_at)
select 'bench', md5((n % 1000)::text)::uuid, md5('m' || n)::uuid, 0,
  'orders.created', 'held-' || n % 1000, 'orders.created', convert_to(repeat('a', 300), 'utf8'), now() + interval '1 hour'
from generate_series(1, 100000) n";

/// A run that takes longer has failed.
pub(crate) const DEADLINE: Duration = Duration::from_secs(180);

/// Counts, and does nothing.
#[derive(Debug)]
pub(crate) struct Count {
    pub(crate) left: Arc<AtomicU64>,
    pub(crate) done: Arc<Notify>,
}

impl Handler for Count {
    async fn handle(&self, _: &Message, _: &mut Tx) -> Result<(), HandlerError> {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.done.notify_one();
        }
        Ok(())
    }
}

impl BatchHandler for Count {
    async fn handle(&self, messages: &[Arc<Message>], _: &mut BatchTx) -> Result<(), HandlerError> {
        let count = u64::try_from(messages.len())?;
        if self.left.fetch_sub(count, Ordering::Relaxed) == count {
            self.done.notify_one();
        }
        Ok(())
    }
}

/// How messages are handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    OneByOne,
    Batches,
    /// One by one, while others wait for another attempt.
    BesideRetries,
}

impl Manner {
    const ALL: [Self; 3] = [Self::OneByOne, Self::Batches, Self::BesideRetries];

    pub(crate) const fn contestant(self) -> &'static str {
        match self {
            Self::OneByOne => "onceward",
            Self::Batches => "onceward-batches",
            Self::BesideRetries => "onceward-100k-retries",
        }
    }

    fn build(self, builder: ConsumerBuilder, handler: Count) -> ConsumerBuilder {
        match self {
            Self::OneByOne | Self::BesideRetries => builder.handler("*", handler),
            Self::Batches => {
                let settings = HandlerSettings {
                    concurrency: Some(BATCHES),
                    batch: BatchSettings {
                        messages: BATCH,
                        ..BatchSettings::default()
                    },
                    ..HandlerSettings::default()
                };
                builder.batch("*", handler).with(settings)
            }
        }
    }
}

pub(crate) async fn measure(
    world: &World,
    arguments: &Arguments,
    results: &mut Results,
) -> Outcome {
    for _ in 0..arguments.repeats {
        let database = world.database().await?;
        let bare = transactions(&database).await?;
        for broker in Broker::ALL {
            let at = ("W4", broker.name());
            results.add(at, "bare-transaction", ("rate", "msg/s"), bare);
            let route = broker.route(world).await?;
            publish(world, broker, &route).await?;
            let client = receive_bare(world, broker, &route).await?;
            results.add(at, "raw-client", ("rate", "msg/s"), client);
            for manner in Manner::ALL {
                // What waits lies in the database, whatever the broker.
                if manner == Manner::BesideRetries && broker != Broker::Kafka {
                    continue;
                }
                let rate = handle(world, broker, &route, manner).await?;
                results.add(at, manner.contestant(), ("rate", "msg/s"), rate);
            }
        }
        spread::measure(world, results).await?;
    }
    Ok(())
}

/// How much of its ceiling one run on Kafka reaches: of the bare client's rate in batches, of the bare transaction's else.
pub(crate) async fn share(world: &World, manner: Manner) -> Outcome<f64> {
    let route = Broker::Kafka.route(world).await?;
    publish(world, Broker::Kafka, &route).await?;
    let ceiling = match manner {
        Manner::Batches => receive_bare(world, Broker::Kafka, &route).await?,
        Manner::OneByOne | Manner::BesideRetries => transactions(&world.database().await?).await?,
    };
    Ok(handle(world, Broker::Kafka, &route, manner).await? / ceiling)
}

pub(crate) async fn pool(database: &Database) -> Outcome<PgPool> {
    let options = PgPoolOptions::new().max_connections(CONCURRENCY + 10);
    Ok(options.connect(database.url()).await?)
}

async fn handle(world: &World, broker: Broker, route: &str, manner: Manner) -> Outcome<f64> {
    let database = world.database().await?;
    if manner == Manner::BesideRetries {
        sqlx::raw_sql(RETRIES).execute(database.pool()).await?;
    }
    let group = format!("{route}-{}", manner.contestant());
    let left = Arc::new(AtomicU64::new(MESSAGES));
    let done = Arc::new(Notify::new());
    let handler = Count {
        left,
        done: Arc::clone(&done),
    };
    let limits = Limits {
        concurrency: usize::try_from(CONCURRENCY)?,
        messages: MEMORY,
        ..Limits::default()
    };
    let builder = Consumer::builder("bench").pool(pool(&database).await?);
    let builder = manner.build(builder, handler);
    let consumer = builder.limits(limits).build()?;
    let stop = CancellationToken::new();
    let begun = Instant::now();
    let mut running = JoinSet::new();
    match broker {
        Broker::Kafka => {
            let kafka = Kafka::new(KafkaConfig::new(world.kafka.brokers()))?;
            let member = kafka.subscriber(KafkaSubscription::new(group, [route]))?;
            running.spawn(consumer.run(member, stop.clone()));
        }
        Broker::Nats => {
            let config = NatsConfig::new([world.nats_url()]);
            let member = SubscriberConfig::new(group, [route]);
            let member = NatsSubscriber::join(&config, member).await?;
            running.spawn(consumer.run(member, stop.clone()));
        }
    }
    timeout(DEADLINE, done.notified()).await?;
    let elapsed = begun.elapsed();
    stop.cancel();
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    Ok(per_second(elapsed))
}

/// Puts messages on a route with the headers that a relay gives them.
async fn publish(world: &World, broker: Broker, route: &str) -> Outcome {
    let batches = (0..MESSAGES)
        .step_by(1_000)
        .map(|first| batch(route, first));
    let batches: Vec<Arc<Batch>> = batches.collect::<Outcome<_>>()?;
    match broker {
        Broker::Kafka => {
            let kafka = Kafka::new(KafkaConfig::new(world.kafka.brokers()))?;
            offer(kafka.publisher(), batches).await
        }
        Broker::Nats => {
            let config = NatsConfig::new([world.nats_url()]);
            offer(NatsPublisher::connect(&config).await?, batches).await
        }
    }
}

pub(crate) async fn offer<P: Publisher>(mut publisher: P, batches: Vec<Arc<Batch>>) -> Outcome {
    let mut pending = Vec::new();
    for batch in batches {
        pending.push(publisher.offer(batch).await);
    }
    for receipts in pending {
        if !receipts.await.all_confirmed() {
            return Err("a message was not confirmed".into());
        }
    }
    publisher.close(Duration::from_secs(5)).await;
    Ok(())
}

pub(crate) fn batch(route: &str, first: u64) -> Outcome<Arc<Batch>> {
    let source = Source::try_from("/bench")?;
    let mut batch = Batch::default();
    for n in first..first + 1_000 {
        let draft = Message::bytes(TOPIC, payload()).key(format!("k{}", n % KEYS));
        let mut message = draft.finish(MAX_PAYLOAD)?.message;
        message.source = Some(source.clone());
        message.seq = Some(i64::try_from(n)? + 1);
        batch.messages.push(Outgoing {
            route: Route::new(route),
            message,
            replay: None,
        });
    }
    Ok(Arc::new(batch))
}

/// The bare client receives and acks; nothing is handled.
async fn receive_bare(world: &World, broker: Broker, route: &str) -> Outcome<f64> {
    let begun = Instant::now();
    match broker {
        Broker::Kafka => {
            let consumer: StreamConsumer = rdkafka::ClientConfig::new()
                .set("bootstrap.servers", world.kafka.brokers())
                .set("group.id", format!("{route}-bare"))
                .set("auto.offset.reset", "earliest")
                .create()?;
            consumer.subscribe(&[route])?;
            for _ in 0..MESSAGES {
                timeout(DEADLINE, consumer.recv()).await??;
            }
        }
        Broker::Nats => {
            let jetstream = async_nats::jetstream::new(world.nats_client().await?);
            let stream = jetstream.get_stream(route).await?;
            let config = async_nats::jetstream::consumer::pull::Config {
                durable_name: Some(format!("{route}-bare")),
                max_ack_pending: 10_000,
                ..Default::default()
            };
            let mut messages = stream.create_consumer(config).await?.messages().await?;
            for _ in 0..MESSAGES {
                let message = timeout(DEADLINE, messages.next()).await?.ok_or("ended")??;
                message.ack().await?;
            }
        }
    }
    Ok(per_second(begun.elapsed()))
}

/// The transactions that a consumer cannot do without: one row each, durable.
async fn transactions(database: &Database) -> Outcome<f64> {
    let pool = pool(database).await?;
    sqlx::raw_sql("create table bare (id uuid primary key)")
        .execute(&pool)
        .await?;
    let begun = Instant::now();
    let mut tasks: JoinSet<Outcome> = JoinSet::new();
    for _ in 0..CONCURRENCY {
        let pool = pool.clone();
        tasks.spawn(async move {
            for _ in 0..MESSAGES / u64::from(CONCURRENCY) {
                let mut transaction = pool.begin().await?;
                sqlx::query("insert into bare values ($1)")
                    .bind(uuid::Uuid::now_v7())
                    .execute(&mut *transaction)
                    .await?;
                transaction.commit().await?;
            }
            Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(per_second(begun.elapsed()))
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn per_second(elapsed: Duration) -> f64 {
    MESSAGES as f64 / elapsed.as_secs_f64()
}

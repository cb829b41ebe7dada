//! W4: how fast messages are handled once, with a handler that does nothing: one by one, and in batches; beside the bare client
//! and the bare transaction.
//!
//! The clock runs from the first message until the last one is stored, for all of them: how long it takes to join a group is not measured.

pub(crate) mod bare;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use onceward_consumer::{
    BatchHandler, BatchSettings, BatchTx, CancellationToken, Consumer, ConsumerBuilder, Handler,
    HandlerError, HandlerSettings, Limits, Message, Tx,
};
use onceward_core::{Batch, MAX_PAYLOAD, Outgoing, Publisher, Route, Source};
use onceward_kafka::{Kafka, KafkaConfig, KafkaSubscription};
use onceward_nats::{NatsConfig, NatsPublisher, NatsSubscriber, SubscriberConfig};
use onceward_testkit::postgres::Database;
use onceward_testkit::unique;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::Arguments;
use crate::backlog::{KEYS, TOPIC, payload};
use crate::broker::Broker;
use crate::outcome::Outcome;
use crate::results::Results;
use crate::spread;
use crate::world::World;

/// Handlers at a time, and connections of the bare transactions.
pub(crate) const CONCURRENCY: u32 = 16;

/// Batches at a time, and messages of one.
pub(crate) const BATCHES: usize = 4;
pub(crate) const BATCH: usize = 250;

/// Deliveries in memory, of both: enough for all batches and for as many that wait.
const MEMORY: usize = 2_000;

/// Messages that are offered at a time.
const CHUNK: u64 = 1_000;

/// Of which one is published twice, where there are duplicates.
const COPIED: usize = 10;

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

/// What this run has marked: those that wait have another outcome.
const MARKED: &str =
    "select count(*) from onceward.processed_messages where consumer = 'bench' and outcome = 0";

/// A run that takes longer has failed.
pub(crate) const DEADLINE: Duration = Duration::from_secs(180);

/// What the handler and the measurement share.
#[derive(Debug)]
pub(crate) struct Tally {
    messages: u64,
    handled: AtomicU64,
    /// When the handler was called first, and with how many messages: what those took is not known.
    first: OnceLock<(Instant, u64)>,
    done: Notify,
}

impl Tally {
    pub(crate) fn of(messages: u64) -> Arc<Self> {
        Arc::new(Self {
            messages,
            handled: AtomicU64::new(0),
            first: OnceLock::new(),
            done: Notify::new(),
        })
    }

    fn add(&self, count: u64) {
        self.first.get_or_init(|| (Instant::now(), count));
        if self.handled.fetch_add(count, Ordering::Relaxed) + count >= self.messages {
            self.done.notify_one();
        }
    }

    /// Messages a second, from the first call of the handler until all are marked in the database: waits for that.
    pub(crate) async fn rate(&self, pool: &PgPool) -> Outcome<f64> {
        timeout(DEADLINE, self.done.notified()).await?;
        let wanted = i64::try_from(self.messages)?;
        let marked = async {
            // A batch that was rolled back is handled once more.
            while sqlx::query_scalar::<_, i64>(MARKED).fetch_one(pool).await? < wanted {
                sleep(Duration::from_millis(2)).await;
            }
            Outcome::Ok(())
        };
        timeout(DEADLINE, marked).await??;
        let (begun, count) = self.first.get().ok_or("nothing was handled")?;
        Ok(per_second(self.messages - count, begun.elapsed()))
    }
}

/// Counts, and does nothing.
#[derive(Debug)]
pub(crate) struct Count(pub(crate) Arc<Tally>);

impl Handler for Count {
    async fn handle(&self, _: &Message, _: &mut Tx) -> Result<(), HandlerError> {
        self.0.add(1);
        Ok(())
    }
}

impl BatchHandler for Count {
    async fn handle(&self, messages: &[Arc<Message>], _: &mut BatchTx) -> Result<(), HandlerError> {
        self.0.add(u64::try_from(messages.len())?);
        Ok(())
    }
}

/// How messages are handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    OneByOne,
    Batches,
}

impl Manner {
    /// Messages of one run: so many that both manners take about as long.
    pub(crate) const fn messages(self) -> u64 {
        match self {
            Self::OneByOne => 20_000,
            Self::Batches => 300_000,
        }
    }

    /// The variant of a broker, such as `kafka batches`.
    pub(crate) fn variant(self, broker: &str) -> String {
        match self {
            Self::OneByOne => broker.to_owned(),
            Self::Batches => format!("{broker} batches"),
        }
    }

    pub(crate) fn consumer(self, pool: PgPool, handler: Count) -> Outcome<Consumer> {
        let limits = Limits {
            concurrency: usize::try_from(CONCURRENCY)?,
            messages: MEMORY,
            ..Limits::default()
        };
        let builder = Consumer::builder("bench").pool(pool);
        let builder = self.with(builder, handler);
        Ok(builder.limits(limits).build()?)
    }

    fn with(self, builder: ConsumerBuilder, handler: Count) -> ConsumerBuilder {
        match self {
            Self::OneByOne => builder.handler("*", handler),
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

/// What lies in the database or in the broker besides. On Kafka alone: retries do not depend on the broker, and JetStream drops a second
/// copy itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nothing,
    /// Messages that wait for another attempt.
    Retries,
    /// A second copy of every tenth message.
    Copies,
}

impl Beside {
    const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "alone",
            Self::Retries => "retries",
            Self::Copies => "duplicates",
        }
    }
}

pub(crate) async fn measure(
    world: &World,
    arguments: &Arguments,
    results: &mut Results,
) -> Outcome {
    for _ in 0..arguments.repeats {
        let transactions = bare::transactions(&world.database().await?).await?;
        for broker in Broker::ALL {
            let one_by_one =
                measure_manner(world, broker, Manner::OneByOne, transactions, results).await?;
            measure_manner(world, broker, Manner::Batches, transactions, results).await?;
            let variant = Manner::Batches.variant(broker.name());
            let rate = ("rate", "msg/s");
            results.add(("W4", &variant), "one-by-one", rate, one_by_one);
        }
        spread::measure(world, results).await?;
    }
    Ok(())
}

/// Measures one manner on one broker, beside its ceilings, and on Kafka with what lies besides. Gives the rate of the run without that.
async fn measure_manner(
    world: &World,
    broker: Broker,
    manner: Manner,
    transactions: f64,
    results: &mut Results,
) -> Outcome<f64> {
    let variant = manner.variant(broker.name());
    let (at, rate) = (("W4", variant.as_str()), ("rate", "msg/s"));
    let messages = manner.messages();
    let route = broker.route(world).await?;
    publish(world, broker, batches(&route, messages)?).await?;
    let client = bare::receive(world, broker, &route, messages).await?;
    results.add(at, "raw-client", rate, client);
    match (manner, broker) {
        (Manner::OneByOne, _) => results.add(at, "bare-transaction", rate, transactions),
        (Manner::Batches, Broker::Kafka) => {
            let database = world.database().await?;
            let stored = bare::receive_and_store(world, &database, &route, messages).await?;
            results.add(at, "raw-client-stores", rate, stored);
        }
        (Manner::Batches, Broker::Nats) => {}
    }
    let alone = handle(world, broker, &route, manner, Beside::Nothing).await?;
    results.add(at, "onceward", rate, alone);
    if broker == Broker::Kafka {
        for beside in [Beside::Retries, Beside::Copies] {
            let with = rate_beside(world, &route, manner, beside).await?;
            let variant = format!("{variant} {}", beside.name());
            results.add(("W4", &variant), "onceward", rate, with);
            results.add(("W4", &variant), "without", rate, alone);
        }
    }
    broker.forget(world, &route).await?;
    Ok(alone)
}

/// The rate on Kafka with what lies besides.
async fn rate_beside(world: &World, route: &str, manner: Manner, beside: Beside) -> Outcome<f64> {
    match beside {
        Beside::Nothing | Beside::Retries => {
            return handle(world, Broker::Kafka, route, manner, beside).await;
        }
        Beside::Copies => {}
    }
    let route = Broker::Kafka.route(world).await?;
    let batches = batches(&route, manner.messages())?;
    let with_copies = batches.into_iter().flat_map(|batch| {
        let copies = batch.messages.iter().step_by(COPIED).cloned().collect();
        [batch, Arc::new(Batch { messages: copies })]
    });
    publish(world, Broker::Kafka, with_copies.collect()).await?;
    handle(world, Broker::Kafka, &route, manner, beside).await
}

/// How much of its ceiling one run on Kafka reaches: of the bare client's rate in batches, of the bare transaction's else.
pub(crate) async fn share(world: &World, manner: Manner) -> Outcome<f64> {
    let (broker, messages) = (Broker::Kafka, manner.messages());
    let route = broker.route(world).await?;
    publish(world, broker, batches(&route, messages)?).await?;
    let ceiling = match manner {
        Manner::Batches => bare::receive(world, broker, &route, messages).await?,
        Manner::OneByOne => bare::transactions(&world.database().await?).await?,
    };
    Ok(handle(world, broker, &route, manner, Beside::Nothing).await? / ceiling)
}

/// A pool that does not ask each connection whether it lives, as the page about consuming advises.
pub(crate) async fn pool(database: &Database) -> Outcome<PgPool> {
    let options = PgPoolOptions::new()
        .max_connections(CONCURRENCY + 10)
        .test_before_acquire(false);
    Ok(options.connect(database.url()).await?)
}

async fn handle(
    world: &World,
    broker: Broker,
    route: &str,
    manner: Manner,
    beside: Beside,
) -> Outcome<f64> {
    let database = world.database().await?;
    if beside == Beside::Retries {
        sqlx::raw_sql(RETRIES).execute(database.pool()).await?;
    }
    let group = unique(route);
    let tally = Tally::of(manner.messages());
    let consumer = manner.consumer(pool(&database).await?, Count(Arc::clone(&tally)))?;
    let stop = CancellationToken::new();
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
    let rate = tally.rate(database.pool()).await?;
    stop.cancel();
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    Ok(rate)
}

/// Puts messages on a route with the headers that a relay gives them.
async fn publish(world: &World, broker: Broker, batches: Vec<Arc<Batch>>) -> Outcome {
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

/// So many messages for a route.
pub(crate) fn batches(route: &str, messages: u64) -> Outcome<Vec<Arc<Batch>>> {
    let source = Source::try_from("/bench")?;
    let mut batches = Vec::new();
    for first in (0..messages).step_by(usize::try_from(CHUNK)?) {
        let mut batch = Batch::default();
        for n in first..messages.min(first + CHUNK) {
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
        batches.push(Arc::new(batch));
    }
    Ok(batches)
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub(crate) fn per_second(messages: u64, elapsed: Duration) -> f64 {
    messages as f64 / elapsed.as_secs_f64()
}

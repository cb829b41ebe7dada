//! What consuming cannot do without: a client that receives, a transaction that stores.

use std::time::Instant;

use futures_util::StreamExt;
use onceward_testkit::postgres::Database;
use onceward_testkit::unique;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use sqlx::PgPool;
use tokio::task::JoinSet;
use tokio::time::timeout;
use uuid::Uuid;

use super::{BATCH, BATCHES, CONCURRENCY, DEADLINE, per_second, pool};
use crate::broker::Broker;
use crate::outcome::Outcome;
use crate::world::World;

/// Transactions of one run.
const TRANSACTIONS: u64 = 30_000;

const TABLE: &str = "create table bare (id uuid primary key)";

/// The bare client receives and acks; nothing is handled.
pub(crate) async fn receive(
    world: &World,
    broker: Broker,
    route: &str,
    messages: u64,
) -> Outcome<f64> {
    let mut begun = None;
    match broker {
        Broker::Kafka => {
            let consumer = kafka(world, route)?;
            for _ in 0..messages {
                timeout(DEADLINE, consumer.recv()).await??;
                begun.get_or_insert_with(Instant::now);
            }
        }
        Broker::Nats => {
            let jetstream = async_nats::jetstream::new(world.nats_client().await?);
            let stream = jetstream.get_stream(route).await?;
            let config = async_nats::jetstream::consumer::pull::Config {
                durable_name: Some(unique(route)),
                max_ack_pending: 10_000,
                ..Default::default()
            };
            let mut received = stream.create_consumer(config).await?.messages().await?;
            for _ in 0..messages {
                let message = timeout(DEADLINE, received.next()).await?.ok_or("ended")??;
                begun.get_or_insert_with(Instant::now);
                message.ack().await?;
            }
        }
    }
    let begun = begun.ok_or("nothing was received")?;
    Ok(per_second(messages, begun.elapsed()))
}

/// The bare client on Kafka receives, and stores an id of each message: as many in a transaction, and as many transactions at a time, as
/// a consumer has in batches.
pub(crate) async fn receive_and_store(
    world: &World,
    database: &Database,
    route: &str,
    messages: u64,
) -> Outcome<f64> {
    let pool = pool(database).await?;
    sqlx::raw_sql(TABLE).execute(&pool).await?;
    let consumer = kafka(world, route)?;
    let mut storing: JoinSet<Outcome> = JoinSet::new();
    let mut ids = Vec::new();
    let mut begun = None;
    for n in 1..=messages {
        timeout(DEADLINE, consumer.recv()).await??;
        begun.get_or_insert_with(Instant::now);
        ids.push(Uuid::now_v7());
        if ids.len() == BATCH || n == messages {
            if storing.len() == BATCHES {
                storing.join_next().await.ok_or("nothing is stored")???;
            }
            storing.spawn(store(pool.clone(), std::mem::take(&mut ids)));
        }
    }
    while let Some(ended) = storing.join_next().await {
        ended??;
    }
    let begun = begun.ok_or("nothing was received")?;
    Ok(per_second(messages, begun.elapsed()))
}

async fn store(pool: PgPool, ids: Vec<Uuid>) -> Outcome {
    let mut transaction = pool.begin().await?;
    sqlx::query("insert into bare select unnest($1::uuid[])")
        .bind(ids)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(())
}

fn kafka(world: &World, route: &str) -> Outcome<StreamConsumer> {
    let consumer: StreamConsumer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", world.kafka.brokers())
        .set("group.id", unique(route))
        .set("auto.offset.reset", "earliest")
        // Once it has fetched enough it would wait for a second, in which what it has fetched may be used up.
        .set("fetch.queue.backoff.ms", "20")
        .create()?;
    consumer.subscribe(&[route])?;
    Ok(consumer)
}

/// The transactions that a consumer cannot do without: one row each, durable.
pub(crate) async fn transactions(database: &Database) -> Outcome<f64> {
    let pool = pool(database).await?;
    sqlx::raw_sql(TABLE).execute(&pool).await?;
    let begun = Instant::now();
    let mut tasks: JoinSet<Outcome> = JoinSet::new();
    for _ in 0..CONCURRENCY {
        let pool = pool.clone();
        tasks.spawn(async move {
            for _ in 0..TRANSACTIONS / u64::from(CONCURRENCY) {
                let mut transaction = pool.begin().await?;
                sqlx::query("insert into bare values ($1)")
                    .bind(Uuid::now_v7())
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
    Ok(per_second(TRANSACTIONS, begun.elapsed()))
}

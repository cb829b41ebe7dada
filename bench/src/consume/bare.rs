//! What consuming cannot do without: a client that receives, a transaction that stores.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt;
use onceward_testkit::postgres::Database;
use onceward_testkit::unique;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use sqlx::PgPool;
use tokio::task::JoinSet;
use tokio::time::timeout;
use uuid::Uuid;

use super::lot::{CHUNK, COPIED, Copies, Lot};
use super::tally::Handled;
use super::{BATCH, BATCHES, DEADLINE, Manner, pool};
use crate::broker::Broker;
use crate::cost::bytes_each;
use crate::outcome::Outcome;
use crate::producer::wal;
use crate::world::World;

const TABLE: &str = "create table bare (id uuid primary key)";

/// Stores an id once, however often it comes.
const STORE_ONE: &str = "insert into bare values ($1) on conflict do nothing";

/// The same of several.
const STORE: &str = "insert into bare select unnest($1::uuid[]) on conflict do nothing";

/// The bare client receives and acks; nothing is handled. It takes copies for messages.
pub(super) async fn receive(world: &World, lot: &Lot) -> Outcome<Handled> {
    let (meter, deliveries) = (world.meter(lot.broker), lot.messages + lot.copies);
    let mut clock = None;
    match lot.broker {
        Broker::Kafka => {
            let consumer = kafka(world, &lot.route)?;
            for _ in 0..deliveries {
                timeout(DEADLINE, consumer.recv()).await??;
                clock = Some(clock.map_or_else(|| meter.start(), Ok)?);
            }
        }
        Broker::Nats => {
            let jetstream = async_nats::jetstream::new(world.nats_client().await?);
            let stream = jetstream.get_stream(&lot.route).await?;
            let config = async_nats::jetstream::consumer::pull::Config {
                durable_name: Some(unique(&lot.route)),
                max_ack_pending: 10_000,
                ..Default::default()
            };
            let mut received = stream.create_consumer(config).await?.messages().await?;
            for _ in 0..deliveries {
                let message = timeout(DEADLINE, received.next()).await?.ok_or("ended")??;
                clock = Some(clock.map_or_else(|| meter.start(), Ok)?);
                message.ack().await?;
            }
        }
    }
    let stage = clock.ok_or("nothing was received")?.stop(lot.messages)?;
    Ok(Handled::by_client(stage).with_duplicates(lot.copies))
}

/// The bare client on Kafka receives, and stores an id of each message: as many in a transaction, and as many transactions at a time, as
/// a consumer has in batches.
pub(super) async fn receive_and_store(world: &World, lot: &Lot) -> Outcome<Handled> {
    let database = world.database().await?;
    let pool = pool(&database).await?;
    sqlx::raw_sql(TABLE).execute(&pool).await?;
    let before = wal(&pool).await?;
    let consumer = kafka(world, &lot.route)?;
    let mut storing: JoinSet<Outcome> = JoinSet::new();
    let mut ids = Vec::new();
    let mut clock = None;
    for n in 1..=lot.messages {
        timeout(DEADLINE, consumer.recv()).await??;
        clock = Some(clock.map_or_else(|| world.meter(lot.broker).start(), Ok)?);
        ids.push(Uuid::now_v7());
        if ids.len() == BATCH || n == lot.messages {
            if storing.len() == BATCHES {
                storing.join_next().await.ok_or("nothing is stored")???;
            }
            let (pool, ids) = (pool.clone(), std::mem::take(&mut ids));
            storing.spawn(async move { store(&pool, &ids).await });
        }
    }
    while let Some(ended) = storing.join_next().await {
        ended??;
    }
    let stage = clock.ok_or("nothing was received")?.stop(lot.messages)?;
    let written = wal(&pool).await? - before;
    let wal = bytes_each(written, lot.messages);
    Ok(Handled::stored_by_client(stage, wal))
}

/// The transactions that a consumer cannot do without, durable: one row for each message, in a transaction of its own or with those of
/// its batch, as many at a time as a consumer has. A copy finds its row there, and costs its place in a transaction.
pub(super) async fn transactions(
    world: &World,
    database: &Database,
    manner: Manner,
    copies: Copies,
) -> Outcome<Handled> {
    let pool = pool(database).await?;
    sqlx::raw_sql(TABLE).execute(&pool).await?;
    let messages = manner.messages();
    let (size, at_a_time) = manner.transactions();
    let mut transactions = Vec::new();
    for some in ids(messages, copies).chunks(size) {
        let mut some = some.to_vec();
        // Two that store the same ids would wait for each other in a circle, if each began elsewhere.
        some.sort_unstable();
        transactions.push(some);
    }
    let (transactions, next) = (Arc::new(transactions), Arc::new(AtomicUsize::new(0)));
    let before = wal(&pool).await?;
    let clock = world.meter_with(None).start()?;
    let mut tasks: JoinSet<Outcome> = JoinSet::new();
    for _ in 0..at_a_time {
        let (pool, next) = (pool.clone(), Arc::clone(&next));
        let transactions = Arc::clone(&transactions);
        tasks.spawn(async move {
            while let Some(ids) = transactions.get(next.fetch_add(1, Ordering::Relaxed)) {
                store(&pool, ids).await?;
            }
            Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let stage = clock.stop(messages)?;
    let written = wal(&pool).await? - before;
    Ok(Handled::transactions(stage, bytes_each(written, messages)))
}

/// The ids of so many messages, and of their copies where those come.
fn ids(messages: u64, copies: Copies) -> Vec<Uuid> {
    let mut ids = Vec::new();
    let mut left = messages;
    while left > 0 {
        let chunk: Vec<Uuid> = (0..left.min(CHUNK)).map(|_| Uuid::now_v7()).collect();
        left -= left.min(CHUNK);
        ids.extend(&chunk);
        match copies {
            Copies::None => {}
            Copies::EveryTenth => ids.extend(chunk.iter().step_by(COPIED)),
        }
    }
    ids
}

async fn store(pool: &PgPool, ids: &[Uuid]) -> Outcome {
    let mut transaction = pool.begin().await?;
    let statement = match ids {
        [id] => sqlx::query(STORE_ONE).bind(id),
        several => sqlx::query(STORE).bind(several),
    };
    statement.execute(&mut *transaction).await?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_ids_come_as_those_of_messages_do() {
        let ids = ids(1_500, Copies::EveryTenth);

        assert_eq!(ids.len(), 1_650);
        assert_eq!((ids[1_000], ids[1_001]), (ids[0], ids[10]));
        assert_eq!(ids[1_649], ids[1_100 + 490]);
    }
}

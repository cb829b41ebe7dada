//! W4: how fast messages are handled once, with a handler that does nothing: one by one, and in batches; beside the bare client
//! and the bare transaction, without copies and with a second copy of every tenth message.
//!
//! The clock runs from the first message until the last one is stored, for all of them: how long it takes to join a group is not measured.
//! Copies count in no rate. The CPU of a consumer is that of this process, in which little else happens meanwhile; its memory is not
//! told, as what the benchmark itself holds is in it.

pub(crate) mod bare;
pub(crate) mod lot;
mod manner;
pub(crate) mod tally;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use onceward_consumer::CancellationToken;
use onceward_kafka::{Kafka, KafkaConfig, KafkaSubscription};
use onceward_nats::{NatsConfig, NatsSubscriber, SubscriberConfig};
use onceward_testkit::postgres::Database;
use onceward_testkit::unique;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::task::JoinSet;

use self::lot::{Copies, Lot};
pub(crate) use self::manner::Manner;
use self::manner::{BATCH, BATCHES, CONCURRENCY};
use self::tally::{Count, Handled, Tally};
use crate::Arguments;
use crate::broker::Broker;
use crate::outcome::Outcome;
use crate::results::{OURS, Results};
use crate::world::World;
use crate::{spread, sqs};

/// A run that takes longer has failed.
pub(crate) const DEADLINE: Duration = Duration::from_secs(180);

const RATE: (&str, &str) = ("rate", "msg/s");

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

/// The bare transactions, which no broker has a part in.
pub(crate) type Transactions = BTreeMap<(Manner, Copies), Handled>;

/// What waits in the database besides. On Kafka alone: it does not depend on the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nothing,
    /// Messages that wait for another attempt.
    Retries,
}

pub(crate) async fn measure(
    world: &World,
    arguments: &Arguments,
    results: &mut Results,
) -> Outcome {
    for _ in 0..arguments.repeats {
        let transactions = transactions(world).await?;
        for broker in Broker::ALL {
            let mut without = Vec::new();
            for copies in Copies::BOTH {
                let bare = &transactions;
                let rates = measure_broker(world, (broker, copies), bare, results).await?;
                add_without(results, broker.name(), (copies, &mut without), rates);
            }
        }
        spread::measure(world, results).await?;
        sqs::measure(world, &transactions, results).await?;
    }
    Ok(())
}

/// The bare transactions in each manner, without copies and with them.
async fn transactions(world: &World) -> Outcome<Transactions> {
    let mut transactions = Transactions::new();
    for manner in Manner::ALL {
        for copies in Copies::BOTH {
            let database = world.database().await?;
            let stored = bare::transactions(world, &database, manner, copies).await?;
            transactions.insert((manner, copies), stored);
        }
    }
    Ok(transactions)
}

/// Both manners on one broker, each beside its ceilings. Gives the rates of ours.
async fn measure_broker(
    world: &World,
    (broker, copies): (Broker, Copies),
    transactions: &Transactions,
    results: &mut Results,
) -> Outcome<[f64; 2]> {
    let single = Lot::publish(world, broker, Manner::OneByOne.messages(), copies).await?;
    let many = Lot::publish(world, broker, Manner::Batches.messages(), copies).await?;
    // Of the larger lot for both: the smaller one is gone before its client is up to speed.
    let client = bare::receive(world, &many).await?;
    add_ceilings(results, broker.name(), copies, (&client, transactions));
    let alone = broker == Broker::Kafka && copies == Copies::None;
    if alone {
        let stored = bare::receive_and_store(world, &many).await?;
        let variant = Manner::Batches.variant(broker.name(), copies);
        stored.add_to(results, &variant, "raw-client-stores");
    }
    let mut rates = [0.0; 2];
    for ((manner, lot), rate) in Manner::ALL
        .into_iter()
        .zip([&single, &many])
        .zip(&mut rates)
    {
        let variant = manner.variant(broker.name(), copies);
        let handled = handle(world, lot, manner, Beside::Nothing).await?;
        handled.add_to(results, &variant, OURS);
        *rate = handled.rate;
        if alone {
            let variant = format!("{variant} retries");
            let beside = handle(world, lot, manner, Beside::Retries).await?;
            beside.add_to(results, &variant, OURS);
            results.add(("W4", &variant), "without", RATE, handled.rate);
        }
    }
    single.forget(world).await?;
    many.forget(world).await?;
    Ok(rates)
}

/// What bounds both manners: the client and the transactions.
pub(crate) fn add_ceilings(
    results: &mut Results,
    broker: &str,
    copies: Copies,
    (client, transactions): (&Handled, &Transactions),
) {
    for manner in Manner::ALL {
        let variant = manner.variant(broker, copies);
        client.add_to(results, &variant, "raw-client");
        if let Some(stored) = transactions.get(&(manner, copies)) {
            stored.add_to(results, &variant, "bare-transaction");
        }
    }
}

/// The rates of ours that stand beside others of ours: one by one beside batches, and what is without copies beside what is with them.
pub(crate) fn add_without(
    results: &mut Results,
    broker: &str,
    (copies, without): (Copies, &mut Vec<f64>),
    rates: [f64; 2],
) {
    let [one_by_one, _] = rates;
    match copies {
        Copies::None => {
            let variant = Manner::Batches.variant(broker, copies);
            results.add(("W4", &variant), "one-by-one", RATE, one_by_one);
            without.extend(rates);
        }
        Copies::EveryTenth => {
            for (manner, rate) in Manner::ALL.into_iter().zip(without.drain(..)) {
                let variant = manner.variant(broker, copies);
                results.add(("W4", &variant), "without", RATE, rate);
            }
        }
    }
}

/// How much of its ceiling one run on Kafka reaches: of the bare client's rate in batches, of the bare transaction's else.
pub(crate) async fn share(world: &World, manner: Manner) -> Outcome<f64> {
    let lot = Lot::publish(world, Broker::Kafka, manner.messages(), Copies::None).await?;
    let ceiling = match manner {
        Manner::Batches => bare::receive(world, &lot).await?,
        Manner::OneByOne => {
            let database = world.database().await?;
            bare::transactions(world, &database, manner, Copies::None).await?
        }
    };
    let handled = handle(world, &lot, manner, Beside::Nothing).await?;
    Ok(handled.rate / ceiling.rate)
}

/// A pool that does not ask each connection whether it lives, as the page about consuming advises.
pub(crate) async fn pool(database: &Database) -> Outcome<PgPool> {
    let options = PgPoolOptions::new()
        .max_connections(CONCURRENCY + 10)
        .test_before_acquire(false);
    Ok(options.connect(database.url()).await?)
}

async fn handle(world: &World, lot: &Lot, manner: Manner, beside: Beside) -> Outcome<Handled> {
    let database = world.database().await?;
    if beside == Beside::Retries {
        sqlx::raw_sql(RETRIES).execute(database.pool()).await?;
    }
    let (group, route) = (unique(&lot.route), lot.route.as_str());
    let tally = Tally::of(lot.messages, world.meter(lot.broker));
    let consumer = manner.consumer(pool(&database).await?, Count(Arc::clone(&tally)))?;
    let stop = CancellationToken::new();
    let mut running = JoinSet::new();
    match lot.broker {
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
    tally.watch(database.pool(), &stop, running).await
}

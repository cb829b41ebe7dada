//! Onceward in one file: orders are written with their events, published to a broker in memory, and billed once.
//!
//! It needs a PostgreSQL and nothing else: `DATABASE_URL=postgres://… cargo run -p quickstart`.

use std::env;
use std::error::Error;
use std::time::Duration;

use onceward::{LogDatabase, Message, Outbox, Schema};
use onceward_consumer::{CancellationToken, Consumer, HandlerError, Tx};
use onceward_core::Source;
use onceward_memory::MemoryBroker;
use onceward_relay::{Relay, StreamSettings};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use uuid::Uuid;

const TOPIC: &str = "orders.created";
/// Who orders here; messages with one key keep their order.
const CUSTOMER: &str = "ada";

const TABLES: &str = "
    create schema if not exists quickstart;
    create table if not exists quickstart.orders (id uuid primary key, cents bigint not null);
    create table if not exists quickstart.invoices (order_id uuid not null, cents bigint not null);
";

/// What is told of an order.
#[derive(Debug, Serialize, Deserialize)]
struct OrderCreated {
    order: Uuid,
    cents: i64,
}

/// The service: writes an order and its event in one transaction.
async fn create_order(pool: &PgPool, outbox: &Outbox, cents: i64) -> Result<Uuid, Box<dyn Error>> {
    let order = Uuid::now_v7();
    let mut transaction = pool.begin().await?;
    sqlx::query("insert into quickstart.orders (id, cents) values ($1, $2)")
        .bind(order)
        .bind(cents)
        .execute(&mut *transaction)
        .await?;
    let event = Message::json(TOPIC, &OrderCreated { order, cents })?.key(CUSTOMER);
    outbox.enqueue(&mut transaction, event).await?;
    transaction.commit().await?;
    Ok(order)
}

/// The handler: what it writes is committed together with the mark that the message is done.
async fn write_invoice(event: OrderCreated, tx: &mut Tx) -> Result<(), HandlerError> {
    sqlx::query("insert into quickstart.invoices (order_id, cents) values ($1, $2)")
        .bind(event.order)
        .bind(event.cents)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = env::var("DATABASE_URL").map_err(|_| "set DATABASE_URL to a PostgreSQL")?;
    let pool = PgPool::connect(&url).await?;
    drop(onceward_migrations::run(&pool).await?);
    sqlx::raw_sql(TABLES).execute(&pool).await?;

    // The relay, which is a program of its own elsewhere: publishes what was committed.
    let broker = MemoryBroker::new();
    let stop = CancellationToken::new();
    let database = LogDatabase::new(url.parse()?, Schema::default());
    let stream = StreamSettings::new("quickstart", Source::try_from("/quickstart/orders")?);
    let relay = Relay::new(database).stream(stream, broker.clone());
    let relay = tokio::spawn(relay.run(stop.clone()));

    // The consumer, which is another service elsewhere, with a database of its own.
    let consumer = Consumer::builder("quickstart")
        .pool(pool.clone())
        .on(TOPIC, write_invoice)
        .build()?;
    let member = broker.subscriber("quickstart", &[TOPIC]);
    let consumer = tokio::spawn(consumer.run(member, stop.clone()));

    let outbox = Outbox::new();
    let first = create_order(&pool, &outbox, 1999).await?;
    println!(
        "order {first} is committed; invoices: {}",
        invoices(&pool, first).await?
    );

    // Brokers deliver again when an answer is lost. So does this one now.
    for record in broker.stored(TOPIC) {
        broker.put(TOPIC, record.headers, record.payload)?;
    }
    // One more order of the same customer, behind the copy: when it has its invoice, the copy was settled.
    let second = create_order(&pool, &outbox, 500).await?;
    println!(
        "order {second} is committed; invoices: {}",
        invoices(&pool, second).await?
    );

    let deliveries = broker.stored(TOPIC).len();
    let of_first = invoices(&pool, first).await?;
    println!("{deliveries} deliveries of 2 orders; invoices of the first one: {of_first}");

    stop.cancel();
    relay.await??;
    consumer.await??;
    Ok(())
}

/// How many invoices an order has, as soon as it has any.
async fn invoices(pool: &PgPool, order: Uuid) -> Result<i64, Box<dyn Error>> {
    for _ in 0..1_000 {
        let count: i64 =
            sqlx::query_scalar("select count(*) from quickstart.invoices where order_id = $1")
                .bind(order)
                .fetch_one(pool)
                .await?;
        if count > 0 {
            return Ok(count);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err("there is no invoice after 20 s".into())
}

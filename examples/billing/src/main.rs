//! A billing service: writes one invoice for each `orders.created`, however often the broker delivers it.
//!
//! Configuration: `DATABASE_URL`; `BROKER` (`nats`, `kafka` or `sqs`); `NATS_URL`, `KAFKA_BROKERS`, or `QUEUE` and the usual
//! variables of AWS; optional `METRICS_LISTEN` for Prometheus, and `FAIL_ONE_IN` to let about one attempt in so many fail.

use std::env;
use std::error::Error;
use std::time::Duration;

use onceward_consumer::{CancellationToken, Consumer, HandlerError, Tx};
use onceward_kafka::{Kafka, KafkaConfig, KafkaSubscriber, KafkaSubscription};
use onceward_nats::{NatsConfig, NatsSubscriber, SubscriberConfig};
use onceward_sqs::{Sqs, SqsConfig, SqsSubscriber};
use serde::Deserialize;
use sqlx::postgres::PgPoolOptions;
use tokio::signal::unix::{SignalKind, signal};
use uuid::Uuid;

/// The name of the consumer: its marks and its place at the broker are kept under it.
const CONSUMER: &str = "billing";
const ORDERS: &str = "orders.created";

/// The payload of `orders.created`, as far as billing cares.
#[derive(Debug, Deserialize)]
struct OrderCreated {
    id: Uuid,
    customer: String,
    cents: i64,
}

/// What the handler is given besides the event.
#[derive(Debug, Clone, Copy)]
struct Billing {
    fail_one_in: Option<u32>,
}

async fn write_invoice(
    billing: Billing,
    order: OrderCreated,
    tx: &mut Tx,
) -> Result<(), HandlerError> {
    sqlx::query("insert into billing.invoices (order_id, customer, cents) values ($1, $2, $3)")
        .bind(order.id)
        .bind(&order.customer)
        .bind(order.cents)
        .execute(&mut **tx)
        .await?;
    if billing
        .fail_one_in
        .is_some_and(|n| fastrand::u32(0..n.max(1)) == 0)
    {
        // The invoice above is rolled back with this attempt, and the next one writes it.
        return Err("the archive did not answer".into());
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().init();
    if let Ok(listen) = env::var("METRICS_LISTEN") {
        metrics_exporter_prometheus::PrometheusBuilder::new()
            .with_http_listener(listen.parse::<std::net::SocketAddr>()?)
            .install()?;
    }
    let pool = PgPoolOptions::new()
        .max_connections(26)
        .connect(&setting("DATABASE_URL")?)
        .await?;
    sqlx::raw_sql(include_str!("../schema.sql"))
        .execute(&pool)
        .await?;

    let billing = Billing {
        fail_one_in: env::var("FAIL_ONE_IN").ok().and_then(|n| n.parse().ok()),
    };
    let consumer = Consumer::builder(CONSUMER)
        .pool(pool)
        .on_with(ORDERS, billing, write_invoice)
        .build()?;
    let stop = stop_on_sigterm()?;
    match setting("BROKER")?.as_str() {
        "nats" => consumer.run(nats().await?, stop).await?,
        "kafka" => consumer.run(kafka()?, stop).await?,
        "sqs" => consumer.run(sqs().await?, stop).await?,
        other => return Err(format!("BROKER={other} is unknown: nats, kafka or sqs").into()),
    }
    Ok(())
}

/// On NATS the members share the subjects over which the relay spreads the topic, by `route = "{topic}.{partition/6}"`.
async fn nats() -> Result<NatsSubscriber, Box<dyn Error>> {
    let server = NatsConfig::new([setting("NATS_URL")?]);
    let mut reads = SubscriberConfig::new(CONSUMER, [format!("{ORDERS}.{{partition/6}}")]);
    reads.takeover_after = Duration::from_secs(2);
    Ok(NatsSubscriber::join(&server, reads).await?)
}

/// On Kafka the members share the partitions.
fn kafka() -> Result<KafkaSubscriber, Box<dyn Error>> {
    let cluster =
        KafkaConfig::new(setting("KAFKA_BROKERS")?).property("session.timeout.ms", "6000");
    let reads = KafkaSubscription::new(CONSUMER, [ORDERS]);
    Ok(Kafka::new(cluster)?.subscriber(reads)?)
}

/// On SQS the members share the keys: a key's messages go to one member at a time. What one that was killed held comes again
/// once its time has run out.
async fn sqs() -> Result<SqsSubscriber, Box<dyn Error>> {
    let mut reads = onceward_sqs::SubscriberConfig::new([setting("QUEUE")?]);
    reads.visibility = Duration::from_secs(5);
    Ok(Sqs::new(SqsConfig::new()).subscriber(reads).await?)
}

fn setting(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("set {name}"))
}

/// What runs is finished before the process ends. Correctness does not depend on it: what is cut off comes again.
fn stop_on_sigterm() -> Result<CancellationToken, std::io::Error> {
    let stop = CancellationToken::new();
    let (stopping, mut term) = (stop.clone(), signal(SignalKind::terminate())?);
    tokio::spawn(async move {
        term.recv().await;
        stopping.cancel();
    });
    Ok(stop)
}

#[cfg(test)]
mod tests;

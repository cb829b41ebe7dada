//! Outbox-core, with its storage for PostgreSQL and its transport to Kafka, as a program: what `make bench-peers` measures.
//!
//! Settings come from the environment: `DATABASE_URL`, `BROKERS`, `TOPIC`. Batches of 1,000 events, a poll each second beside the
//! notifications of the table's trigger, `acks=all`, no linger, as each event is sent and waited for.

use std::sync::Arc;

use outbox_core::prelude::{OutboxConfig, OutboxManagerBuilder};
use outbox_kafka::{KafkaKeyExtractable, KafkaTransport};
use outbox_postgres::PostgresOutbox;
use rdkafka::ClientConfig;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgPoolOptions;
use tokio::sync::watch;

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// Events that are fetched at a time.
const BATCH: u32 = 1_000;

/// Connections to the database, at most.
const CONNECTIONS: u32 = 10;

/// The payload of an event, as the benchmark writes it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Payload {
    id: String,
    key: String,
    note: String,
}

impl KafkaKeyExtractable for Payload {
    fn kafka_key(&self) -> Vec<u8> {
        self.key.as_bytes().to_vec()
    }
}

fn setting(name: &str) -> Outcome<String> {
    std::env::var(name).map_err(|error| format!("{name}: {error}").into())
}

#[tokio::main]
async fn main() -> Outcome {
    let pool = PgPoolOptions::new().max_connections(CONNECTIONS);
    let pool = pool.connect(&setting("DATABASE_URL")?).await?;
    let mut config = OutboxConfig::<Payload>::default();
    config.batch_size = BATCH;
    config.poll_interval_secs = 1;
    let config = Arc::new(config);
    let mut client = ClientConfig::new();
    client
        .set("bootstrap.servers", setting("BROKERS")?)
        .set("acks", "all")
        .set("linger.ms", "0");
    let transport = KafkaTransport::new(&setting("TOPIC")?, &client)?;
    let (_never, stop) = watch::channel(false);
    let manager = OutboxManagerBuilder::new()
        .storage(Arc::new(PostgresOutbox::new(pool, Arc::clone(&config))))
        .publisher(Arc::new(transport))
        .config(config)
        .shutdown_rx(stop)
        .build()?;
    manager.run().await?;
    Ok(())
}

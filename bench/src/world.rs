//! The servers that everything is measured on: real ones, on loopback, with durable commits.

use onceward_testkit::kafka::{self, Kafka};
use onceward_testkit::nats::{self, Nats};
use onceward_testkit::postgres::{self, Database, Postgres};

use crate::outcome::Outcome;

/// The servers.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) postgres: Postgres,
    pub(crate) nats: Nats,
    pub(crate) kafka: Kafka,
}

impl World {
    pub(crate) async fn start() -> Self {
        eprintln!("starting PostgreSQL, NATS and Kafka …");
        let options = postgres::Options::default()
            .config("shared_buffers", "1GB")
            .config("max_wal_size", "8GB")
            .config("checkpoint_timeout", "30min");
        Self {
            postgres: Postgres::start(options).await,
            nats: Nats::start(nats::Options::default()).await,
            kafka: Kafka::start(kafka::Options::default()).await,
        }
    }

    /// A fresh database with Onceward's tables.
    pub(crate) async fn database(&self) -> Outcome<Database> {
        let database = self.postgres.database().await;
        onceward_migrations::run(database.pool()).await?;
        Ok(database)
    }
}

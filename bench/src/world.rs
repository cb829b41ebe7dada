//! The servers that everything is measured on: real ones, on loopback, with durable commits.

use std::time::Duration;

use onceward_testkit::free_port;
use onceward_testkit::kafka::{self, Kafka};
use onceward_testkit::nats::{self, Nats};
use onceward_testkit::postgres::{self, Database, Postgres};
use onceward_testkit::proxy::Proxy;

use crate::broker::Broker;
use crate::cost::Meter;
use crate::outcome::Outcome;

/// The servers.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) postgres: Postgres,
    pub(crate) kafka: Kafka,
    nats: Nats,
    distance: Option<Distance>,
}

/// Proxies that make servers distant.
#[derive(Debug)]
struct Distance {
    postgres: Proxy,
    kafka: Proxy,
    nats: Proxy,
}

impl World {
    /// Everything on loopback.
    pub(crate) async fn start() -> Self {
        eprintln!("starting PostgreSQL, NATS and Kafka …");
        Self {
            postgres: Self::postgres(&[]).await,
            kafka: Kafka::start(Self::kafka()).await,
            nats: Nats::start(nats::Options::default()).await,
            distance: None,
        }
    }

    /// The same behind proxies, which delay nothing yet.
    pub(crate) async fn start_distant() -> Self {
        eprintln!("starting PostgreSQL, NATS and Kafka behind proxies …");
        let (postgres, nats) = (
            Self::postgres(&[]).await,
            Nats::start(nats::Options::default()).await,
        );
        // Kafka tells its clients where to connect.
        let port = free_port();
        let options = kafka::Options {
            advertised_port: Some(port),
            ..Self::kafka()
        };
        let kafka = Kafka::start(options).await;
        let distance = Distance {
            postgres: Proxy::to(postgres.port()).await,
            kafka: Proxy::on(port, kafka.port()).await,
            nats: Proxy::to(nats.port()).await,
        };
        Self {
            postgres,
            kafka,
            nats,
            distance: Some(distance),
        }
    }

    fn kafka() -> kafka::Options {
        kafka::Options::default().java(kafka::Java::Serving)
    }

    /// A server with settings like those of a small production one, and more of them.
    pub(crate) async fn postgres(more: &[(&str, &str)]) -> Postgres {
        let options = postgres::Options::default()
            .config("shared_buffers", "1GB")
            .config("max_wal_size", "8GB")
            .config("checkpoint_timeout", "30min");
        let set =
            |options: postgres::Options, (name, value): &(&str, &str)| options.config(name, value);
        Postgres::start(more.iter().fold(options, set)).await
    }

    /// How far the brokers and PostgreSQL are from the relay, each way. Only for a world that was started distant.
    pub(crate) fn set_distance(&self, brokers: Duration, postgres: Duration) {
        if let Some(distance) = &self.distance {
            distance.kafka.delay(brokers);
            distance.nats.delay(brokers);
            distance.postgres.delay(postgres);
        }
    }

    /// A fresh database with Onceward's tables.
    pub(crate) async fn database(&self) -> Outcome<Database> {
        let database = self.postgres.database().await;
        onceward_migrations::run(database.pool()).await?;
        Ok(database)
    }

    /// The URL by which the relay is to reach a database.
    pub(crate) fn relays_url(&self, database: &Database) -> String {
        match &self.distance {
            None => database.url().to_owned(),
            Some(distance) => {
                let port = distance.postgres.port();
                format!("postgres://postgres@127.0.0.1:{port}/{}", database.name())
            }
        }
    }

    pub(crate) fn nats_url(&self) -> String {
        match &self.distance {
            None => self.nats.url().to_owned(),
            Some(distance) => format!("nats://{}", distance.nats.addr()),
        }
    }

    pub(crate) async fn nats_client(&self) -> Outcome<async_nats::Client> {
        Ok(async_nats::connect(self.nats_url()).await?)
    }

    /// Looks at PostgreSQL and at a broker.
    pub(crate) fn meter(&self, broker: Broker) -> Meter {
        let broker = match broker {
            Broker::Kafka => self.kafka.pid(),
            Broker::Nats => self.nats.pid(),
        };
        self.meter_with(Some(broker))
    }

    /// Looks at PostgreSQL, and at the process of another broker if there is one.
    pub(crate) fn meter_with(&self, broker: Option<u32>) -> Meter {
        Meter::of(self.postgres.pid(), broker)
    }
}

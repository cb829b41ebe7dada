//! The servers of the demo: PostgreSQL with two databases, and a broker with a place for orders.

use std::time::Duration;

use async_nats::jetstream;
use onceward_testkit::kafka::{self, Kafka};
use onceward_testkit::ledger::Tap;
use onceward_testkit::nats::{self, Nats};
use onceward_testkit::postgres::{self, Postgres};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use crate::Failure;
use crate::settings::Broker;

/// What the order service calls its event; also the name of the Kafka topic and of the NATS subject.
pub(crate) const TOPIC: &str = "orders.created";
const STREAM: &str = "ORDERS";
const PARTITIONS: u16 = 6;

/// Running servers. They end when this is dropped.
#[derive(Debug)]
pub(crate) struct Servers {
    /// The order service's database.
    pub(crate) shop: PgPool,
    /// The billing service's database.
    pub(crate) billing: PgPool,
    pub(crate) shop_url: String,
    pub(crate) billing_url: String,
    pub(crate) broker: RunningBroker,
    _postgres: Postgres,
}

/// The broker that was chosen.
#[derive(Debug)]
pub(crate) enum RunningBroker {
    Nats(Nats),
    Kafka(Kafka),
}

impl Servers {
    /// Starts everything. Says what it does through `say`.
    pub(crate) async fn start(broker: Broker, say: impl Fn(&str)) -> Result<Self, Failure> {
        say("starting PostgreSQL");
        let postgres = Postgres::start(postgres::Options::default()).await;
        let admin = connect(&postgres.url("postgres")).await?;
        sqlx::raw_sql("create database shop")
            .execute(&admin)
            .await?;
        sqlx::raw_sql("create database billing")
            .execute(&admin)
            .await?;
        let (shop_url, billing_url) = (postgres.url("shop"), postgres.url("billing"));
        say(&format!("starting {broker}"));
        Ok(Self {
            shop: connect(&shop_url).await?,
            billing: connect(&billing_url).await?,
            shop_url,
            billing_url,
            broker: RunningBroker::start(broker).await?,
            _postgres: postgres,
        })
    }
}

impl RunningBroker {
    async fn start(broker: Broker) -> Result<Self, Failure> {
        match broker {
            Broker::Nats => {
                let nats = Nats::start(nats::Options::default()).await;
                let stream = jetstream::stream::Config {
                    name: STREAM.to_owned(),
                    subjects: vec!["orders.>".to_owned()],
                    ..Default::default()
                };
                let jetstream = jetstream::new(nats.client().await);
                jetstream.create_stream(stream).await?;
                Ok(Self::Nats(nats))
            }
            Broker::Kafka => {
                let kafka = Kafka::start(kafka::Options::default()).await;
                kafka.create_topic(TOPIC, PARTITIONS, &[]).await;
                Ok(Self::Kafka(kafka))
            }
        }
    }

    /// A tap that reads the broker with a plain client.
    pub(crate) fn tap(&self) -> Tap {
        match self {
            Self::Nats(nats) => Tap::nats(nats.url(), &[STREAM]),
            Self::Kafka(kafka) => Tap::kafka(kafka.brokers(), &[TOPIC]),
        }
    }

    /// What clients connect to.
    pub(crate) fn address(&self) -> &str {
        match self {
            Self::Nats(nats) => nats.url(),
            Self::Kafka(kafka) => kafka.brokers(),
        }
    }

    /// The destination in the relay's configuration.
    pub(crate) fn section(&self) -> String {
        let address = self.address();
        match self {
            Self::Nats(_) => format!("[streams.events.nats]\nservers = [{address:?}]\n"),
            Self::Kafka(_) => format!("[streams.events.kafka]\nbrokers = {address:?}\n"),
        }
    }
}

async fn connect(url: &str) -> Result<PgPool, sqlx::Error> {
    PgPoolOptions::new()
        .max_connections(4)
        .acquire_timeout(Duration::from_secs(10))
        .connect(url)
        .await
}

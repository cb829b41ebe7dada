//! The servers of the demo: PostgreSQL with two databases, and a broker with a place for orders.

use std::time::Duration;

use async_nats::jetstream;
use onceward_testkit::kafka::{self, Kafka};
use onceward_testkit::ledger::Tap;
use onceward_testkit::nats::{self, Nats};
use onceward_testkit::postgres::{self, Postgres};
use onceward_testkit::sqs::{Gate, Sqs};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use crate::Failure;
use crate::settings::Broker;

/// What the order service calls its event; also the name of the Kafka topic and of the NATS subject.
pub(crate) const TOPIC: &str = "orders.created";
const STREAM: &str = "ORDERS";
/// A topic with a dot is no name of a queue.
pub(crate) const QUEUE: &str = "orders.fifo";
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
    /// The relays send through the gate, which keeps what the ledger reads: a queue cannot be read without consuming it.
    Sqs {
        sqs: Sqs,
        gate: Gate,
    },
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
            Broker::Sqs => {
                let sqs = Sqs::start().await;
                sqs.create_queue(QUEUE, &[]).await;
                let gate = Gate::to(sqs.port()).await;
                Ok(Self::Sqs { sqs, gate })
            }
        }
    }

    /// A tap that reads the broker with a plain client.
    pub(crate) fn tap(&self) -> Tap {
        match self {
            Self::Nats(nats) => Tap::nats(nats.url(), &[STREAM]),
            Self::Kafka(kafka) => Tap::kafka(kafka.brokers(), &[TOPIC]),
            Self::Sqs { gate, .. } => Tap::sqs(gate, &[QUEUE]),
        }
    }

    /// The destination in the relay's configuration.
    pub(crate) fn section(&self) -> String {
        match self {
            Self::Nats(nats) => format!(
                "route = \"{{topic}}.{{partition/{PARTITIONS}}}\"   # a subject each, which the consumers share\n\n\
                 [streams.events.nats]\nservers = [{:?}]\n",
                nats.url()
            ),
            Self::Kafka(kafka) => {
                format!("[streams.events.kafka]\nbrokers = {:?}\n", kafka.brokers())
            }
            Self::Sqs { gate, .. } => format!(
                "[streams.events.routes]\n{TOPIC:?} = {QUEUE:?}\n\
                 [streams.events.sqs]\nregion = \"us-east-1\"\nendpoint_url = {:?}\n\
                 access_key_id = \"demo\"\nsecret_access_key = \"demo\"\n",
                gate.url()
            ),
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

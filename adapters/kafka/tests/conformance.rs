//! Kafka passes the suite that every adapter passes.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a harness fails its test by panicking"
)]

mod support;

use std::time::Duration;

use bytes::Bytes;
use onceward_conformance::{Control, Harness, Member, Offer, Record, Sharing};
use onceward_core::{Route, SubscribeError};
use onceward_kafka::{Kafka, KafkaConfig, KafkaPublisher, KafkaSubscriber, KafkaSubscription};
use onceward_testkit::kafka::{Kafka as Broker, Options};
use onceward_testkit::proxy::Proxy;
use onceward_testkit::{free_port, unique};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use support::{PATIENCE, alter, forget_all_but, records};
use tokio::sync::Mutex;

/// Brokers that need no limit take the suite's largest message.
const NO_LIMIT: &str = "2000000";

/// The shortest time that a broker waits for a silent member, unless it is set up otherwise.
const SHORTEST_HOLD: Duration = Duration::from_secs(6);

struct OnKafka {
    server: Server,
    /// Groups of other runs on the same broker must not be met.
    run: String,
}

enum Server {
    Shared(&'static Broker),
    /// All connections go through the proxy.
    Own {
        broker: Box<Broker>,
        proxy: Mutex<Proxy>,
    },
}

impl OnKafka {
    fn broker(&self) -> &Broker {
        match &self.server {
            Server::Shared(broker) => broker,
            Server::Own { broker, .. } => broker,
        }
    }

    fn kafka(&self, deadline: Duration, hold: Duration) -> Kafka {
        let hold = hold.max(SHORTEST_HOLD).as_millis().to_string();
        let config = KafkaConfig::new(self.broker().brokers())
            .deadline(deadline)
            .property("session.timeout.ms", hold)
            .property("heartbeat.interval.ms", "1000");
        Kafka::new(config).unwrap()
    }

    async fn put(&self, route: &Route, record: &Record) {
        let producer: FutureProducer = ClientConfig::new()
            .set("bootstrap.servers", self.broker().brokers())
            .create()
            .unwrap();
        let mut headers = OwnedHeaders::new();
        for (key, value) in &record.headers {
            headers = headers.insert(Header {
                key,
                value: Some(&value[..]),
            });
        }
        let mut foreign = FutureRecord::to(route.as_str())
            .payload(&record.payload[..])
            .headers(headers);
        foreign.key = record.key.as_deref();
        producer.send(foreign, PATIENCE).await.unwrap();
    }
}

impl Harness for OnKafka {
    type Publisher = KafkaPublisher;
    type Subscriber = KafkaSubscriber;

    async fn start(sharing: Sharing) -> Self {
        let server = match sharing {
            Sharing::Shared => Server::Shared(Broker::shared().await),
            Sharing::Own => {
                let advertised = free_port();
                let options = Options {
                    advertised_port: Some(advertised),
                    ..Options::default()
                };
                let broker = Box::new(Broker::start(options).await);
                let proxy = Mutex::new(Proxy::on(advertised, broker.port()).await);
                Server::Own { broker, proxy }
            }
        };
        Self {
            server,
            run: unique("run"),
        }
    }

    async fn route(&self, partitions: u16) -> Route {
        let route = unique("route");
        let settings = [("max.message.bytes", NO_LIMIT)];
        match &self.server {
            Server::Shared(broker) => broker.create_topic(&route, partitions, &settings).await,
            Server::Own { broker, .. } => {
                broker
                    .create_topic_short_of_a_replica(&route, partitions, &settings)
                    .await;
            }
        }
        Route::new(&route)
    }

    async fn publisher(&self, deadline: Duration) -> KafkaPublisher {
        self.kafka(deadline, SHORTEST_HOLD).publisher()
    }

    async fn subscriber(&self, member: &Member) -> Result<KafkaSubscriber, SubscribeError> {
        let group = format!("{}-{}", self.run, member.group);
        let topics = member.routes.iter().map(Route::as_str);
        let kafka = self.kafka(PATIENCE, member.hold);
        kafka.subscriber(KafkaSubscription::new(group, topics))
    }

    async fn stored(&self, route: &Route) -> Vec<Record> {
        let found = records(self.broker().brokers(), route.as_str()).await;
        let found = found.into_iter().map(|record| Record {
            key: record.key.map(Bytes::from),
            headers: record.headers,
            payload: Bytes::from(record.payload),
        });
        found.collect()
    }

    async fn control(&self, control: Control<'_>) -> Offer {
        let brokers = self.broker().brokers();
        match (control, &self.server) {
            (Control::Stop, Server::Own { broker, .. }) => broker.kill(),
            (Control::Start, Server::Own { broker, .. }) => broker.start_again().await,
            (Control::Withhold(true), Server::Own { proxy, .. }) => {
                proxy.lock().await.swallow_answers()
            }
            (Control::Withhold(false), Server::Own { proxy, .. }) => {
                proxy.lock().await.heal().await
            }
            (Control::Limit { route, bytes }, _) => {
                let bytes = bytes.to_string();
                alter(brokers, route.as_str(), &[("max.message.bytes", &bytes)]).await;
            }
            (Control::Full { route, full }, Server::Own { .. }) => {
                // The second replica is never in sync: the broker refuses for as long as it must be.
                let in_sync = if full { "2" } else { "1" };
                let settings = [
                    ("max.message.bytes", NO_LIMIT),
                    ("min.insync.replicas", in_sync),
                ];
                alter(brokers, route.as_str(), &settings).await;
            }
            (Control::Forget { route, keep }, _) => {
                forget_all_but(brokers, route.as_str(), i64::try_from(keep).unwrap()).await;
            }
            (Control::Put { route, record }, _) => self.put(route, record).await,
            (
                Control::Full { .. } | Control::Stop | Control::Start | Control::Withhold(_),
                Server::Shared(_),
            )
            | (Control::Misconfigure(_), _) => return Offer::NotOffered,
        }
        Offer::Done
    }
}

onceward_conformance::suite!(OnKafka);

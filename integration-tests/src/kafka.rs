//! Kafka (KRaft, one node): a shared broker, and brokers of a test's own to kill and to start again.

mod absent;
mod broker;

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use tokio::sync::OnceCell;

use crate::{elsewhere, wait};
use broker::Broker;

const TOPIC_TAKES_AT_MOST: Duration = Duration::from_secs(30);

/// Settings of a broker of the test's own.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// More lines for `server.properties`, such as `("message.max.bytes", "2000000")`. They win over the testkit's own.
    pub config: Vec<(String, String)>,
    /// The port that clients are told to use, when they come through a proxy. The proxy must listen before a topic
    /// is created, as that goes through it too.
    pub advertised_port: Option<u16>,
    /// What the broker's Java machine is made for.
    pub java: Java,
}

/// What a Java machine is made for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Java {
    /// To be there soon and to take little memory: for tests.
    #[default]
    Starting,
    /// To serve for long, as Kafka's own start script sets it: for measurements.
    Serving,
}

impl Java {
    const fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Starting => &[
                "-Xms64m",
                "-Xmx256m",
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
            ],
            Self::Serving => &[
                "-Xms1g",
                "-Xmx1g",
                "-server",
                "-XX:+UseG1GC",
                "-XX:MaxGCPauseMillis=20",
                "-XX:InitiatingHeapOccupancyPercent=35",
                "-XX:+ExplicitGCInvokesConcurrent",
            ],
        }
    }
}

impl Options {
    /// Adds a line to `server.properties`.
    #[must_use]
    pub fn config(mut self, name: &str, value: &str) -> Self {
        self.config.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets what the broker's Java machine is made for.
    #[must_use]
    pub fn java(mut self, java: Java) -> Self {
        self.java = java;
        self
    }
}

/// A running Kafka broker, plaintext, on loopback. Ends when it is dropped.
#[derive(Debug)]
pub struct Kafka {
    /// None: it runs elsewhere and is not ours to stop.
    broker: Option<Broker>,
    brokers: String,
}

impl Kafka {
    /// The broker that all tests of this process share: the one of `ONCEWARD_TEST_KAFKA_BROKERS`, else one that is
    /// started now.
    ///
    /// # Panics
    /// When there is none and none can be started.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Kafka> = OnceCell::const_new();

        SHARED
            .get_or_init(|| async {
                match elsewhere::kafka().await {
                    Some(brokers) => Self {
                        broker: None,
                        brokers,
                    },
                    // Nobody kills it: it need not be missed after a second and a half.
                    None => {
                        let options = Options::default();
                        Self::start(options.config("broker.session.timeout.ms", "9000")).await
                    }
                }
            })
            .await
    }

    /// Starts a broker of the test's own, in some two seconds.
    ///
    /// # Panics
    /// When Kafka is not on this machine or does not start.
    pub async fn start(options: Options) -> Self {
        let broker = Broker::start(options).await;
        Self {
            brokers: format!("127.0.0.1:{}", broker.advertised_port()),
            broker: Some(broker),
        }
    }

    /// What clients are given as `bootstrap.servers`: the advertised port.
    #[must_use]
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// The port on which the broker itself listens, for a proxy in front of it.
    ///
    /// # Panics
    /// When the broker is not ours. So do all below but [`create_topic`](Self::create_topic).
    #[must_use]
    pub fn port(&self) -> u16 {
        self.own().port()
    }

    /// Its process id.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.own().pid()
    }

    /// Its version, such as `4.1.1`, by the name of its jar.
    #[must_use]
    pub fn version(&self) -> String {
        self.own().version()
    }

    /// SIGKILL, as a crash.
    pub fn kill(&self) {
        self.own().kill();
    }

    /// Ends it in good order.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn stop(&self) {
        self.own().stop().await;
    }

    /// Starts it again after [`kill`](Self::kill) or [`stop`](Self::stop): same port, same data.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_again(&self) {
        self.own().start_again().await;
    }

    /// SIGSTOP: connections stay open and nothing answers. [`cont`](Self::cont) ends it.
    pub fn freeze(&self) {
        self.own().freeze(true);
    }

    /// Lets a frozen broker go on.
    pub fn cont(&self) {
        self.own().freeze(false);
    }

    /// Creates a topic with one replica, such as `("orders", 3, &[("max.message.bytes", "1000")])`, and waits until
    /// its partitions can be written.
    ///
    /// # Panics
    /// When the broker refuses it.
    pub async fn create_topic(&self, name: &str, partitions: u16, config: &[(&str, &str)]) {
        let one = TopicReplication::Fixed(1);
        self.create_replicated(name, partitions, one, config).await;
    }

    /// The same with a second replica of each partition on a broker that never comes, so that `min.insync.replicas` of 2
    /// makes the topic refuse what is published.
    ///
    /// # Panics
    /// When the broker refuses it.
    pub async fn create_topic_short_of_a_replica(
        &self,
        name: &str,
        partitions: u16,
        config: &[(&str, &str)],
    ) {
        const REPLICAS: [i32; 2] = [1, 2];
        self.own().register_absent(REPLICAS[1]).await;
        let of_each = vec![&REPLICAS[..]; usize::from(partitions)];
        let short = TopicReplication::Variable(&of_each);
        self.create_replicated(name, partitions, short, config)
            .await;
    }

    async fn create_replicated(
        &self,
        name: &str,
        partitions: u16,
        replication: TopicReplication<'_>,
        config: &[(&str, &str)],
    ) {
        let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .create()
            .expect("a configuration of one constant name is valid");
        let topic = NewTopic::new(name, i32::from(partitions), replication);
        let topic = config
            .iter()
            .fold(topic, |topic, (name, value)| topic.set(name, value));
        let options = AdminOptions::new().operation_timeout(Some(TOPIC_TAKES_AT_MOST));
        let answer = admin.create_topics([&topic], &options).await;
        let results = answer.unwrap_or_else(|error| panic!("cannot create topic {name}: {error}"));
        for result in results {
            result.unwrap_or_else(|(topic, error)| panic!("cannot create topic {topic}: {error}"));
        }
        wait::until_true(
            TOPIC_TAKES_AT_MOST,
            "the topic's partitions to have a leader",
            || {
                broker::has_leaders(
                    self.brokers.clone(),
                    name.to_owned(),
                    usize::from(partitions),
                )
            },
        )
        .await;
    }

    fn own(&self) -> &Broker {
        self.broker
            .as_ref()
            .expect("ONCEWARD_TEST_KAFKA_BROKERS names a broker that is not the test's to stop")
    }
}

#[cfg(test)]
mod tests;

//! Where a test publishes to and consumes from, at each broker: what programs are told of it, and the limits that it can be given.

use onceward_testkit::proxy::Proxy;
use onceward_testkit::sqs::Gate;

/// A place at a broker for the topics of one test.
#[derive(Debug)]
pub(crate) enum Place {
    /// A JetStream stream of this name at this URL; its topics may be spread over subjects, which the members share.
    Nats {
        url: String,
        stream: String,
        spread: bool,
    },
    /// Topics at these brokers.
    Kafka {
        brokers: String,
        topics: Vec<String>,
    },
    /// One queue for all topics, which relays reach through the gate and consumers at the server.
    Sqs {
        url: String,
        queue: String,
        gate: Gate,
        /// As the relay's configuration says it: `per_key` for a FIFO queue, else `none`.
        order: &'static str,
    },
}

impl Place {
    pub(crate) fn broker(&self) -> &'static str {
        match self {
            Self::Nats { .. } => "nats",
            Self::Kafka { .. } => "kafka",
            Self::Sqs { .. } => "sqs",
        }
    }

    /// What stands before it, where a broker needs that.
    pub(crate) fn gate(&self) -> Option<&Gate> {
        match self {
            Self::Nats { .. } | Self::Kafka { .. } => None,
            Self::Sqs { gate, .. } => Some(gate),
        }
    }

    /// Where consumers reach it.
    pub(crate) fn address(&self) -> &str {
        match self {
            Self::Nats { url, .. } | Self::Sqs { url, .. } => url,
            Self::Kafka { brokers, .. } => brokers,
        }
    }

    /// What consumers read.
    pub(crate) fn reads(&self) -> String {
        match self {
            Self::Nats { stream, spread, .. } if *spread => format!("{stream}.*.{{partition/4}}"),
            Self::Nats { stream, .. } => format!("{stream}.>"),
            Self::Kafka { topics, .. } => topics.join(","),
            Self::Sqs { queue, .. } => queue.clone(),
        }
    }

    pub(crate) fn route(&self) -> &str {
        match self {
            Self::Nats { spread: true, .. } => "{topic}.{partition/4}",
            Self::Nats { .. } | Self::Kafka { .. } => "{topic}",
            Self::Sqs { queue, .. } => queue,
        }
    }

    /// The broker's section of a relay's configuration, at another address if one is given.
    pub(crate) fn section(&self, elsewhere: Option<&str>) -> String {
        let address = elsewhere.unwrap_or(self.address());
        match self {
            Self::Nats { .. } => format!("servers = \"{address}\"\n"),
            Self::Kafka { .. } => format!("brokers = \"{address}\"\n"),
            Self::Sqs { gate, order, .. } => format!(
                "endpoint_url = \"{}\"\nregion = \"us-east-1\"\norder = \"{order}\"\n\
                 access_key_id = \"e2e\"\nsecret_access_key = \"e2e\"\n",
                elsewhere.map_or_else(|| gate.url(), str::to_owned)
            ),
        }
    }

    /// Lets it take messages of at most so many bytes, or of any size again.
    pub(crate) async fn limit(&self, bytes: Option<i32>) {
        match self {
            Self::Nats { url, stream, .. } => limit_nats(url, stream, bytes).await,
            Self::Kafka { brokers, topics } => limit_kafka(brokers, topics, bytes).await,
            // ElasticMQ knows no limit of a queue: the gate before it does.
            Self::Sqs { queue, gate, .. } => match bytes {
                Some(bytes) => gate.limit(queue, bytes.unsigned_abs().into()),
                None => gate.lift_limit(queue),
            },
        }
    }
}

async fn limit_nats(url: &str, stream: &str, bytes: Option<i32>) {
    let jetstream = async_nats::jetstream::new(async_nats::connect(url).await.unwrap());
    let mut found = jetstream.get_stream(stream).await.unwrap();
    let mut config = found.info().await.unwrap().config.clone();
    config.max_message_size = bytes.unwrap_or(-1);
    jetstream.update_stream(config).await.unwrap();
}

async fn limit_kafka(brokers: &str, topics: &[String], bytes: Option<i32>) {
    use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
    use rdkafka::client::DefaultClientContext;

    let admin: AdminClient<DefaultClientContext> = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .unwrap();
    let limit = bytes.unwrap_or(1_048_588).to_string();
    let changes: Vec<AlterConfig<'_>> = topics
        .iter()
        .map(|topic| {
            AlterConfig::new(ResourceSpecifier::Topic(topic)).set("max.message.bytes", &limit)
        })
        .collect();
    let results = admin
        .alter_configs(&changes, &AdminOptions::new())
        .await
        .unwrap();
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

/// The port in the URL of a server.
pub(crate) fn port(url: &str) -> u16 {
    let (_, address) = url.rsplit_once(':').unwrap();
    let digits = address.split(|c: char| !c.is_ascii_digit()).next();
    digits.unwrap().parse().unwrap()
}

/// `url` by way of a proxy to its port.
pub(crate) fn behind(proxy: &Proxy, url: &str) -> String {
    url.replace(&format!(":{}", port(url)), &format!(":{}", proxy.port()))
}

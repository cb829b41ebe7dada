//! What the demo is told on its command line.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// An order service, two relays and two billing consumers under load, with kills; then the ledger.
///
/// Ends with 0 if the ledger is green, 1 if it is red or something failed, 130 after Ctrl-C.
#[derive(Debug, Parser)]
#[command(name = "onceward-demo")]
pub(crate) struct Settings {
    /// The broker between relay and consumers
    #[arg(long, value_enum, default_value_t = Broker::Nats)]
    pub(crate) broker: Broker,
    /// How long customers order
    #[arg(long, env = "DEMO_SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(4..=86_400))]
    pub(crate) seconds: u64,
    /// Orders per second
    #[arg(long, env = "DEMO_RATE", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) rate: u32,
    /// Print the verdict as JSON on standard output, and everything else on standard error
    #[arg(long)]
    pub(crate) json: bool,
    /// Where the configuration and the logs of the last run are kept
    #[arg(long, default_value = ".demo")]
    pub(crate) dir: PathBuf,
}

/// Which broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Broker {
    /// NATS JetStream: the consumers share the subjects over which the relay spreads the topic.
    Nats,
    /// Apache Kafka: the consumers share the partitions.
    Kafka,
    /// Amazon SQS, played by ElasticMQ: a FIFO queue, whose keys the consumers share.
    Sqs,
}

impl Settings {
    /// How long customers order.
    pub(crate) fn load(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

impl Broker {
    /// The word for `BROKER`.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Nats => "nats",
            Self::Kafka => "kafka",
            Self::Sqs => "sqs",
        }
    }
}

impl fmt::Display for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nats => "NATS JetStream",
            Self::Kafka => "Apache Kafka",
            Self::Sqs => "Amazon SQS (ElasticMQ)",
        })
    }
}

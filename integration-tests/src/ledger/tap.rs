//! Reads the broker as it lies there: every copy, in the broker's order, with plain clients and no product code.

mod kafka;
mod nats;
mod sqs;

use super::facts::Arrival;
use crate::sqs::{Gate, Recording};

/// What stands between the tap and an answer. It is tried again.
pub type TapError = Box<dyn std::error::Error + Send + Sync>;

/// A place where messages arrive.
#[derive(Debug, Clone)]
pub enum Tap {
    /// JetStream streams, read whole.
    Nats {
        /// The server.
        url: String,
        /// The streams' names.
        streams: Vec<String>,
    },
    /// Kafka topics, all partitions, from the beginning to the end.
    Kafka {
        /// What clients are given as `bootstrap.servers`.
        brokers: String,
        /// The topics' names.
        topics: Vec<String>,
    },
    /// Queues of SQS, as a gate between relay and server has recorded them: a queue cannot be read without consuming it.
    Sqs {
        /// What is recorded.
        recording: Recording,
        /// The queues' names.
        queues: Vec<String>,
    },
}

impl Tap {
    /// A tap on JetStream streams. They must keep all of their messages.
    #[must_use]
    pub fn nats(url: &str, streams: &[&str]) -> Self {
        Self::Nats {
            url: url.to_owned(),
            streams: streams.iter().map(|&stream| stream.to_owned()).collect(),
        }
    }

    /// A tap on Kafka topics. They must keep all of their messages.
    #[must_use]
    pub fn kafka(brokers: &str, topics: &[&str]) -> Self {
        Self::Kafka {
            brokers: brokers.to_owned(),
            topics: topics.iter().map(|&topic| topic.to_owned()).collect(),
        }
    }

    /// A tap on queues of SQS. Every relay must send through the gate, and the server behind it must not crash meanwhile: what
    /// it stored and could not answer any more is not recorded.
    #[must_use]
    pub fn sqs(gate: &Gate, queues: &[&str]) -> Self {
        Self::Sqs {
            recording: gate.recording(),
            queues: queues.iter().map(|&queue| queue.to_owned()).collect(),
        }
    }

    /// All that has arrived by now, in order within each partition.
    ///
    /// # Errors
    /// That of the broker which does not answer, or has forgotten messages; ask again.
    pub async fn all(&self) -> Result<Vec<Arrival>, TapError> {
        match self {
            Self::Nats { url, streams } => {
                let mut arrivals = Vec::new();
                for stream in streams {
                    arrivals.extend(nats::all(url, stream).await?);
                }
                Ok(arrivals)
            }
            Self::Kafka { brokers, topics } => {
                let (brokers, topics) = (brokers.clone(), topics.clone());
                // librdkafka's calls block.
                tokio::task::spawn_blocking(move || kafka::all(&brokers, &topics)).await?
            }
            Self::Sqs { recording, queues } => Ok(sqs::all(recording, queues)),
        }
    }

    /// How many messages lie there, copies included.
    ///
    /// # Errors
    /// That of the broker which does not answer; ask again.
    pub async fn count(&self) -> Result<u64, TapError> {
        match self {
            Self::Nats { url, streams } => {
                let mut count = 0;
                for stream in streams {
                    count += nats::count(url, stream).await?;
                }
                Ok(count)
            }
            Self::Kafka { brokers, topics } => {
                let (brokers, topics) = (brokers.clone(), topics.clone());
                tokio::task::spawn_blocking(move || kafka::count(&brokers, &topics)).await?
            }
            Self::Sqs { recording, queues } => Ok(sqs::count(recording, queues)),
        }
    }
}

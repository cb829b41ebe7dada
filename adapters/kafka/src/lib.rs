//! Onceward on Apache Kafka.
//!
//! [`Kafka`] is a cluster. On it, [`KafkaPublisher`] is one gap-free session and [`KafkaSubscriber`] one member of a consumer
//! group. What a team may set, what is refused and why, stands at [`KafkaConfig`].

mod cluster;
mod config;
mod errors;
mod headers;
mod log;
mod publisher;
mod subscriber;
mod topics;

pub use cluster::Kafka;
pub use config::{KafkaConfig, KafkaSubscription, Start};
pub use errors::KafkaConfigError;
pub use publisher::{KafkaPending, KafkaPublisher};
pub use subscriber::{KafkaAcker, KafkaSubscriber, KafkaToken};

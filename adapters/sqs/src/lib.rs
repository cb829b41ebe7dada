//! Onceward on Amazon SQS.
//!
//! [`Sqs`] is how SQS is reached; [`SqsPublisher`] is one session of a relay, [`SqsSubscriber`] one member of a consumer.
//! FIFO queues keep order per key; standard queues keep none, and whoever uses them says so.

mod attributes;
mod config;
mod connection;
mod errors;
mod faults;
mod headers;
mod publisher;
mod queue;
mod subscriber;

pub use config::{AccessKey, SqsConfig, SubscriberConfig};
pub use connection::Sqs;
pub use publisher::{SqsPending, SqsPublisher};
pub use queue::{InvalidQueue, MAX_QUEUE_NAME, QueueName};
pub use subscriber::{SqsAcker, SqsSubscriber, SqsToken};

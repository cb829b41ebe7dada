//! Onceward on NATS JetStream.
//!
//! [`NatsPublisher`] is one session of a relay; [`NatsSubscriber`] is one member of a consumer. Both need JetStream;
//! members need a server of version 2.14 or newer.

mod config;
mod connection;
mod errors;
mod headers;
mod publisher;
mod subscriber;

pub use config::{Credentials, NatsConfig, SubscriberConfig, Tls};
pub use publisher::{NatsPending, NatsPublisher};
pub use subscriber::{NatsAcker, NatsSubscriber, NatsToken};

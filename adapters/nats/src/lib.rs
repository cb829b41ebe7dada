//! Onceward on NATS JetStream.

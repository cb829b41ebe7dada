//! Onceward on Apache Kafka.

//! The Onceward relay: publishes an outbox to a broker, in order per key.

mod pace;
mod pause;
mod plan;
mod window;

//! The Onceward relay: publishes an outbox to a broker, in order per key.

mod cli;
mod config;
mod destination;
mod pace;
mod pause;
mod plan;
mod settings;
mod window;

pub use cli::run;
pub use destination::{Broker, BrokerSession, Destination, DestinationError};
pub use config::{
    Admin, Config, ConfigError, Database, DestinationConfig, Log, LogFormat, Problem, StreamConfig,
};

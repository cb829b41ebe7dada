//! The Onceward relay: publishes an outbox to a broker, in order per key.

mod admin;
mod cli;
mod config;
mod destination;
mod detours;
mod faults;
mod idle_lanes;
mod pace;
mod pause;
mod plan;
mod replays;
mod settings;
mod stream;
mod supervisor;
mod window;

pub use cli::run;
pub use config::{
    Admin, Config, ConfigError, Database, DestinationConfig, Log, LogFormat, Problem, StreamConfig,
};
pub use destination::{Broker, BrokerSession, Destination, DestinationError};
pub use settings::{InvalidSettings, OnRefusal, PublishAfter, Start, StreamSettings, Unrouted};
pub use stream::{Paused, Role, StreamStatus};
pub use supervisor::{Relay, RelayError};

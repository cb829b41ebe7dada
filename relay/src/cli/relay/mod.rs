//! `onceward relay`: publishes until it is told to stop.

mod checks;

use std::path::Path;
use std::time::Duration;

use clap::Args;
use onceward::LogDatabase;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::Context;
use super::database::{self, Reached};
use super::failure::Failure;
use super::signals::Signals;
use crate::admin::{AdminServer, Metrics, gauges};
use crate::config::{Config, DEFAULT_FILE, StreamConfig};
use crate::destination::Broker;
use crate::supervisor::{Relay, RelayError};

/// Publish what the service has committed, until told to stop
///
/// Any number of relays may run on one database: each stream is published by one of them, and the others take over
/// within the lease's ttl. A broker or a database that goes away is waited for. SIGTERM and SIGINT stop it once what
/// is in flight is confirmed or its time is up; a second signal ends it at once, which costs duplicates and nothing else.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  onceward relay
  onceward relay --config /etc/onceward.toml
  onceward relay --fail-fast                end with 1 if a destination cannot be used at the start")]
pub(in crate::cli) struct RelayCommand {
    /// End with 1 if a destination is out of reach or lacks a topic at the start, in place of trying again
    #[arg(long)]
    fail_fast: bool,
}

impl RelayCommand {
    pub(in crate::cli) async fn run(self, context: &Context) -> Result<(), Failure> {
        let config = &context.config;
        if config.streams.is_empty() {
            return Err(nothing_to_publish(config.file.as_deref()));
        }
        let metrics = Metrics::install()
            .map_err(|error| Failure::failed("nothing can be counted").because(error))?;
        let signals = Signals::listen()?;
        let admin = AdminServer::bind(config.admin.listen, config.admin.token.clone())
            .await
            .map_err(|error| {
                let listen = config.admin.listen;
                Failure::failed(format!("the admin endpoints cannot listen at {listen}"))
                    .because(error)
                    .remedy("set admin.listen to an address and port that are free")
            })?;
        let reached = database::reach_schema(&config.database, "onceward relay").await?;
        checks::database(config, &reached).await?;
        if self.fail_fast {
            checks::destinations(config, &reached).await?;
        }
        let relay = relay(config)?;
        publish(
            relay,
            Running {
                config,
                reached,
                metrics,
                admin,
                signals,
            },
        )
        .await
    }
}

/// The least that a relay must be told.
const SMALLEST: &str = r#"source = "/shop/orders"                # who speaks, on every message

[database]
url = "postgres://user:password@host:5432/database"

[streams.events.nats]                  # or .kafka with brokers = "host:9092", or .sqs, with route = "name.fifo" in [streams.events]
servers = "nats://127.0.0.1:4222""#;

fn nothing_to_publish(file: Option<&Path>) -> Failure {
    let looked = match file {
        Some(file) => format!(
            "the file {} has no section [streams.<name>]",
            file.display()
        ),
        None => {
            let here = std::env::current_dir().unwrap_or_default();
            format!(
                "--config (or ONCEWARD_CONFIG) names no file, and there is no {}",
                here.join(DEFAULT_FILE).display()
            )
        }
    };
    Failure::usage(format!(
        "no stream is configured, so there is nothing to publish: {looked}; no variable ONCEWARD__STREAMS__… is set either"
    ))
    .remedy(format!(
        "this much is enough (docs/configuration.md has the rest):\n\n{SMALLEST}\n"
    ))
}

/// What runs beside the relay.
struct Running<'a> {
    config: &'a Config,
    reached: Reached,
    metrics: Metrics,
    admin: AdminServer,
    signals: Signals,
}

async fn publish(relay: Relay, running: Running<'_>) -> Result<(), Failure> {
    let Running {
        config,
        reached,
        metrics,
        admin,
        signals,
    } = running;
    let stop = CancellationToken::new();
    // The endpoints answer until the relay has drained.
    let drained = CancellationToken::new();
    if let Ok(address) = admin.address() {
        info!(%address, "admin endpoints listen");
    }
    let mut beside = JoinSet::new();
    beside.spawn(signals.forward(stop.clone()));
    beside.spawn(metrics.clone().run(drained.clone()));
    beside.spawn(gauges::run(
        reached.pool.clone(),
        config.database.schema.clone(),
        drained.clone(),
    ));
    beside.spawn(admin.serve(relay.statuses(), metrics, drained.clone()));
    info!(
        streams = config.streams.len(),
        version = env!("CARGO_PKG_VERSION"),
        "relay starts"
    );
    let ended = relay.run(stop).await;
    drained.cancel();
    // Dropped with the set: the signals are of no more interest.
    let closing = async { while beside.len() > 1 && beside.join_next().await.is_some() {} };
    drop(tokio::time::timeout(Duration::from_secs(3), closing).await);
    ended.map_err(|error| {
        let remedy = remedy(&error);
        Failure::failed("the relay ended")
            .because(error)
            .remedy(remedy)
    })?;
    info!("relay stopped: what was in flight is settled");
    Ok(())
}

fn remedy(error: &RelayError) -> &'static str {
    match error {
        RelayError::Refused { .. } => "docs/recovery.md says what to do",
        RelayError::Ended { .. } => "that is a bug: report it, and start the relay again",
        RelayError::Settings { .. } | RelayError::SameName { .. } => "correct the settings",
    }
}

fn relay(config: &Config) -> Result<Relay, Failure> {
    let options = database::options(&config.database, "onceward relay")?;
    let log = LogDatabase::new(options, config.database.schema.clone()).within(call_timeout(
        config.database.answer_timeout,
        &config.streams,
    ));
    let mut relay = Relay::new(log).retention(config.retention);
    for stream in &config.streams {
        let name = &stream.settings.name;
        let broker = Broker::new(&stream.destination).map_err(|error| {
            Failure::usage(format!(
                "the destination of the stream {name} cannot be used"
            ))
            .because(error)
        })?;
        relay = relay.stream(stream.settings.clone(), broker);
    }
    Ok(relay)
}

/// A call that hangs must not outlive the lease that it was made under.
fn call_timeout(configured: Duration, streams: &[StreamConfig]) -> Duration {
    let ttls = streams.iter().map(|stream| stream.settings.lease_ttl);
    let shortest = ttls.min().unwrap_or(configured);
    configured.min(shortest * 3 / 4)
}

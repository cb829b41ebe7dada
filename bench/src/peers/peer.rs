//! The peers: their tables, how rows are written, how they are started. By their own documentation.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use onceward_testkit::free_port;

use super::debezium;
use crate::outcome::Outcome;

/// Where the peers' programs are.
#[derive(Debug, Args)]
pub(crate) struct Programs {
    /// What `scripts/install-servers.sh debezium` has put together: `jars` and `classes`.
    #[arg(long, default_value = ".servers/peers/debezium")]
    pub(super) debezium: PathBuf,
    /// The relay of outbox-core, as `scripts/bench.sh peers` builds it.
    #[arg(long, default_value = "target/peers/release/outbox-core-relay")]
    outbox_core: PathBuf,
    /// The relay of open-outbox, built from its source.
    #[arg(long, env = "ONCEWARD_BENCH_OPEN_OUTBOX")]
    open_outbox: Option<PathBuf>,
    /// A forwarder of watermill, built from its modules; CONTRIBUTING.md says what it is to do.
    #[arg(long, env = "ONCEWARD_BENCH_WATERMILL")]
    watermill: Option<PathBuf>,
}

/// Another relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    Debezium,
    OutboxCore,
    OpenOutbox,
    Watermill,
}

/// Where a peer reads and publishes.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) port: u16,
    pub(super) database: &'a str,
    pub(super) url: &'a str,
    pub(super) brokers: &'a str,
    pub(super) topic: &'a str,
    pub(super) files: &'a Path,
}

impl Programs {
    /// The peers whose programs are there. One that is named or that the scripts install must be.
    pub(super) fn there(&self) -> Outcome<Vec<Peer>> {
        let named = [
            (Peer::Debezium, Some(&self.debezium)),
            (Peer::OutboxCore, Some(&self.outbox_core)),
            (Peer::OpenOutbox, self.open_outbox.as_ref()),
            (Peer::Watermill, self.watermill.as_ref()),
        ];
        let mut peers = Vec::new();
        for (peer, path) in named {
            let Some(path) = path else {
                let name = peer.name();
                eprintln!("{name} does not run: no variable names its program");
                continue;
            };
            if !path.exists() {
                let (name, path) = (peer.name(), path.display());
                return Err(format!(
                    "no {name} at {path}: `make bench-peers` installs what it can"
                )
                .into());
            }
            peers.push(peer);
        }
        Ok(peers)
    }
}

impl Peer {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Debezium => "debezium",
            Self::OutboxCore => "outbox-core",
            Self::OpenOutbox => "open-outbox",
            Self::Watermill => "watermill",
        }
    }

    /// Whether it sends one message and waits for its ack before the next.
    pub(super) const fn waits_for_each(self) -> bool {
        match self {
            Self::Debezium => false,
            Self::OutboxCore | Self::OpenOutbox | Self::Watermill => true,
        }
    }

    /// Whether it reads the write-ahead log, by a slot that must be there before what is to be read.
    pub(super) const fn reads_the_wal(self) -> bool {
        match self {
            Self::Debezium => true,
            Self::OutboxCore | Self::OpenOutbox | Self::Watermill => false,
        }
    }

    pub(super) const fn table(self) -> &'static str {
        match self {
            Self::Debezium => debezium::TABLE,
            Self::OutboxCore => OUTBOX_CORE,
            Self::OpenOutbox => OPEN_OUTBOX,
            Self::Watermill => WATERMILL,
        }
    }

    /// The statement that writes one message, of expressions for its id (uuid), its key and its payload (text).
    pub(super) fn insert(self, topic: &str, [id, key, payload]: [&str; 3]) -> String {
        match self {
            Self::Debezium => format!(
                "insert into outbox (id, aggregatetype, aggregateid, type, payload)
                 values ({id}, 'bench', {key}, 'Created', {payload}::jsonb)"
            ),
            // The key is taken from the payload.
            Self::OutboxCore => format!(
                "insert into outbox_events (id, event_type, payload)
                 select {id}, 'Created', {payload}::jsonb where {key}::text is not null"
            ),
            Self::OpenOutbox => format!(
                "insert into openoutbox_events (event_id, event_type, partition_key, payload)
                 values ({id}, '{topic}', {key}, convert_to({payload}, 'utf8'))"
            ),
            Self::Watermill => format!(
                "insert into watermill_events (uuid, payload, metadata)
                 values (
                   {id}::uuid::text,
                   json_build_object(
                     'destination_topic', '{topic}',
                     'uuid', {id}::uuid::text,
                     'payload', replace(encode(convert_to({payload}, 'utf8'), 'base64'), e'\\n', ''),
                     'metadata', json_build_object('key', {key}::text)
                   ),
                   '{{}}'
                 )"
            ),
        }
    }

    /// How it is started.
    pub(super) fn command(self, programs: &Programs, place: &Place<'_>) -> Outcome<Command> {
        let of = |path: &Option<PathBuf>| path.clone().ok_or("no such program");
        let mut command = match self {
            Self::Debezium => return debezium::command(&programs.debezium, place),
            Self::OutboxCore => Command::new(&programs.outbox_core),
            Self::OpenOutbox => Command::new(of(&programs.open_outbox)?),
            Self::Watermill => Command::new(of(&programs.watermill)?),
        };
        let settings: Vec<(&str, String)> = match self {
            Self::Debezium => Vec::new(),
            Self::OutboxCore => vec![
                ("DATABASE_URL", place.url.to_owned()),
                ("BROKERS", place.brokers.to_owned()),
                ("TOPIC", place.topic.to_owned()),
            ],
            Self::OpenOutbox => open_outbox(place),
            Self::Watermill => vec![
                ("PGURL", place.url.to_owned()),
                ("KAFKA", place.brokers.to_owned()),
                ("BATCH", "1000".to_owned()),
                ("POLL", "50ms".to_owned()),
            ],
        };
        command.envs(settings);
        Ok(command)
    }
}

/// A short poll, and the batches that its own page on throughput advises; all else by default, but a timeout that connects.
fn open_outbox(place: &Place<'_>) -> Vec<(&'static str, String)> {
    let listen = format!("127.0.0.1:{}", free_port());
    let fixed = [
        ("PUBLISHER_TYPE", "kafka"),
        ("POLL_INTERVAL", "50ms"),
        ("BATCH_SIZE", "1000"),
        ("REAP_BATCH_SIZE", "500"),
        ("KAFKA_CONNECTION_TIMEOUT", "5s"),
        ("KAFKA_REQUIRED_ACKS", "all"),
        ("RELAY_ID", "bench"),
        ("ENVIRONMENT", "production"),
    ];
    let mut settings = vec![
        ("STORAGE_URL", place.url.to_owned()),
        ("PUBLISHER_URL", place.brokers.to_owned()),
        ("SERVER_PORT", listen),
    ];
    settings.extend(fixed.map(|(name, value)| (name, value.to_owned())));
    settings
}

const OUTBOX_CORE: &str = "
create type status as enum ('Pending', 'Processing', 'Sent');
create table outbox_events (
  id uuid primary key default gen_random_uuid(), idempotency_token text default null, event_type text not null, payload jsonb not null,
  status status not null default 'Pending', created_at timestamptz not null default now(),
  locked_until timestamptz not null default '-infinity');
create index idx_outbox_processing_queue on outbox_events (locked_until asc, status) where status in ('Pending', 'Processing');
create unique index idx_outbox_idempotency on outbox_events (idempotency_token);
create function notify_outbox_event() returns trigger language plpgsql as $$
begin
  perform pg_notify('outbox_event', 'ping');
  return new;
end $$;
create trigger outbox_events_notify_trigger after insert or update on outbox_events
for each row execute function notify_outbox_event()";

const OPEN_OUTBOX: &str = "
create table openoutbox_events (
  event_id uuid primary key, event_type text not null, partition_key text, payload bytea not null, headers jsonb not null default '{}',
  status text not null default 'PENDING', attempts int not null default 0, last_error text,
  available_at timestamptz not null default now(), locked_by text, locked_at timestamptz, delivered_at timestamptz,
  created_at timestamptz not null default now(), updated_at timestamptz not null default now(),
  constraint check_valid_status check (status in ('PENDING', 'DELIVERING', 'DELIVERED', 'DEAD')));
create index idx_openoutbox_processing_queue on openoutbox_events (available_at, created_at) where status = 'PENDING';
create index idx_openoutbox_stuck_leases on openoutbox_events (locked_at) where status = 'DELIVERING';
create index idx_openoutbox_metrics_count on openoutbox_events (status) include (attempts) where status = 'PENDING';
create index idx_openoutbox_metrics_lag on openoutbox_events (status, created_at) where status = 'PENDING'";

const WATERMILL: &str = "
create table watermill_events (
  \"offset\" serial primary key, uuid varchar(36) not null, payload json default null, metadata json default null,
  acked boolean not null default false, created_at timestamptz not null default current_timestamp)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_no_variable_names_does_not_run() {
        let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let programs = Programs {
            debezium: here.clone(),
            outbox_core: here,
            open_outbox: None,
            watermill: None,
        };

        assert_eq!(
            programs.there().unwrap(),
            [Peer::Debezium, Peer::OutboxCore]
        );
    }

    #[test]
    fn a_peer_that_is_named_and_not_there_is_an_error() {
        let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let programs = Programs {
            debezium: here.clone(),
            outbox_core: here.clone(),
            open_outbox: Some(here.join("nowhere")),
            watermill: None,
        };

        let error = programs.there().unwrap_err().to_string();

        assert!(error.contains("no open-outbox at"), "{error}");
    }
}

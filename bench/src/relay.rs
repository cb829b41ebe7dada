//! The relay as its users run it: the released binary, in a process of its own.

use std::path::Path;
use std::process::Command;

use onceward_testkit::process::Child;
use onceward_testkit::{Scratch, free_port};

use crate::backlog::TOPIC;
use crate::broker::Broker;
use crate::cpu;
use crate::outcome::Outcome;
use crate::world::World;

/// A running relay. Ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Relay {
    child: Child,
    _files: Scratch,
}

impl Relay {
    /// Starts a relay that publishes the log of the database at `url` to one route. Each stream of a name begins at the
    /// earliest message.
    pub(crate) fn start(
        binary: &Path,
        world: &World,
        url: &str,
        stream: &str,
        (broker, route): (Broker, &str),
    ) -> Outcome<Self> {
        let files = Scratch::new("bench-relay");
        let destination = match broker {
            Broker::Kafka => format!("kafka]\nbrokers = \"{}\"", world.kafka.brokers()),
            Broker::Nats => format!("nats]\nservers = [\"{}\"]", world.nats_url()),
        };
        let config = format!(
            "source = \"/bench\"\n\n[database]\nurl = \"{url}\"\n\n[admin]\nlisten = \"127.0.0.1:{}\"\n\n\
             [streams.{stream}]\ntopics = [\"{TOPIC}\"]\nroutes = {{ \"{TOPIC}\" = \"{route}\" }}\n\n\
             [streams.{stream}.{destination}\n",
            free_port()
        );
        let path = files.path().join("onceward.toml");
        std::fs::write(&path, config)?;
        let mut command = Command::new(binary);
        command.arg("relay").arg("--config").arg(&path);
        Ok(Self {
            child: Child::spawn("relay", &command),
            _files: files,
        })
    }

    /// The most memory that was resident so far, in MiB.
    pub(crate) fn peak_memory(&self) -> Outcome<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.pid()))?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1));
        Ok(kib.ok_or("no VmHWM")?.parse::<f64>()? / 1024.0)
    }

    /// CPU seconds used so far, user and system.
    pub(crate) fn cpu_seconds(&self) -> Outcome<f64> {
        cpu::of_process(self.child.pid())
    }

    /// What the relay said, for when it ended.
    pub(crate) fn ended(&self) -> Option<String> {
        let ended = self.child.try_wait()?;
        let text = format!("{}{}", self.child.stdout(), self.child.stderr());
        let tail: Vec<&str> = text.lines().rev().take(10).collect();
        Some(format!(
            "the relay ended with {ended}: {}",
            tail.join(" | ")
        ))
    }
}

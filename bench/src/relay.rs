//! The relay as its users run it: the released binary, in a process of its own.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use onceward_testkit::process::Child;
use onceward_testkit::{Scratch, cpu, free_port};

use crate::backlog::TOPIC;
use crate::broker::Broker;
use crate::outcome::Outcome;
use crate::world::World;

/// How long a relay may take to end.
const END_TAKES_AT_MOST: Duration = Duration::from_secs(30);

/// Says what to do if there is no relay at a path.
pub(crate) fn look_for(binary: &Path) -> Outcome {
    if binary.exists() {
        return Ok(());
    }
    let path = binary.display();
    Err(format!("no relay at {path}: run `cargo build --release -p onceward-relay`").into())
}

/// The streams of a relay.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Streams<'a> {
    /// The one that publishes.
    pub(crate) name: &'a str,
    /// How many are beside it and ask for topics of their own.
    pub(crate) others: u16,
    /// When what is committed may be published.
    pub(crate) publish_after: &'static str,
}

impl<'a> Streams<'a> {
    /// One of this name, which waits until what it publishes is on the server's disk: the default.
    pub(crate) const fn one(name: &'a str) -> Self {
        Self {
            name,
            others: 0,
            publish_after: "flushed",
        }
    }
}

/// The topic that the `n`th of the others asks for.
pub(crate) fn topic_of_other(n: u16) -> String {
    format!("bench.other{n}")
}

/// A running relay. Ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Relay {
    child: Child,
    _files: Option<Scratch>,
}

impl Relay {
    /// Starts a relay that publishes the log of the database at `url` to one route. Each stream of a name begins at the
    /// earliest message.
    pub(crate) fn start(
        binary: &Path,
        world: &World,
        url: &str,
        stream: &str,
        at: (Broker, &str),
    ) -> Outcome<Self> {
        Self::start_with(binary, world, url, &Streams::one(stream), at)
    }

    /// The same with these streams.
    pub(crate) fn start_with(
        binary: &Path,
        world: &World,
        url: &str,
        streams: &Streams<'_>,
        (broker, route): (Broker, &str),
    ) -> Outcome<Self> {
        let files = Scratch::new("bench-relay");
        let destination = match broker {
            Broker::Kafka => format!("kafka]\nbrokers = \"{}\"", world.kafka.brokers()),
            Broker::Nats => format!("nats]\nservers = [\"{}\"]", world.nats_url()),
        };
        let publish_after = streams.publish_after;
        let of_stream = |stream: &str, topic: &str| {
            format!(
                "[streams.{stream}]\ntopics = [\"{topic}\"]\npublish_after = \"{publish_after}\"\n\
                 routes = {{ \"{topic}\" = \"{route}\" }}\n\n\
                 [streams.{stream}.{destination}\n\n"
            )
        };
        let head = format!(
            "source = \"/bench\"\n\n[database]\nurl = \"{url}\"\n\n[admin]\nlisten = \"127.0.0.1:{}\"\n\n",
            free_port()
        );
        let others =
            (0..streams.others).map(|n| of_stream(&format!("other{n}"), &topic_of_other(n)));
        let config = head + &of_stream(streams.name, TOPIC) + &others.collect::<String>();
        let path = files.path().join("onceward.toml");
        std::fs::write(&path, config)?;
        let mut command = Command::new(binary);
        command.arg("relay").arg("--config").arg(&path);
        Ok(Self {
            child: Child::spawn("relay", &command),
            _files: Some(files),
        })
    }

    /// Starts another relay than ours, by its own command.
    pub(crate) fn of(name: &str, command: &Command) -> Self {
        Self {
            child: Child::spawn(name, command),
            _files: None,
        }
    }

    /// Asks it to end, and waits until it has, with whatever status.
    pub(crate) async fn end(self) {
        self.child.term();
        self.child.wait(END_TAKES_AT_MOST).await;
    }

    /// Asks it to end, and waits until it has: its lease is free then, and its cursors are stored.
    pub(crate) async fn stop(self) -> Outcome {
        self.child.term();
        let ended = self.child.wait(END_TAKES_AT_MOST).await;
        if ended.success() {
            return Ok(());
        }
        Err(format!("the relay ended with {ended}").into())
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
        Ok(cpu::of_process(self.child.pid())?.as_secs_f64())
    }

    /// What the relay said, for when it ended.
    pub(crate) fn ended(&self) -> Option<String> {
        let ended = self.child.try_wait()?;
        Some(format!("the relay ended with {ended}: {}", self.said()))
    }

    /// The last lines of what it has said, the newest first.
    pub(crate) fn said(&self) -> String {
        let text = format!("{}{}", self.child.stdout(), self.child.stderr());
        let tail: Vec<&str> = text.lines().rev().take(10).collect();
        tail.join(" | ")
    }
}

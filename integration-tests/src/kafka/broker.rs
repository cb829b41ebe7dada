//! One `kafka.Kafka` process and its data directory.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use tokio::net::TcpStream;

use super::{Options, absent};
use crate::process::Child;
use crate::{Scratch, binaries, free_port, wait};

const START_TAKES_AT_MOST: Duration = Duration::from_secs(60);
const STOP_TAKES_AT_MOST: Duration = Duration::from_secs(30);
const ANSWER_TAKES_AT_MOST: Duration = Duration::from_secs(2);

// A cluster's id is sixteen bytes in base64url; every broker of ours is a cluster of its own.
const CLUSTER_ID: &str = "b25jZXdhcmQtdGVzdGtpdA";

#[derive(Debug)]
pub(super) struct Broker {
    // Dropped in this order: first the process, then its files.
    child: Mutex<Option<Child>>,
    options: Options,
    jars: PathBuf,
    port: u16,
    controller: u16,
    scratch: Scratch,
}

impl Broker {
    pub(super) async fn start(options: Options) -> Self {
        let broker = Self {
            child: Mutex::new(None),
            options,
            jars: binaries::kafka(),
            port: free_port(),
            controller: free_port(),
            scratch: Scratch::new("kafka"),
        };
        std::fs::write(broker.properties(), broker.settings())
            .expect("the temporary directory is writable");
        broker.format().await;
        broker.start_again().await;
        broker
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn pid(&self) -> u32 {
        let child = self.locked();
        child.as_ref().expect("the broker runs").pid()
    }

    pub(super) fn version(&self) -> String {
        let jars = std::fs::read_dir(&self.jars).expect("Kafka's jars are readable");
        let mut names = jars.filter_map(|jar| jar.ok()?.file_name().into_string().ok());
        let version = names.find_map(|name| {
            let version = name.strip_prefix("kafka_2.13-")?.strip_suffix(".jar")?;
            Some(version.to_owned())
        });
        version.unwrap_or_else(|| "unknown".to_owned())
    }

    pub(super) fn advertised_port(&self) -> u16 {
        self.options.advertised_port.unwrap_or(self.port)
    }

    fn properties(&self) -> PathBuf {
        self.scratch.path().join("server.properties")
    }

    fn settings(&self) -> String {
        let (port, controller, advertised) = (self.port, self.controller, self.advertised_port());
        let data = self.scratch.path().join("data").display().to_string();
        let own = format!(
            "process.roles=broker,controller\n\
             node.id=1\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{advertised}\n\
             controller.listener.names=CONTROLLER\n\
             inter.broker.listener.name=PLAINTEXT\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\n\
             log.dirs={data}\n\
             auto.create.topics.enable=false\n\
             offsets.topic.replication.factor=1\n\
             offsets.topic.num.partitions=1\n\
             transaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\n\
             transaction.state.log.num.partitions=1\n\
             group.initial.rebalance.delay.ms=0\n\
             broker.session.timeout.ms=1500\n\
             broker.heartbeat.interval.ms=200\n\
             log.cleaner.dedupe.buffer.size=2097152\n"
        );

        let of_test = self
            .options
            .config
            .iter()
            .map(|(name, value)| format!("{name}={value}\n"));
        own + &of_test.collect::<String>()
    }

    fn java(&self, class: &str) -> Command {
        let mut command = Command::new("java");
        command
            .args(self.options.java.arguments())
            .arg("-cp")
            .arg(self.jars.join("*"))
            .arg(class)
            .current_dir(self.scratch.path());
        command
    }

    async fn format(&self) {
        let mut command = self.java("kafka.tools.StorageTool");
        command
            .args(["format", "-t", CLUSTER_ID, "-c"])
            .arg(self.properties());
        let child = Child::spawn_in(self.scratch.path(), "format", None, &command);
        let status = child.wait(START_TAKES_AT_MOST).await;
        assert!(
            status.success(),
            "Kafka's data directory cannot be made:\n{}",
            child.last_lines()
        );
    }

    pub(super) async fn start_again(&self) {
        let mut command = self.java("kafka.Kafka");
        command.arg(self.properties());
        let child = Child::spawn_in(self.scratch.path(), "kafka", None, &command);
        wait::until_true(START_TAKES_AT_MOST, "Kafka to answer", || async {
            let ended = child.try_wait();
            assert!(
                ended.is_none(),
                "Kafka ended at its start ({ended:?}):\n{}",
                child.last_lines()
            );
            // Asked of the broker itself: a proxy in front of it may not be there yet.
            TcpStream::connect(("127.0.0.1", self.port)).await.is_ok()
                && answers(format!("127.0.0.1:{}", self.port)).await
        })
        .await;
        *self.locked() = Some(child);
    }

    pub(super) async fn register_absent(&self, id: i32) {
        absent::register(self.controller, CLUSTER_ID, id).await;
    }

    pub(super) fn kill(&self) {
        if let Some(child) = self.locked().take() {
            child.kill();
        }
    }

    pub(super) async fn stop(&self) {
        let child = self.locked().take();
        if let Some(child) = child {
            child.term();
            child.wait(STOP_TAKES_AT_MOST).await;
        }
    }

    pub(super) fn freeze(&self, frozen: bool) {
        if let Some(child) = self.locked().as_ref() {
            if frozen { child.stop() } else { child.cont() }
        }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.child
            .lock()
            .expect("no thread panics while it holds the broker")
    }
}

/// Whether the broker tells what it holds, with at least itself as a live broker.
async fn answers(brokers: String) -> bool {
    // librdkafka's call blocks.
    tokio::task::spawn_blocking(move || {
        client(&brokers)
            .fetch_metadata(None, ANSWER_TAKES_AT_MOST)
            .is_ok_and(|answer| !answer.brokers().is_empty())
    })
    .await
    .unwrap_or(false)
}

/// Whether a topic has that many partitions, each with a leader.
pub(super) async fn has_leaders(brokers: String, topic: String, partitions: usize) -> bool {
    tokio::task::spawn_blocking(move || {
        let answer = client(&brokers).fetch_metadata(Some(&topic), ANSWER_TAKES_AT_MOST);
        answer.is_ok_and(|answer| {
            answer.topics().iter().any(|found| {
                found.partitions().len() == partitions
                    && found.partitions().iter().all(|one| one.leader() >= 0)
            })
        })
    })
    .await
    .unwrap_or(false)
}

fn client(brokers: &str) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .expect("a configuration of one constant name is valid")
}

//! `onceward relay` as a user runs it: beside a real database and a real broker.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helper fails the test"
)]

#[path = "../common/mod.rs"]
mod common;
mod operating;
mod refusing;
mod running;

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use common::Shell;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use onceward_testkit::nats::Nats;
use onceward_testkit::postgres::{Database, Postgres};
use onceward_testkit::wait;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(30);

/// A relay that runs as a process of its own, its admin endpoints on whatever port was free.
struct Running {
    child: Child,
    admin: SocketAddr,
    log: JoinHandle<String>,
}

/// What a relay left behind.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    log: String,
}

impl Running {
    async fn start(shell: &Shell) -> Self {
        let mut command = shell.command(&["relay"]);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut log = String::new();
        let mut admin = None;
        while admin.is_none() {
            let line = timeout(SOON, lines.next_line()).await.unwrap().unwrap();
            let line = line.unwrap_or_else(|| panic!("the relay ended: {log}"));
            let event: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            admin = event["address"]
                .as_str()
                .map(|address| address.parse().unwrap());
            log.push_str(&line);
            log.push('\n');
        }
        let log = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                log.push_str(&line);
                log.push('\n');
            }
            log
        });
        let admin = admin.unwrap();
        Self { child, admin, log }
    }

    async fn get(&self, path: &str) -> Option<String> {
        let mut connection = TcpStream::connect(self.admin).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    }

    async fn until_answer(&self, path: &str, part: &str) -> String {
        wait::until(SOON, &format!("{part:?} at {path}"), || async {
            self.get(path).await.filter(|answer| answer.contains(part))
        })
        .await
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.id().unwrap();
        kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
    }

    async fn ended(mut self) -> Ended {
        let status = timeout(SOON, self.child.wait()).await.unwrap().unwrap();
        let log = self.log.await.unwrap();
        Ended {
            code: status.code(),
            log,
        }
    }
}

async fn migrated() -> Database {
    let database = Postgres::shared().await.database().await;
    Shell::with_database(database.url()).ok(&["migrate"]).await;
    database
}

fn shell(database: &Database, topic: &str, nats: &str) -> Shell {
    let text = format!(
        r#"
        source = "/shop/orders"
        [admin]
        listen = "127.0.0.1:0"
        [streams.events]
        topics = ["{topic}"]
        lease_ttl = "6s"
        [streams.events.nats]
        servers = "{nats}"
        "#
    );
    Shell::with_config(&text).variable("DATABASE_URL", database.url())
}

async fn enqueue(database: &Database, topic: &str) {
    sqlx::query("select onceward.enqueue($1, 'hello', 'k')")
        .bind(topic)
        .execute(database.pool())
        .await
        .unwrap();
}

/// A stream for the subject, and whatever is published to it from now on.
async fn subscribe(nats: &Nats, subject: &str) -> async_nats::Subscriber {
    subscribe_up_to(nats, subject, -1).await
}

/// The same for a stream that takes messages of so many bytes.
async fn subscribe_up_to(nats: &Nats, subject: &str, bytes: i32) -> async_nats::Subscriber {
    let client = nats.client().await;
    let stream = async_nats::jetstream::stream::Config {
        name: subject.to_owned(),
        subjects: vec![subject.to_owned()],
        max_message_size: bytes,
        ..Default::default()
    };
    let jetstream = async_nats::jetstream::new(client.clone());
    jetstream.create_stream(stream).await.unwrap();
    client.subscribe(subject.to_owned()).await.unwrap()
}

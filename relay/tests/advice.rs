//! What a relay tells of the settings of its destination, on a real PostgreSQL.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

mod support;

use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use onceward::LogDatabase;
use onceward_core::{
    Batch, Capabilities, PublishError, Publisher, Route, Schema, TopicReport, TopicState,
};
use onceward_memory::{MemoryBroker, MemoryPending, MemoryPublisher};
use onceward_relay::{Destination, Relay, Role, StreamSettings};
use onceward_testkit::postgres::Database;
use onceward_testkit::wait::until_true;
use support::{Running, SOON, database, enqueue, numbered, settings, stores};
use tracing::Level;
use tracing_subscriber::fmt::MakeWriter;

const ADVICE: &str = "old messages are removed unread; set discard = new";

/// A broker whose topics may lose messages, or that does not answer when asked about them.
#[derive(Clone)]
struct Careless {
    broker: MemoryBroker,
    answers: bool,
    asked: Arc<AtomicUsize>,
}

struct Session {
    inner: MemoryPublisher,
    of: Careless,
}

impl Careless {
    fn new(broker: &MemoryBroker, answers: bool) -> Self {
        Self {
            broker: broker.clone(),
            answers,
            asked: Arc::default(),
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Destination for Careless {
    type Publisher = Session;

    async fn open(&self) -> Result<Session, PublishError> {
        Ok(Session {
            inner: self.broker.publisher(),
            of: self.clone(),
        })
    }
}

impl Publisher for Session {
    type Pending = MemoryPending;

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn offer(&mut self, batch: Arc<Batch>) -> MemoryPending {
        self.inner.offer(batch).await
    }

    async fn check(&mut self, routes: &[Route]) -> Vec<TopicReport> {
        self.of.asked.fetch_add(routes.len(), Ordering::Relaxed);
        if !self.of.answers {
            std::future::pending::<()>().await;
        }
        let report = |route: &Route| TopicReport {
            route: route.clone(),
            state: Ok(TopicState {
                max_message: None,
                warnings: vec![ADVICE.to_owned()],
            }),
        };
        routes.iter().map(report).collect()
    }

    async fn abandon(&mut self) {
        self.inner.abandon().await;
    }

    async fn close(self, within: Duration) {
        self.inner.close(within).await;
    }
}

/// What is logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn lines_with(&self, part: &str) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines().filter(|line| line.contains(part));
        lines.map(str::to_owned).collect()
    }

    fn listen(&self) -> tracing::subscriber::DefaultGuard {
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(Level::WARN)
            .with_writer(self.clone());
        tracing::subscriber::set_default(subscriber.finish())
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn relay(database: &Database, destination: Careless, settings: StreamSettings) -> Running {
    let log = LogDatabase::new(database.url().parse().unwrap(), Schema::default());
    let relay = Relay::new(log).stream(settings, destination);
    let status = relay.statuses().remove(0);
    let stop = tokio_util::sync::CancellationToken::new();
    let task = tokio::spawn(relay.run(stop.clone()));
    Running { stop, task, status }
}

fn of_topics(topics: &[&str]) -> StreamSettings {
    let globs = topics.iter().map(|glob| (*glob).try_into().unwrap());
    StreamSettings {
        topics: globs.collect(),
        ..settings()
    }
}

#[tokio::test]
async fn settings_that_could_lose_messages_are_told_at_the_start_while_there_is_nothing_to_publish()
{
    let (database, broker) = (database().await, MemoryBroker::new());
    let log = Log::default();
    let _listening = log.listen();
    let destination = Careless::new(&broker, true);

    let running = relay(&database, destination, of_topics(&["orders", "stock"]));

    until_true(SOON, "a warning", async || {
        !log.lines_with(ADVICE).is_empty()
    })
    .await;
    running.stop().await;
    let told = log.lines_with(ADVICE);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("orders, stock"), "{told:?}");
}

#[tokio::test]
async fn a_topic_of_a_pattern_is_asked_about_once_it_is_met_and_each_is_told_of_once() {
    let (database, broker) = (database().await, MemoryBroker::new());
    let log = Log::default();
    let _listening = log.listen();
    let destination = Careless::new(&broker, true);
    let running = relay(&database, destination.clone(), of_topics(&["orders.*"]));
    enqueue(&database, numbered("orders.paid", 0..10)).await;
    stores(&broker, "orders.paid", 10).await;
    until_true(SOON, "a warning", async || {
        !log.lines_with("orders.paid").is_empty()
    })
    .await;

    // The stream is claimed anew.
    sqlx::query(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()",
    )
    .execute(database.pool())
    .await
    .ok();
    let mut status = running.status.clone();
    let failing = status.wait_for(|status| matches!(status.role, Role::Failing(_)));
    tokio::time::timeout(SOON, failing).await.unwrap().unwrap();
    let held = status.wait_for(|status| status.role == Role::Holder);
    tokio::time::timeout(SOON, held).await.unwrap().unwrap();
    enqueue(&database, numbered("orders.paid", 10..20)).await;
    enqueue(&database, numbered("orders.sent", 0..10)).await;
    stores(&broker, "orders.paid", 20).await;
    until_true(SOON, "a second warning", async || {
        !log.lines_with("orders.sent").is_empty()
    })
    .await;

    running.stop().await;
    let told = log.lines_with(ADVICE);
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(destination.asked(), 2);
}

#[tokio::test]
async fn a_destination_that_never_answers_what_it_is_asked_holds_nothing_up() {
    let (database, broker) = (database().await, MemoryBroker::new());
    let destination = Careless::new(&broker, false);
    let running = relay(&database, destination.clone(), of_topics(&["orders"]));
    until_true(SOON, "a question", async || destination.asked() > 0).await;

    enqueue(&database, numbered("orders", 0..500)).await;

    stores(&broker, "orders", 500).await;
    assert_eq!(running.status.borrow().destination_paused, None);
    running.stop().await;
    assert_eq!(destination.asked(), 1);
}

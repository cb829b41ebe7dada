//! What a relay tells of the settings of its destination, on a real PostgreSQL.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails where it stands"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use onceward::LogDatabase;
use onceward_core::{
    Batch, Capabilities, ErrorKind, PublishError, Publisher, Route, Schema, TopicReport, TopicState,
};
use onceward_memory::{MemoryBroker, MemoryPending, MemoryPublisher};
use onceward_relay::{Destination, Relay, Role, StreamSettings};
use onceward_testkit::Log;
use onceward_testkit::postgres::Database;
use onceward_testkit::wait::until_true;

use crate::support::{Running, SOON, database, enqueue, numbered, settings, stores};

const ADVICE: &str = "old messages are removed unread; set discard = new";

/// What becomes of a question about topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    Answered,
    /// The first one is answered, no other.
    AnsweredOnce,
    Unanswered,
    /// The broker is away for each topic.
    Unavailable,
    /// The session that is opened first, which is the one to ask in, never opens.
    Unopened,
    Panics,
}

/// A broker whose topics may lose messages.
#[derive(Clone)]
struct Careless {
    broker: MemoryBroker,
    question: Question,
    opened: Arc<AtomicUsize>,
    asked: Arc<AtomicUsize>,
}

struct Session {
    inner: MemoryPublisher,
    of: Careless,
}

impl Careless {
    fn new(broker: &MemoryBroker, question: Question) -> Self {
        Self {
            broker: broker.clone(),
            question,
            opened: Arc::default(),
            asked: Arc::default(),
        }
    }

    fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }

    /// How many topics were asked about.
    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Destination for Careless {
    type Publisher = Session;

    async fn open(&self) -> Result<Session, PublishError> {
        let first = self.opened.fetch_add(1, Ordering::Relaxed) == 0;
        if first && self.question == Question::Unopened {
            std::future::pending::<()>().await;
        }
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
        let before = self.of.asked.fetch_add(routes.len(), Ordering::Relaxed);
        match self.of.question {
            Question::Unanswered => std::future::pending().await,
            Question::AnsweredOnce if before > 0 => std::future::pending().await,
            Question::Panics => panic!("a library panicked"),
            Question::Unavailable => {
                let away = || PublishError::new(ErrorKind::Unavailable, "away");
                let report = |route: &Route| TopicReport {
                    route: route.clone(),
                    state: Err(away()),
                };
                routes.iter().map(report).collect()
            }
            Question::Answered | Question::AnsweredOnce | Question::Unopened => {
                let report = |route: &Route| TopicReport {
                    route: route.clone(),
                    state: Ok(TopicState {
                        warnings: vec![ADVICE.to_owned()],
                        ..TopicState::default()
                    }),
                };
                routes.iter().map(report).collect()
            }
        }
    }

    async fn abandon(&mut self) {
        self.inner.abandon().await;
    }

    async fn close(self, within: Duration) {
        self.inner.close(within).await;
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
        // One that a slow machine loses would be held anew, and ask again.
        lease_ttl: Duration::from_secs(40),
        ..settings()
    }
}

#[tokio::test]
async fn settings_that_could_lose_messages_are_told_at_the_start_while_there_is_nothing_to_publish()
{
    let (database, broker) = (database().await, MemoryBroker::new());
    let log = Log::of_this_thread();
    let destination = Careless::new(&broker, Question::Answered);

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
    let log = Log::of_this_thread();
    let destination = Careless::new(&broker, Question::Answered);
    let running = relay(&database, destination.clone(), of_topics(&["orders.*"]));
    enqueue(&database, numbered("orders.paid", 0..10)).await;
    stores(&broker, "orders.paid", 10).await;
    until_true(SOON, "a warning", async || {
        !log.lines_with("orders.paid").is_empty()
    })
    .await;

    // The stream is claimed anew.
    let mut status = running.status.clone();
    let failing = status.wait_for(|status| matches!(status.role, Role::Failing(_)));
    let ended = sqlx::query(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()",
    );
    let (ended, failing) = tokio::join!(
        ended.execute(database.pool()),
        tokio::time::timeout(SOON, failing)
    );
    ended.unwrap();
    drop(failing.unwrap().unwrap());
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
async fn what_is_told_of_some_topics_does_not_wait_for_the_others() {
    let (database, broker) = (database().await, MemoryBroker::new());
    let log = Log::of_this_thread();
    let destination = Careless::new(&broker, Question::AnsweredOnce);

    let running = relay(&database, destination, many());

    until_true(SOON, "a warning", async || {
        !log.lines_with(ADVICE).is_empty()
    })
    .await;
    running.stop().await;
}

/// More topics than are asked about at a time.
fn many() -> StreamSettings {
    let topics: Vec<String> = (0..100).map(|n| format!("orders.{n}")).collect();
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    of_topics(&topics)
}

/// Whatever becomes of the question, messages are published and nothing is paused or held anew. How many sessions were opened, and how many
/// topics were asked about.
async fn is_not_held_up(question: Question, settings: StreamSettings) -> (usize, usize) {
    let (database, broker) = (database().await, MemoryBroker::new());
    let destination = Careless::new(&broker, question);
    let running = relay(&database, destination.clone(), settings);
    let asks = if question == Question::Unopened {
        Careless::opened
    } else {
        Careless::asked
    };
    until_true(SOON, "a question", async || asks(&destination) > 0).await;

    enqueue(&database, numbered("orders.1", 0..500)).await;
    stores(&broker, "orders.1", 500).await;

    let status = running.status.borrow().clone();
    assert_eq!(status.role, Role::Holder);
    assert_eq!(status.destination_paused, None);
    running.stop().await;
    (destination.opened(), destination.asked())
}

#[tokio::test]
async fn a_destination_that_never_answers_what_it_is_asked_holds_nothing_up() {
    let (_, asked) = is_not_held_up(Question::Unanswered, of_topics(&["orders.1"])).await;

    assert_eq!(asked, 1);
}

#[tokio::test]
async fn a_session_to_ask_in_that_never_opens_holds_nothing_up() {
    let counts = is_not_held_up(Question::Unopened, of_topics(&["orders.1"])).await;

    assert_eq!(counts, (2, 0));
}

#[tokio::test]
async fn a_destination_that_is_away_is_not_asked_about_all_its_topics() {
    let (_, asked) = is_not_held_up(Question::Unavailable, many()).await;

    assert_eq!(asked, 10);
}

#[tokio::test]
async fn a_question_that_panics_is_logged_and_the_stream_stays_held() {
    let log = Log::of_this_thread();

    let (_, asked) = is_not_held_up(Question::Panics, of_topics(&["orders.1"])).await;

    until_true(SOON, "its line", async || {
        log.lines_with("panicked").len() == 1
    })
    .await;
    assert!(log.lines_with("database failed").is_empty());
    assert_eq!(asked, 1);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_question_that_is_open() {
    let (database, broker) = (database().await, MemoryBroker::new());
    let destination = Careless::new(&broker, Question::Unanswered);
    let settings = StreamSettings {
        drain: Duration::from_secs(60),
        ..of_topics(&["orders"])
    };
    let running = relay(&database, destination.clone(), settings);
    until_true(SOON, "a question", async || destination.asked() > 0).await;

    // Sooner than the question is given up.
    let stopped = tokio::time::timeout(Duration::from_secs(10), running.stop()).await;

    assert!(stopped.is_ok(), "the stop waited");
}

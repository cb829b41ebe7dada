//! An HTTP gate in front of a server that speaks SQS: it refuses what a test says, keeps answers back, and records what the
//! server has confirmed to store.
//!
//! It runs on a thread of its own, so that it goes on while a test blocks its runtime.

mod rules;
mod serve;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;

use super::Stored;
use crate::free_port;
use crate::proxy::run_on_a_thread;
use rules::Rules;
pub use rules::{Act, Call, Failure};

/// A gate in front of one server. Ends, with all of its connections, when it is dropped.
///
/// What it records is what lies in the queue, in the queue's order: batches of messages reach the server one at a time, a
/// batch is noted when the server has confirmed it and before the sender is told, and it is carried to its end also when the
/// sender dies meanwhile. It does not know what a server stored that died before it answered.
#[derive(Debug)]
pub struct Gate {
    address: SocketAddr,
    shared: Arc<Shared>,
    // Dropping it ends the gate.
    _alive: watch::Sender<()>,
}

/// What connections and tests look at.
#[derive(Debug)]
struct Shared {
    target: u16,
    // Both are held for a few lookups at a time, by connections and by the test; never across an await.
    rules: Mutex<Rules>,
    record: Mutex<Record>,
    /// Whether answers are kept back.
    withhold: watch::Sender<bool>,
    /// Whether connections are broken and new ones are closed at once.
    cut: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Record {
    stored: Vec<(String, Stored)>,
    /// The server's ids of messages that are recorded: one that it recognised as a duplicate is not stored again.
    ids: BTreeSet<String>,
}

impl Shared {
    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    fn note(&mut self, queue: &str, stored: Stored) {
        if self.ids.insert(stored.id.clone()) {
            self.stored.push((queue.to_owned(), stored));
        }
    }
}

impl Gate {
    /// A gate on a free port, to the port of a server on 127.0.0.1.
    ///
    /// # Panics
    /// When it cannot listen within ten seconds.
    pub async fn to(port: u16) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let shared = Arc::new(Shared {
            target: port,
            rules: Mutex::default(),
            record: Mutex::default(),
            withhold: watch::Sender::new(false),
            cut: watch::Sender::new(false),
        });
        let (alive, told) = watch::channel(());
        let (says, mut listens) = watch::channel(false);
        let serving = shared.clone();
        run_on_a_thread(async move {
            let Ok(listener) = TcpListener::bind(address).await else {
                return;
            };
            says.send_replace(true);
            serve::serve(listener, serving, told).await;
        });
        let listening = listens.wait_for(|listens| *listens);
        let listening = tokio::time::timeout(Duration::from_secs(10), listening).await;
        assert!(
            matches!(listening, Ok(Ok(_))),
            "the gate cannot listen on {address}"
        );
        Self {
            address,
            shared,
            _alive: alive,
        }
    }

    /// What clients are given as endpoint.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on a queue says that it takes messages of at most so many bytes, and refuses larger ones, each by itself.
    pub fn limit(&self, queue: &str, bytes: u64) {
        self.shared.rules().limit(queue, bytes);
    }

    /// From now on a queue takes messages of any size that the server takes.
    pub fn lift_limit(&self, queue: &str) {
        self.shared.rules().lift_limit(queue);
    }

    /// From now on sending to a queue is throttled, or no longer.
    pub fn throttle(&self, queue: &str, throttled: bool) {
        self.shared.rules().throttle(queue, throttled);
    }

    /// From now on answers are kept back while requests reach the server; or no longer, and connections that wait for one are
    /// closed.
    pub fn withhold(&self, withheld: bool) {
        self.shared.withhold.send_replace(withheld);
    }

    /// From now on the server is out of reach: connections break, and new ones are closed at once; or it is in reach again. What
    /// the gate has taken over by then still arrives at the server.
    pub fn cut(&self, cut: bool) {
        self.shared.cut.send_replace(cut);
    }

    /// Asks `act` what to do with each call, before anything else. It replaces an earlier one.
    pub fn script(&self, act: impl FnMut(&Call) -> Act + Send + 'static) {
        self.shared.rules().script(Box::new(act));
    }

    /// What the server has confirmed to store in a queue, in its order. What it recognised as a duplicate is there once.
    #[must_use]
    pub fn stored(&self, queue: &str) -> Vec<Stored> {
        self.recording().stored(queue)
    }

    /// What is recorded, now and later.
    #[must_use]
    pub fn recording(&self) -> Recording {
        Recording(self.shared.clone())
    }
}

/// What a gate records. It can be read also when the gate is gone.
#[derive(Debug, Clone)]
pub struct Recording(Arc<Shared>);

impl Recording {
    /// As [`Gate::stored`].
    #[must_use]
    pub fn stored(&self, queue: &str) -> Vec<Stored> {
        let record = self.0.record();
        let of_queue = record.stored.iter().filter(|(name, _)| name == queue);
        of_queue.map(|(_, stored)| stored.clone()).collect()
    }

    /// How many messages are recorded of a queue.
    #[must_use]
    pub fn count(&self, queue: &str) -> usize {
        let record = self.0.record();
        record
            .stored
            .iter()
            .filter(|(name, _)| name == queue)
            .count()
    }
}

//! A subscriber that brings what the test says, and a book of what the consumer did.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use onceward_core::{
    Acker, Arrival, Backlog, Capabilities, Delivery, InFlightPerKey, MAX_PAYLOAD, Message,
    Order as Ordering, Origin, Partition, SubscribeError, Subscriber,
};
use onceward_testkit::wait;
use tokio::sync::mpsc;

use super::SOON;

const HOLD_LIMIT: Duration = Duration::from_secs(3_600);

pub(crate) type Script = Result<Vec<Arrival<u64>>, SubscribeError>;

/// What the consumer did, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Did {
    Ack(u64),
    GiveBack(u64),
    Extend(u64),
    Pause(bool),
    Rest(bool),
    Released,
    Closed,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Book(Arc<Mutex<Vec<Did>>>, Arc<AtomicUsize>, Arc<AtomicBool>);

impl Book {
    pub(crate) fn note(&self, did: Did) {
        self.0.lock().unwrap().push(did);
    }

    /// Has a subscriber that is made after this say that its broker limits how long a delivery may be held.
    pub(crate) fn limit_hold(&self) {
        self.2.store(true, Relaxed);
    }

    pub(crate) fn count(&self, did: &Did) -> usize {
        self.all().iter().filter(|one| *one == did).count()
    }

    /// How often the consumer has asked for the backlog: at its start, and then every five seconds.
    pub(crate) fn backlogs(&self) -> usize {
        self.1.load(Relaxed)
    }

    pub(crate) fn all(&self) -> Vec<Did> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) async fn has(&self, did: Did) {
        let what = format!("{did:?} among {:?}", self.all());
        wait::until_true(SOON, &what, || async { self.all().contains(&did) }).await;
    }
}

/// A subscriber that brings what the test says.
pub(crate) struct Scripted {
    pub(crate) script: mpsc::UnboundedReceiver<Script>,
    pub(crate) book: Book,
}

#[derive(Clone)]
pub(crate) struct ScriptedAcker(Book);

impl Subscriber for Scripted {
    type Token = u64;
    type Acker = ScriptedAcker;

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            broker: "scripted",
            order: Ordering::PerKey,
            in_flight_per_key: InFlightPerKey::Any,
            broker_dedupe: None,
            hold_limit: self.book.2.load(Relaxed).then_some(HOLD_LIMIT),
            redelivery_count: true,
            positions: true,
            retention: None,
            max_message: None,
        }
    }

    fn acker(&self) -> ScriptedAcker {
        ScriptedAcker(self.book.clone())
    }

    async fn next(&mut self, _: usize) -> Script {
        match self.script.recv().await {
            Some(next) => next,
            None => std::future::pending().await,
        }
    }

    fn pause(&mut self, _: &Partition, paused: bool) {
        self.book.note(Did::Pause(paused));
    }

    async fn backlog(&mut self) -> Result<Vec<Backlog>, SubscribeError> {
        self.book.1.fetch_add(1, Relaxed);
        Ok(Vec::new())
    }

    async fn close(self, _: Duration) {
        self.book.note(Did::Closed);
    }
}

impl Acker for ScriptedAcker {
    type Token = u64;

    async fn ack(&self, tokens: Vec<u64>) -> Result<(), SubscribeError> {
        tokens
            .into_iter()
            .for_each(|token| self.0.note(Did::Ack(token)));
        Ok(())
    }

    async fn give_back(&self, tokens: Vec<u64>, _: Duration) -> Result<(), SubscribeError> {
        tokens
            .into_iter()
            .for_each(|token| self.0.note(Did::GiveBack(token)));
        Ok(())
    }

    async fn extend(&self, tokens: Vec<u64>) -> Result<Vec<Option<Instant>>, SubscribeError> {
        let deadline = Instant::now() + Duration::from_millis(300);
        let deadlines = vec![Some(deadline); tokens.len()];
        tokens
            .into_iter()
            .for_each(|token| self.0.note(Did::Extend(token)));
        Ok(deadlines)
    }

    fn rest(&self, resting: bool) {
        self.0.note(Did::Rest(resting));
    }
}

pub(crate) fn partition() -> Partition {
    Partition::new("orders/0")
}

pub(crate) fn delivery(order: u64, deadline: Option<Duration>) -> Arrival<u64> {
    delivery_of(1, order, deadline)
}

pub(crate) fn delivery_of(key: i64, order: u64, deadline: Option<Duration>) -> Arrival<u64> {
    let event = serde_json::json!({ "order": order });
    let draft = Message::json("orders.created", &event).unwrap().key(key);
    let mut message = draft.finish(MAX_PAYLOAD).unwrap().message;
    message.seq = Some(1);
    Arrival::Delivery(Delivery {
        message: Ok(message),
        origin: Origin {
            broker: "scripted",
            partition: partition(),
            position: Some(order),
            redelivered: None,
            sent_at: None,
        },
        deadline: deadline.map(|deadline| Instant::now() + deadline),
        token: order,
    })
}

//! A subscriber that brings what the test says, and a book of what the consumer did; members that read from it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use onceward_consumer::{ConsumerBuilder, ConsumerError, HandlerError, Tx};
use onceward_core::{
    Acker, Arrival, Backlog, Capabilities, Delivery, InFlightPerKey, MAX_PAYLOAD, Message,
    Order as Ordering, Origin, Partition, Release, SubscribeError, Subscriber,
};
use onceward_testkit::wait;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Gate, Order, SOON, Stage, effect, pass_the_gate};

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
pub(crate) struct Book(
    Arc<Mutex<Vec<Did>>>,
    Arc<AtomicUsize>,
    Arc<AtomicBool>,
    Arc<Mutex<Vec<usize>>>,
);

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

    /// For how many deliveries the consumer has asked, without those that were as many as the time before.
    pub(crate) fn rooms(&self) -> Vec<usize> {
        let mut rooms = self.3.lock().unwrap().clone();
        rooms.dedup();
        rooms
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
    /// Said, and not brought yet.
    pub(crate) next: Option<Script>,
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

    async fn next(&mut self, room: usize) -> Script {
        self.book.3.lock().unwrap().push(room);
        if self.next.is_none() {
            self.next = self.script.recv().await;
        }
        let brings = |arrivals: &Vec<Arrival<u64>>| {
            arrivals
                .iter()
                .any(|one| matches!(one, Arrival::Delivery(_)))
        };
        match self
            .next
            .take_if(|next| room > 0 || !next.as_ref().is_ok_and(brings))
        {
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

/// A member whose deliveries the test says.
pub(crate) struct Member {
    pub(crate) script: mpsc::UnboundedSender<Script>,
    pub(crate) book: Book,
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinHandle<Result<(), ConsumerError>>,
}

impl Member {
    pub(crate) fn run(builder: ConsumerBuilder) -> Self {
        Self::run_with(builder, Book::default())
    }

    pub(crate) fn run_with(builder: ConsumerBuilder, book: Book) -> Self {
        let (script, lines) = mpsc::unbounded_channel();
        let subscriber = Scripted {
            script: lines,
            next: None,
            book: book.clone(),
        };
        let stop = CancellationToken::new();
        let consumer = builder.build().unwrap();
        Self {
            task: tokio::spawn(consumer.run(subscriber, stop.clone())),
            script,
            book,
            stop,
        }
    }

    pub(crate) fn say(&self, arrivals: Vec<Arrival<u64>>) {
        self.script.send(Ok(arrivals)).unwrap();
    }

    /// The partition is to be given up; that it was is noted in the book.
    pub(crate) fn revoking(&self, within: Duration) -> Arrival<u64> {
        let book = self.book.clone();
        Arrival::Revoking {
            partition: partition(),
            within,
            release: Release::new(move || book.note(Did::Released)),
        }
    }

    pub(crate) async fn stop(self) -> Vec<Did> {
        self.stop.cancel();
        tokio::time::timeout(SOON, self.task)
            .await
            .expect("the consumer stops in time")
            .expect("the consumer does not panic")
            .expect("the consumer ends well");
        self.book.all()
    }
}

/// A member whose handlers wait at a gate.
pub(crate) struct Play {
    pub(crate) stage: Stage,
    pub(crate) gate: Arc<Gate>,
    pub(crate) member: Member,
}

impl Play {
    /// `handled` gives a builder of this stage its handlers.
    pub(crate) fn on(
        stage: Stage,
        book: Book,
        handled: impl FnOnce(ConsumerBuilder, Arc<Gate>) -> ConsumerBuilder,
    ) -> Self {
        let gate = Arc::new(Gate::new());
        let builder = handled(stage.builder(), gate.clone());
        Self {
            stage,
            gate,
            member: Member::run_with(builder, book),
        }
    }

    /// Stops the member. Gives what took effect, and what it did.
    pub(crate) async fn end(self) -> (Vec<i64>, Vec<Did>) {
        let did = self.member.stop().await;
        (self.stage.effects().await, did)
    }
}

/// Takes effect once it has passed the gate.
pub(crate) async fn waits(gate: Arc<Gate>, event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
    pass_the_gate(&gate, tx).await?;
    effect(event.order, tx).await
}

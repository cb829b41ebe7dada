//! Publishing to a broker in memory: every message is a request of its own and is stored at once.

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use onceward_core::{
    Batch, Capabilities, ErrorKind, InFlightPerKey, Order, PublishError, Publisher, Receipts,
    Route, TopicReport,
};

use crate::MemoryBroker;
use crate::headers::BROKER;
use crate::state::State;

/// One session to a broker in memory.
#[derive(Debug)]
pub struct MemoryPublisher {
    broker: MemoryBroker,
    deadline: Duration,
    session: Session,
    /// Keys of which a message was not confirmed: nothing more of them is sent.
    ended: BTreeSet<String>,
}

/// Tells whether the session is over: the broker was stopped since, or a report was missed.
#[derive(Debug, Clone)]
struct Session {
    run: u64,
    missed: Arc<AtomicBool>,
}

impl Session {
    fn over(&self, state: &State) -> bool {
        state.down || state.run != self.run || self.missed.load(Ordering::Acquire)
    }
}

/// Resolves to the receipts of one offer.
pub struct MemoryPending(Pin<Box<dyn Future<Output = Receipts> + Send>>);

impl Future for MemoryPending {
    type Output = Receipts;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Receipts> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for MemoryPending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryPending")
    }
}

impl MemoryPublisher {
    pub(crate) fn open(broker: MemoryBroker, deadline: Duration) -> Self {
        let session = Session {
            run: broker.lock().run,
            missed: Arc::default(),
        };
        Self {
            broker,
            deadline,
            session,
            ended: BTreeSet::new(),
        }
    }

    fn send(&mut self, batch: &Batch) -> Receipts {
        let mut receipts = Receipts::unconfirmed(batch.messages.len());
        let (session, ended) = (&self.session, &mut self.ended);
        self.broker.change(|state| {
            if session.over(state) {
                receipts.end_session(over());
                return;
            }
            for (index, outgoing) in batch.messages.iter().enumerate() {
                receipts.set(index, state.offer(outgoing, ended, SystemTime::now()));
            }
        });
        receipts
    }
}

/// Holds receipts back for as long as the broker withholds reports, at most until the deadline.
async fn report(
    broker: MemoryBroker,
    session: Session,
    deadline: Duration,
    receipts: Receipts,
) -> Receipts {
    let reported = async {
        let mut changes = broker.changes();
        loop {
            let (withheld, over) = {
                let state = broker.lock();
                (state.withheld, session.over(&state))
            };
            if !withheld || over || changes.changed().await.is_err() {
                return over;
            }
        }
    };
    match tokio::time::timeout(deadline, reported).await {
        Ok(false) => receipts,
        Ok(true) | Err(_) if receipts.session_over().is_some() => receipts,
        Ok(true) | Err(_) => {
            session.missed.store(true, Ordering::Release);
            let mut unknown = Receipts::unconfirmed(receipts.outcomes().len());
            unknown.end_session(over());
            unknown
        }
    }
}

fn over() -> PublishError {
    PublishError::new(ErrorKind::Unavailable, "the session to the broker is over")
}

impl Publisher for MemoryPublisher {
    type Pending = MemoryPending;

    fn capabilities(&self) -> Capabilities {
        capabilities()
    }

    async fn offer(&mut self, batch: Arc<Batch>) -> MemoryPending {
        let receipts = self.send(&batch);
        let withheld = self.broker.lock().withheld;
        if !withheld {
            return MemoryPending(Box::pin(std::future::ready(receipts)));
        }
        let (broker, session) = (self.broker.clone(), self.session.clone());
        MemoryPending(Box::pin(report(broker, session, self.deadline, receipts)))
    }

    async fn check(&mut self, routes: &[Route]) -> Vec<TopicReport> {
        let mut state = self.broker.lock();
        routes.iter().map(|route| state.check(route)).collect()
    }

    async fn abandon(&mut self) {
        self.session.missed.store(true, Ordering::Release);
    }

    async fn close(self, _within: Duration) {}
}

/// What a broker in memory promises.
pub(crate) fn capabilities() -> Capabilities {
    Capabilities {
        broker: BROKER,
        order: Order::PerKey,
        in_flight_per_key: InFlightPerKey::Any,
        broker_dedupe: None,
        hold_limit: None,
        redelivery_count: true,
        positions: true,
        retention: None,
        max_message: None,
    }
}

//! Sessions that a broker ends by itself, on a real PostgreSQL.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::time::Duration;

use onceward::LogDatabase;
use onceward_core::{
    Batch, Capabilities, ErrorKind, PublishError, Publisher, Receipts, Route, Schema, TopicReport,
};
use onceward_memory::MemoryBroker;
use onceward_relay::{Destination, Relay};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::support::{SOON, database, enqueue, numbered, settings};

/// A broker that knows nobody: each session ends without having taken anything.
struct Stranger;

struct Session;

impl Destination for Stranger {
    type Publisher = Session;

    async fn open(&self) -> Result<Session, PublishError> {
        Ok(Session)
    }
}

fn unknown_key() -> PublishError {
    PublishError::new(ErrorKind::Unauthorized, "the key is unknown")
}

impl Publisher for Session {
    type Pending = Ready<Receipts>;

    fn capabilities(&self) -> Capabilities {
        MemoryBroker::new().publisher().capabilities()
    }

    async fn offer(&mut self, batch: Arc<Batch>) -> Self::Pending {
        let mut receipts = Receipts::unconfirmed(batch.messages.len());
        receipts.end_session(unknown_key());
        ready(receipts)
    }

    async fn check(&mut self, routes: &[Route]) -> Vec<TopicReport> {
        let report = |route: &Route| TopicReport {
            route: route.clone(),
            state: Err(unknown_key()),
        };
        routes.iter().map(report).collect()
    }

    async fn abandon(&mut self) {}

    async fn close(self, _within: Duration) {}
}

#[tokio::test]
async fn a_session_that_its_broker_ends_is_told_with_the_brokers_reason() {
    let database = database().await;
    enqueue(&database, numbered("orders", 0..1)).await;
    let log = LogDatabase::new(database.url().parse().unwrap(), Schema::default());
    let relay = Relay::new(log).stream(settings(), Stranger);
    let mut status = relay.statuses().remove(0);
    let stop = CancellationToken::new();
    let running = tokio::spawn(relay.run(stop.clone()));

    let paused = status.wait_for(|status| status.destination_paused.is_some());
    // Not held: whoever looks keeps the relay from telling more.
    let paused = timeout(SOON, paused).await.unwrap().unwrap().clone();
    let paused = paused.destination_paused.unwrap();

    assert_eq!(paused.what, "the key is unknown");
    assert_eq!(paused.kind, "unauthorized");
    stop.cancel();
    running.await.unwrap().unwrap();
}

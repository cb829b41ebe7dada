//! What is particular to SQS, on a real server behind a gate that refuses and loses what a test says.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod consuming;
mod credentials;
mod publishing;

use std::sync::Arc;
use std::time::Duration;

use onceward_core::{
    Arrival, Batch, Delivery, ErrorKind, MAX_PAYLOAD, Message, Outcome, Outgoing, Publisher as _,
    Receipts, Route, Subscriber as _,
};
use onceward_sqs::{Sqs, SqsConfig, SqsPublisher, SqsSubscriber, SqsToken, SubscriberConfig};
use onceward_testkit::sqs::{Gate, Sqs as Server};
use onceward_testkit::unique;

const PATIENCE: Duration = Duration::from_secs(30);

struct Stage {
    server: &'static Server,
    gate: Gate,
    queue: String,
}

impl Stage {
    /// A FIFO queue that nobody else uses.
    async fn fifo() -> Self {
        let stage = Self::without_queue().await;
        stage.server.create_queue(&stage.queue, &[]).await;
        stage
    }

    async fn without_queue() -> Self {
        let server = Server::shared().await;
        Self {
            server,
            gate: Gate::to(server.port()).await,
            queue: format!("{}.fifo", unique("own")),
        }
    }

    fn sqs(&self) -> Sqs {
        Sqs::new(SqsConfig::emulator(self.gate.url()))
    }

    async fn session(&self) -> SqsPublisher {
        self.sqs().publisher().await.unwrap()
    }

    async fn member(&self, visibility: Duration) -> SqsSubscriber {
        let mut config = SubscriberConfig::new([&self.queue]);
        config.visibility = visibility;
        config.wait = Duration::from_secs(1);
        self.sqs().subscriber(config).await.unwrap()
    }

    fn message(&self, key: &str, payload: impl Into<Vec<u8>>) -> Outgoing {
        let draft = Message::bytes("orders.created", payload.into()).key(key);
        Outgoing {
            route: Route::new(&self.queue),
            message: draft.finish(4 * MAX_PAYLOAD).unwrap().message,
            replay: None,
        }
    }

    fn bodies(&self) -> Vec<String> {
        let stored = self.gate.stored(&self.queue);
        stored.into_iter().map(|one| one.body).collect()
    }
}

async fn offer(session: &mut SqsPublisher, messages: &[Outgoing]) -> Receipts {
    let messages = messages.to_vec();
    let pending = session.offer(Arc::new(Batch { messages })).await;
    tokio::time::timeout(PATIENCE, pending).await.unwrap()
}

fn kind(outcome: &Outcome) -> Option<ErrorKind> {
    match outcome {
        Outcome::Failed(error) | Outcome::Suspect(error) => Some(error.kind),
        Outcome::Confirmed | Outcome::Unconfirmed => None,
    }
}

/// Reads until so many deliveries have come.
async fn read(member: &mut SqsSubscriber, count: usize) -> Vec<Delivery<SqsToken>> {
    let mut deliveries = Vec::new();
    let reading = async {
        while deliveries.len() < count {
            for arrival in member.next(count - deliveries.len()).await.unwrap() {
                if let Arrival::Delivery(delivery) = arrival {
                    deliveries.push(delivery);
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.unwrap();
    deliveries
}

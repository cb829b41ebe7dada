//! Publishing to JetStream: the handle to a session that lives in a task of its own.

mod check;
mod in_flight;
mod session;
mod warnings;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_nats::jetstream;
use onceward_core::{
    Batch, Capabilities, ErrorKind, InFlightPerKey, Order, PublishError, Publisher, Receipts,
    Report, Route, TopicReport,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::config::NatsConfig;
use crate::connection::{self, Connection};
use crate::headers::BROKER;
pub(crate) use check::stream_of;
use session::{Request, Session};

/// The server's default for `duplicate_window`; each stream may have its own.
const USUAL_DEDUPE_WINDOW: Duration = Duration::from_secs(120);
const ABANDON_TAKES_AT_MOST: Duration = Duration::from_secs(1);

/// One session to NATS JetStream, on a connection of its own.
///
/// At most one message of a key is unconfirmed at a time, over all offers; many keys are on their way at once. The session is
/// over once its connection is lost or a report misses its deadline. Dropping it ends it at once.
#[derive(Debug)]
pub struct NatsPublisher {
    requests: mpsc::Sender<Request>,
    context: jetstream::Context,
    max_payload: u64,
    /// An offer was begun and not ended: cancelled if the next one finds it so.
    offering: bool,
    session: JoinSet<()>,
}

/// Resolves to the receipts of one offer.
#[derive(Debug)]
pub struct NatsPending {
    receipts: oneshot::Receiver<Receipts>,
    messages: usize,
}

impl NatsPublisher {
    /// Opens a session.
    ///
    /// # Errors
    /// [`PublishError`] of kind `Unauthorized` when NATS refuses the credentials, else `Unavailable`.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub async fn connect(config: &NatsConfig) -> Result<Self, PublishError> {
        let connection = connection::fleeting(config).await?;
        let Connection { client, .. } = &connection;
        let context = jetstream::context::ContextBuilder::new()
            .timeout(config.request_timeout)
            .build(client.clone());
        let max_payload = client.server_info().max_payload as u64;
        let (requests, inbox) = mpsc::channel(1);
        let session = Session::open(connection, config, inbox).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(session.run());
        Ok(Self {
            requests,
            context,
            max_payload,
            offering: false,
            session: tasks,
        })
    }
}

impl Publisher for NatsPublisher {
    type Pending = NatsPending;

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            broker: BROKER,
            order: Order::PerKey,
            in_flight_per_key: InFlightPerKey::One,
            broker_dedupe: Some(USUAL_DEDUPE_WINDOW),
            hold_limit: None,
            redelivery_count: false,
            positions: true,
            retention: None,
            max_message: Some(self.max_payload),
        }
    }

    async fn offer(&mut self, batch: Arc<Batch>) -> NatsPending {
        let (report, receipts) = oneshot::channel();
        let messages = batch.messages.len();
        let cancelled = std::mem::replace(&mut self.offering, true);
        if cancelled {
            self.abandon().await;
        }
        // A session that is gone drops the request, and with it the report: the pending future tells.
        let report = Report::new(move |receipts| {
            // Whoever dropped the pending future does not want to know.
            report.send(receipts).ok();
        });
        if let Ok(place) = self.requests.reserve().await {
            let taken = Instant::now();
            place.send(Request::Offer {
                batch,
                report,
                taken,
            });
        }
        self.offering = false;
        NatsPending { receipts, messages }
    }

    async fn check(&mut self, routes: &[Route]) -> Vec<TopicReport> {
        check::routes(&self.context, self.max_payload, routes).await
    }

    async fn abandon(&mut self) {
        let (done, wait) = oneshot::channel();
        let abandoned = async {
            if self.requests.send(Request::Abandon(done)).await.is_ok() {
                wait.await.ok();
            }
        };
        if tokio::time::timeout(ABANDON_TAKES_AT_MOST, abandoned)
            .await
            .is_err()
        {
            self.session.abort_all();
        }
    }

    async fn close(self, within: Duration) {
        let (done, wait) = oneshot::channel();
        let closed = async {
            if self.requests.send(Request::Close(done)).await.is_ok() {
                wait.await.ok();
            }
        };
        // What has not arrived by then is unconfirmed; dropping the session says so.
        tokio::time::timeout(within, closed).await.ok();
    }
}

impl Future for NatsPending {
    type Output = Receipts;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Receipts> {
        let messages = self.messages;
        Pin::new(&mut self.receipts).poll(cx).map(|received| {
            received.unwrap_or_else(|_| {
                let mut receipts = Receipts::unconfirmed(messages);
                receipts.end_session(PublishError::new(
                    ErrorKind::Unavailable,
                    "the session to NATS is over",
                ));
                receipts
            })
        })
    }
}

//! Publishing to SQS: the handle to a session that lives in a task of its own.

mod call;
mod check;
mod lanes;
mod session;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use aws_sdk_sqs::Client;
use onceward_core::{
    Batch, Capabilities, ErrorKind, InFlightPerKey, Order, PublishError, Publisher, Receipts,
    Report, Route, TopicReport,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::attributes::MOST_BYTES;
use crate::config::SqsConfig;
use crate::connection;
use crate::errors::Trouble;
use crate::headers::BROKER;
use crate::subscriber::HOLD_LIMIT;
use session::{Request, Session};

/// For how long a FIFO queue recognises a deduplication id.
const DEDUPE_WINDOW: Duration = Duration::from_secs(5 * 60);
const ABANDON_TAKES_AT_MOST: Duration = Duration::from_secs(1);

/// One session to SQS.
///
/// Messages go in calls of up to ten, many calls at once; of each group of a FIFO queue at most one message is unconfirmed, over
/// all calls and offers. The session is over once an answer is lost, a call misses its deadline or the credentials are
/// refused. Dropping it ends it at once.
#[derive(Debug)]
pub struct SqsPublisher {
    requests: mpsc::Sender<Request>,
    client: Client,
    order: Order,
    /// An offer was begun and not ended: cancelled if the next one finds it so.
    offering: bool,
    session: JoinSet<()>,
}

/// Resolves to the receipts of one offer.
#[derive(Debug)]
pub struct SqsPending {
    receipts: oneshot::Receiver<Receipts>,
    messages: usize,
}

impl SqsPublisher {
    pub(crate) fn open(client: Client, config: &SqsConfig) -> Self {
        let (requests, inbox) = mpsc::channel(1);
        let mut session = JoinSet::new();
        session.spawn(Session::new(client.clone(), config, inbox).run());
        Self {
            requests,
            client,
            order: config.order,
            offering: false,
            session,
        }
    }
}

impl SqsPublisher {
    /// Asks whether SQS answers, whatever queues it has: by `ListQueues`, where a refusal for lack of that right is an answer too.
    ///
    /// # Errors
    /// [`PublishError`] of kind `Unauthorized` when there are no credentials or SQS does not know them, else `Unavailable`.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub async fn reach(&self) -> Result<(), PublishError> {
        let reached = Box::pin(connection::reach(&self.client)).await;
        reached.map_err(Trouble::into_publish_error)
    }
}

impl Publisher for SqsPublisher {
    type Pending = SqsPending;

    fn capabilities(&self) -> Capabilities {
        let (in_flight_per_key, broker_dedupe) = match self.order {
            Order::PerKey => (InFlightPerKey::One, Some(DEDUPE_WINDOW)),
            Order::None => (InFlightPerKey::Any, None),
        };
        Capabilities {
            broker: BROKER,
            order: self.order,
            in_flight_per_key,
            broker_dedupe,
            hold_limit: Some(HOLD_LIMIT),
            redelivery_count: true,
            positions: false,
            retention: None,
            max_message: Some(MOST_BYTES),
        }
    }

    async fn offer(&mut self, batch: Arc<Batch>) -> SqsPending {
        let (report, receipts) = oneshot::channel();
        let messages = batch.messages.len();
        let cancelled = std::mem::replace(&mut self.offering, true);
        if cancelled {
            self.abandon().await;
        }
        let report = Report::new(move |receipts| {
            // Whoever dropped the pending future does not want to know.
            report.send(receipts).ok();
        });
        // A session that is gone drops the request, and with it the report: the pending future tells.
        if let Ok(place) = self.requests.reserve().await {
            let taken = Instant::now();
            place.send(Request::Offer {
                batch,
                report,
                taken,
            });
        }
        self.offering = false;
        SqsPending { receipts, messages }
    }

    async fn check(&mut self, routes: &[Route]) -> Vec<TopicReport> {
        check::routes(&self.client, self.order, routes).await
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

impl Future for SqsPending {
    type Output = Receipts;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Receipts> {
        let messages = self.messages;
        Pin::new(&mut self.receipts).poll(cx).map(|received| {
            received.unwrap_or_else(|_| {
                let mut receipts = Receipts::unconfirmed(messages);
                receipts.end_session(PublishError::new(
                    ErrorKind::Unavailable,
                    "the session to SQS is over",
                ));
                receipts
            })
        })
    }
}

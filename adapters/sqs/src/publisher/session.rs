//! One session: the task that owns the queue, sends, and matches answers with messages.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_sdk_sqs::Client;
use aws_sdk_sqs::operation::send_message_batch::SendMessageBatchOutput;
use onceward_core::{
    Batch, ErrorKind, OfferTicket, Offers, OnePerKey, Order, Outcome, Over, PublishError, Report,
    Route,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};

use super::lanes::{Lanes, OrderKey, Ready, Sent};
use super::{call, check};
use crate::config::SqsConfig;
use crate::connection::{self, Queue};
use crate::errors::{self, Trouble};
use crate::headers;

/// What the handle asks of the session.
#[derive(Debug)]
pub(crate) enum Request {
    /// Take these messages, which were handed over at that time.
    Offer {
        batch: Arc<Batch>,
        report: Report,
        taken: Instant,
    },
    /// Send nothing more.
    Abandon(oneshot::Sender<()>),
    /// Tell when every offer is answered.
    Close(oneshot::Sender<()>),
}

/// A call that has ended.
enum Done {
    Sent {
        route: Route,
        sent: Vec<Sent>,
        answer: Result<SendMessageBatchOutput, Trouble>,
    },
    Asked {
        route: Route,
        found: Result<Queue, Trouble>,
    },
    /// It was not answered by the deadline.
    Late,
}

/// Why a session is over whose queue says nothing.
const SILENT: &str = "SQS did not answer for a message by the deadline";

/// Makes a call that has so long to be answered.
async fn within(deadline: Duration, call: impl Future<Output = Done>) -> Done {
    let done = tokio::time::timeout(deadline, call).await;
    done.unwrap_or(Done::Late)
}

pub(crate) struct Session {
    client: Client,
    requests: mpsc::Receiver<Request>,
    waiting: OnePerKey<OrderKey, OfferTicket>,
    lanes: Lanes,
    /// When a call was answered last, or the first of those under way was made.
    heard: Instant,
    calls: JoinSet<Done>,
    /// Messages in calls that are not answered.
    in_flight: usize,
    offers: Offers,
    closing: Vec<oneshot::Sender<()>>,
    over: Option<Over>,
    order: Order,
    deadline: Duration,
    max_in_flight: usize,
    max_calls: usize,
}

/// What the session waits for.
enum Event {
    Done(Result<Done, JoinError>),
    Request(Option<Request>),
    /// Of the offer that was taken first.
    OfferDeadline,
}

impl Session {
    pub(crate) fn new(
        client: Client,
        config: &SqsConfig,
        requests: mpsc::Receiver<Request>,
    ) -> Self {
        Self {
            client,
            requests,
            waiting: OnePerKey::new(),
            lanes: Lanes::default(),
            calls: JoinSet::new(),
            heard: Instant::now(),
            in_flight: 0,
            offers: Offers::default(),
            closing: Vec::new(),
            over: None,
            order: config.order,
            deadline: config.deadline,
            max_in_flight: config.max_in_flight.max(1),
            max_calls: config.max_calls.max(1),
        }
    }

    /// Runs until the handle is dropped.
    pub(crate) async fn run(mut self) {
        loop {
            match self.next_event().await {
                Event::Done(Ok(done)) => self.on_done(done),
                Event::Done(Err(_)) => {
                    self.end(
                        ErrorKind::Unavailable,
                        "a call to SQS ended without an answer",
                    );
                }
                Event::Request(Some(request)) => self.on_request(request).await,
                Event::Request(None) => return,
                Event::OfferDeadline => self.answer_late(Instant::now()),
            }
            self.send_what_may_go();
            if self.offers.is_empty() {
                for done in self.closing.drain(..) {
                    done.send(()).ok();
                }
            }
        }
    }

    async fn next_event(&mut self) -> Event {
        let live = self.over.is_none();
        // One window may wait behind the one that is on its way; more is the caller's to hold.
        let room = !live || self.waiting.len() < self.max_in_flight;
        let offer = self.offers.oldest().filter(|_| live);
        let of_offer = offer.map_or_else(Instant::now, |taken| taken + self.deadline);
        tokio::select! {
            biased;
            Some(done) = self.calls.join_next(), if live => Event::Done(done),
            request = self.requests.recv(), if room => Event::Request(request),
            () = tokio::time::sleep_until(of_offer.into()), if offer.is_some() => Event::OfferDeadline,
        }
    }

    fn on_done(&mut self, done: Done) {
        self.heard = Instant::now();
        match done {
            Done::Sent {
                route,
                sent,
                answer,
            } => {
                self.in_flight -= sent.len();
                self.on_answer(&route, sent, answer);
            }
            Done::Asked {
                route,
                found: Ok(queue),
            } => self.lanes.found(&route, queue),
            Done::Asked {
                route,
                found: Err(trouble),
            } => {
                self.lanes.forget(&route);
                if self.ends(&trouble) {
                    return;
                }
                for ready in self.lanes.take_all(&route) {
                    let outcome = Outcome::Suspect(trouble.to_publish_error());
                    self.settle(ready.sent, outcome);
                }
            }
            Done::Late => self.end(ErrorKind::Unavailable, SILENT),
        }
    }

    fn on_answer(
        &mut self,
        route: &Route,
        sent: Vec<Sent>,
        answer: Result<SendMessageBatchOutput, Trouble>,
    ) {
        let outcomes = match &answer {
            Ok(answer) => call::outcomes(sent.len(), answer),
            Err(trouble) if self.ends(trouble) => return,
            Err(trouble) => call::refused(sent.len(), trouble),
        };
        let limit = self.lanes.limit(route);
        let all_well = |outcome: &Outcome| matches!(outcome, Outcome::Confirmed);
        if !outcomes.iter().all(all_well) {
            // What is known of the queue, its limit above all, may no longer hold.
            self.lanes.forget(route);
        }
        for (sent, outcome) in sent.into_iter().zip(outcomes) {
            let outcome = self.with_size(sent.ticket, outcome, limit);
            self.settle(sent, outcome);
        }
    }

    /// Tells of a message that is too large how large it is: SQS does not.
    fn with_size(&self, ticket: OfferTicket, outcome: Outcome, limit: Option<u64>) -> Outcome {
        match outcome {
            Outcome::Failed(error) if error.kind == ErrorKind::TooLarge => {
                let outgoing = self.offers.message(ticket);
                let entry = outgoing.and_then(|outgoing| headers::encode(outgoing).ok());
                Outcome::Failed(match entry {
                    Some(entry) => errors::with_size(error, &entry, limit),
                    None => error,
                })
            }
            Outcome::Failed(_)
            | Outcome::Confirmed
            | Outcome::Suspect(_)
            | Outcome::Unconfirmed => outcome,
        }
    }

    /// Ends the session over a call of which nobody knows what it did, and over credentials that nothing can be done with.
    fn ends(&mut self, trouble: &Trouble) -> bool {
        let ends = trouble.unknown || trouble.credentials;
        if ends {
            self.end(trouble.kind, &trouble.what);
        }
        ends
    }

    fn settle(&mut self, sent: Sent, outcome: Outcome) {
        let confirmed = matches!(outcome, Outcome::Confirmed);
        self.offers.answer(sent.ticket, outcome);
        let Some(key) = sent.key else { return };
        if confirmed {
            self.waiting.confirmed(key);
            return;
        }
        for follower in self.waiting.end(key) {
            self.offers.answer(follower, Outcome::Unconfirmed);
        }
    }

    async fn on_request(&mut self, request: Request) {
        match (request, &self.over) {
            (Request::Offer { batch, report, .. }, Some(over)) => {
                Offers::refuse(over, batch.messages.len(), report);
            }
            (
                Request::Offer {
                    batch,
                    report,
                    taken,
                },
                None,
            ) => self.queue(batch, report, taken),
            (Request::Close(done), _) => self.closing.push(done),
            (Request::Abandon(done), _) => {
                self.end(ErrorKind::Unavailable, "the session was abandoned");
                // Until the last call is gone, it could still begin to send.
                self.calls.shutdown().await;
                done.send(()).ok();
            }
        }
    }

    fn queue(&mut self, batch: Arc<Batch>, report: Report, taken: Instant) {
        for ticket in self.offers.open(batch, report, taken) {
            let key = self.order_key(ticket);
            if let Some(ended) = self.waiting.push(key, ticket) {
                self.offers.answer(ended, Outcome::Unconfirmed);
            }
        }
    }

    /// What a message keeps order by: none in a standard queue, nor where no queue is named.
    fn order_key(&mut self, ticket: OfferTicket) -> Option<OrderKey> {
        let outgoing = self.offers.message(ticket)?;
        let route = &outgoing.route;
        let order = self.order;
        let name = self.lanes.name(route, || check::queue(order, route)).ok()?;
        let fifo = name.is_fifo();
        fifo.then(|| (route.clone(), headers::group(outgoing)))
    }

    fn send_what_may_go(&mut self) {
        while self.over.is_none() && self.in_flight + self.lanes.len() < self.max_in_flight {
            let Some((key, ticket)) = self.waiting.pop() else {
                break;
            };
            let sent = Sent { ticket, key };
            if self.offers.message(ticket).is_none() {
                // Its offer was late and is answered.
                continue;
            }
            if let Err((sent, error)) = self.prepare(sent) {
                self.settle(sent, Outcome::Failed(error));
            }
        }
        while let Some((route, name)) = self.lanes.ask() {
            let client = self.client.clone();
            let call = async move {
                let found = connection::find(&client, &name).await;
                Done::Asked { route, found }
            };
            self.call(call);
        }
        while self.calls.len() < self.max_calls {
            let Some((route, url, ready)) = self.lanes.next_call() else {
                return;
            };
            self.send(route, url, ready);
        }
    }

    /// Answers what was offered a deadline ago. If no call was answered for long, SQS is silent; else it answers, and a backlog of one
    /// group was too long: what is not confirmed goes in a new session.
    fn answer_late(&mut self, now: Instant) {
        if !self.calls.is_empty() && now.duration_since(self.heard) >= self.deadline / 2 {
            self.end(ErrorKind::Unavailable, SILENT);
            return;
        }
        let late = now.checked_sub(self.deadline);
        let late = late.map(|by| self.offers.unanswered(by));
        for ticket in late.unwrap_or_default() {
            let key = self.order_key(ticket);
            self.settle(Sent { ticket, key }, Outcome::Unconfirmed);
        }
    }

    fn prepare(&mut self, sent: Sent) -> Result<(), (Sent, PublishError)> {
        let Some(outgoing) = self.offers.message(sent.ticket) else {
            return Ok(());
        };
        let order = self.order;
        let route = &outgoing.route;
        let name = self.lanes.name(route, || check::queue(order, route));
        let prepared = name.and_then(|name| {
            let fifo = name.is_fifo();
            Ok((fifo, headers::encode(outgoing)?))
        });
        let (fifo, entry) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return Err((sent, error)),
        };
        let ready = Ready {
            sent,
            entry,
            group: fifo.then(|| headers::group(outgoing)),
            dedupe: fifo.then(|| headers::dedupe(outgoing)),
        };
        self.lanes.push(&outgoing.route, ready);
        Ok(())
    }

    fn send(&mut self, route: Route, url: String, ready: Vec<Ready>) {
        let (sent, entries) = match call::entries(ready) {
            Ok(entries) => entries,
            // Nothing was sent, but who of them is lost on the way is not known either.
            Err(error) => return self.end(error.kind, &error.what),
        };
        self.in_flight += sent.len();
        let client = self.client.clone();
        let call = async move {
            let answer = call::send(client, url, entries).await;
            Done::Sent {
                route,
                sent,
                answer,
            }
        };
        self.call(call);
    }

    fn call(&mut self, call: impl Future<Output = Done> + Send + 'static) {
        if self.calls.is_empty() {
            self.heard = Instant::now();
        }
        self.calls.spawn(Box::pin(within(self.deadline, call)));
    }

    fn end(&mut self, kind: ErrorKind, what: &str) {
        let over = self.over.get_or_insert_with(|| {
            tracing::info!(reason = what, "session to SQS is over");
            Over::new(kind, what)
        });
        self.offers.end(over);
        self.waiting.clear();
        self.lanes.clear();
        // What is not on the wire yet leaves no more.
        self.calls.abort_all();
        self.in_flight = 0;
    }
}

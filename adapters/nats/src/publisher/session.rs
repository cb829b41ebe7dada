//! One session: the task that owns the queue, sends, and matches reports with messages.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::client::PublishErrorKind;
use async_nats::{Client, Message, Subject, Subscriber};
use futures_util::StreamExt as _;
use onceward_core::{
    Batch, ErrorKind, Key, OfferTicket as Ticket, Offers, OnePerKey, Outcome, Over, PublishError,
    Report, Route,
};
use tokio::sync::{mpsc, oneshot};

use super::in_flight::InFlight;
use crate::config::NatsConfig;
use crate::connection::{Connection, Happening};
use crate::{errors, headers};

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

/// Why a session is over whose server says nothing.
const SILENT: &str = "NATS did not report a message by the deadline";

/// Order holds per route and key.
type OrderKey = (Route, Key);

/// A message on its way.
#[derive(Debug)]
struct Sent {
    ticket: Ticket,
    key: Option<OrderKey>,
}

pub(crate) struct Session {
    client: Client,
    connection: Connection,
    requests: mpsc::Receiver<Request>,
    /// Reports arrive under this prefix, with the message's number behind it.
    inbox: String,
    reports: Subscriber,
    waiting: OnePerKey<OrderKey, Ticket>,
    in_flight: InFlight<Sent>,
    offers: Offers,
    closing: Vec<oneshot::Sender<()>>,
    over: Option<Over>,
    deadline: Duration,
    max_in_flight: usize,
}

/// What the session waits for.
enum Event {
    Happening(Option<Happening>),
    Report(Option<Message>),
    Request(Option<Request>),
    /// Of the message that was sent first.
    Deadline,
    /// Of the offer that was taken first.
    OfferDeadline,
}

impl Session {
    pub(crate) async fn open(
        connection: Connection,
        config: &NatsConfig,
        requests: mpsc::Receiver<Request>,
    ) -> Result<Self, PublishError> {
        let client = connection.client.clone();
        let inbox = format!("{}.", client.new_inbox());
        let subscribed = client.subscribe(format!("{inbox}*")).await;
        let reports = subscribed.map_err(|error| {
            PublishError::with_source(ErrorKind::Unavailable, "NATS does not answer", error)
        })?;
        Ok(Self {
            client,
            connection,
            requests,
            inbox,
            reports,
            waiting: OnePerKey::new(),
            in_flight: InFlight::new(),
            offers: Offers::default(),
            closing: Vec::new(),
            over: None,
            deadline: config.deadline,
            max_in_flight: config.max_in_flight.max(1),
        })
    }

    /// Runs until the handle is dropped.
    pub(crate) async fn run(mut self) {
        loop {
            match self.next_event().await {
                Event::Happening(happening) => self.on_happening(happening),
                Event::Report(Some(message)) => self.on_report(&message),
                Event::Report(None) => {
                    self.end(ErrorKind::Unavailable, "the connection to NATS is lost");
                }
                Event::Request(Some(request)) => self.on_request(request).await,
                Event::Request(None) => return,
                Event::Deadline => self.end(ErrorKind::Unavailable, SILENT),
                Event::OfferDeadline => self.answer_late(Instant::now()),
            }
            self.send_what_may_go().await;
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
        let oldest = self.in_flight.oldest().filter(|_| live);
        let deadline = oldest.map_or_else(Instant::now, |sent| sent + self.deadline);
        let offer = self.offers.oldest().filter(|_| live);
        let of_offer = offer.map_or(deadline, |taken| taken + self.deadline);
        tokio::select! {
            biased;
            happening = self.connection.happenings.recv(), if live => Event::Happening(happening),
            report = self.reports.next(), if live => Event::Report(report),
            request = self.requests.recv(), if room => Event::Request(request),
            () = tokio::time::sleep_until(deadline.into()), if oldest.is_some() => Event::Deadline,
            () = tokio::time::sleep_until(of_offer.into()), if offer.is_some() => Event::OfferDeadline,
        }
    }

    fn on_happening(&mut self, happening: Option<Happening>) {
        match happening {
            Some(Happening::Up) => {}
            Some(Happening::Down) | None => {
                self.end(ErrorKind::Unavailable, "the connection to NATS is lost");
            }
            Some(Happening::Told(told)) => {
                if let Some(subject) = errors::forbidden_subject(&told) {
                    self.forbidden(subject);
                } else if errors::forbids_all(&told) {
                    self.end(ErrorKind::Unauthorized, "NATS refuses who we are");
                }
            }
        }
    }

    /// NATS answers a forbidden publish beside the connection's stream of reports, by the subject's name only.
    fn forbidden(&mut self, subject: &str) {
        let offers = &self.offers;
        let to_subject = |sent: &Sent| {
            let message = offers.message(sent.ticket);
            message.is_some_and(|outgoing| outgoing.route.as_str() == subject)
        };
        for number in self.in_flight.numbers(to_subject) {
            let error = PublishError::new(
                ErrorKind::Unauthorized,
                format!("we may not publish to {subject}"),
            );
            self.settle(number, Err(error));
        }
    }

    fn on_report(&mut self, message: &Message) {
        let number = message.subject.strip_prefix(self.inbox.as_str());
        if let Some(number) = number.and_then(|number| number.parse().ok()) {
            self.settle(number, errors::answer(message));
        }
    }

    fn settle(&mut self, number: u64, result: Result<(), PublishError>) {
        let Some(sent) = self.in_flight.reported(number) else {
            return;
        };
        match result {
            Ok(()) => {
                self.offers.answer(sent.ticket, Outcome::Confirmed);
                if let Some(key) = sent.key {
                    self.waiting.confirmed(key);
                }
            }
            // A request holds one message, so a refusal is about that message.
            Err(error) => self.end_key(sent, Outcome::Failed(error)),
        }
    }

    /// Answers a message that is not confirmed, and its followers, which are not sent.
    fn end_key(&mut self, sent: Sent, outcome: Outcome) {
        self.offers.answer(sent.ticket, outcome);
        let followers = sent.key.map(|key| self.waiting.end(key));
        for follower in followers.into_iter().flatten() {
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
                // The connection cannot be told to forget what it holds, but it can be closed: there is no other.
                self.client.force_reconnect().await.ok();
                self.until_closed().await;
                done.send(()).ok();
            }
        }
    }

    /// Waits until the connection is closed: until then what it holds may still leave.
    async fn until_closed(&mut self) {
        let happenings = &mut self.connection.happenings;
        while let Some(Happening::Up | Happening::Told(_)) = happenings.recv().await {}
    }

    fn queue(&mut self, batch: Arc<Batch>, report: Report, taken: Instant) {
        for ticket in self.offers.open(batch, report, taken) {
            let key = self.order_key(ticket);
            if let Some(ended) = self.waiting.push(key, ticket) {
                self.offers.answer(ended, Outcome::Unconfirmed);
            }
        }
    }

    async fn send_what_may_go(&mut self) {
        while self.over.is_none() && self.in_flight.len() < self.max_in_flight {
            let Some((key, ticket)) = self.waiting.pop() else {
                return;
            };
            let sent = Sent { ticket, key };
            if self.offers.message(ticket).is_none() {
                // Its offer was late and is answered.
                continue;
            }
            match self.send(ticket).await {
                Ok(()) => self.in_flight.take(Instant::now(), sent),
                Err(Some(error)) => self.end_key(sent, Outcome::Failed(error)),
                Err(None) => self.end(ErrorKind::Unavailable, "the connection to NATS is lost"),
            }
        }
    }

    /// Answers what was offered a deadline ago. If a message has been on its way for long, NATS is silent; else it reports, and a backlog
    /// of one key was too long: what is not confirmed goes in a new session.
    fn answer_late(&mut self, now: Instant) {
        let sent = self.in_flight.oldest();
        if sent.is_some_and(|sent| now.duration_since(sent) >= self.deadline / 2) {
            self.end(ErrorKind::Unavailable, SILENT);
            return;
        }
        let late = now.checked_sub(self.deadline);
        let late = late.map(|by| self.offers.unanswered(by));
        for ticket in late.unwrap_or_default() {
            let key = self.order_key(ticket);
            self.end_key(Sent { ticket, key }, Outcome::Unconfirmed);
        }
    }

    fn order_key(&self, ticket: Ticket) -> Option<OrderKey> {
        let outgoing = self.offers.message(ticket)?;
        let key = outgoing.message.key.clone()?;
        Some((outgoing.route.clone(), key))
    }

    /// Hands one message to the connection, which has room for all that may be in flight.
    ///
    /// What a stream's `max_msg_size` refuses is sent all the same: the server names the guilty message by itself, and
    /// a limit remembered here would go on refusing after it was raised.
    async fn send(&self, ticket: Ticket) -> Result<(), Option<PublishError>> {
        let outgoing = self.offers.message(ticket).ok_or(None)?;
        let headers = headers::encode(outgoing)?;
        let subject = Subject::from(outgoing.route.as_str());
        let reply = Subject::from(format!("{}{}", self.inbox, self.in_flight.next()));
        let payload = outgoing.message.payload.clone();
        let sent = self
            .client
            .publish_with_reply_and_headers(subject, reply, headers, payload);
        sent.await.map_err(|error| match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => Some(PublishError::with_source(
                ErrorKind::TooLarge,
                "the message is larger than the server's max_payload",
                error,
            )),
            PublishErrorKind::InvalidSubject => Some(PublishError::with_source(
                ErrorKind::UnknownTopic,
                format!("{:?} is no subject", outgoing.route.as_str()),
                error,
            )),
            PublishErrorKind::Send => None,
        })
    }

    fn end(&mut self, kind: ErrorKind, what: &str) {
        let over = self.over.get_or_insert_with(|| {
            tracing::info!(reason = what, "session to NATS is over");
            Over::new(kind, what)
        });
        self.offers.end(over);
        self.waiting.clear();
        self.in_flight = InFlight::new();
    }
}

//! What a session knows of its offers: which are open, what was reported, and whether it goes on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use onceward_core::{Batch, ErrorKind, Outcome, PublishError, Receipts, Route};
use rdkafka::error::RDKafkaErrorCode as Code;
use tokio::sync::oneshot;

use super::blame::{Blame, Refusal, blame};
use crate::errors;

/// How long a failed client's reports are waited for: they say whose fault it was.
const LAST_REPORTS: Duration = Duration::from_millis(500);

/// How long what the client has reported about itself may explain a lost deadline.
const TROUBLE_COUNTS_FOR: Duration = Duration::from_secs(60);

/// Why a session ends. Told with each of its open offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reason {
    pub(super) kind: ErrorKind,
    pub(super) what: String,
    pub(super) code: Option<Code>,
}

impl Reason {
    pub(super) fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into(),
            code: None,
        }
    }

    pub(super) fn error(&self) -> PublishError {
        match self.code {
            Some(code) => PublishError::with_source(self.kind, self.what.clone(), code),
            None => PublishError::new(self.kind, self.what.clone()),
        }
    }
}

/// How far a session has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// It takes offers.
    Open,
    /// It takes no more; what is on its way may still be confirmed.
    Draining(Reason),
    /// What is not confirmed by now will not be.
    Over(Reason),
}

/// The offers of one session. Messages are numbered through it, from zero.
#[derive(Debug)]
pub(super) struct Session {
    phase: Phase,
    next: usize,
    offers: VecDeque<Offer>,
    refusals: Vec<Refusal>,
    // The first message refused, if it was the only one of its topic without a report.
    alone: Option<usize>,
    // The latest thing that the client reported about itself: says why a deadline was lost.
    trouble: Option<(Instant, Reason)>,
    // When the session ends because its client has failed for good.
    failed: Option<Instant>,
}

#[derive(Debug)]
struct Offer {
    first: usize,
    batch: Arc<Batch>,
    receipts: Receipts,
    /// Messages without a report.
    left: usize,
    deadline: Instant,
    done: oneshot::Sender<Receipts>,
}

impl Session {
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::Open,
            next: 0,
            offers: VecDeque::new(),
            refusals: Vec::new(),
            alone: None,
            trouble: None,
            failed: None,
        }
    }

    pub(super) fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Whether it takes offers and has none: nothing is to be reported, and no deadline runs.
    pub(super) fn is_idle(&self) -> bool {
        self.phase == Phase::Open && self.offers.is_empty() && self.failed.is_none()
    }

    /// Takes an offer and gives the number of its first message.
    pub(super) fn take(
        &mut self,
        batch: Arc<Batch>,
        deadline: Instant,
        done: oneshot::Sender<Receipts>,
    ) -> usize {
        let (first, messages) = (self.next, batch.messages.len());
        self.next += messages;
        self.offers.push_back(Offer {
            first,
            receipts: Receipts::unconfirmed(messages),
            left: messages,
            batch,
            deadline,
            done,
        });
        first
    }

    /// Notes that the broker has a message. Tells whether that answered its offer.
    pub(super) fn confirm(&mut self, number: usize) -> bool {
        let Some(at) = self.find(number) else {
            return false;
        };
        let offer = &mut self.offers[at];
        offer.receipts.set(number - offer.first, Outcome::Confirmed);
        offer.left = offer.left.saturating_sub(1);
        let answered = offer.left == 0;
        if answered {
            self.complete(at);
        }
        answered
    }

    /// Notes a report that says no: the session is over.
    pub(super) fn refuse(&mut self, number: usize, partition: i32, code: Code) {
        let Some(at) = self.find(number) else { return };
        let offer = &self.offers[at];
        let Some(outgoing) = offer.batch.messages.get(number - offer.first) else {
            return;
        };
        let route = outgoing.route.clone();
        if self.refusals.is_empty() {
            self.alone = (self.unreported(&route) == 1).then_some(number);
        }
        let why = Reason {
            kind: errors::kind(code),
            what: format!("Kafka refused a request to {route}"),
            code: Some(code),
        };
        self.refusals.push(Refusal {
            number,
            partition: (route, partition),
            code,
        });
        self.end(why);
    }

    /// Gives up a message that was not sent, and all that come after it in its offer.
    pub(super) fn cut(&mut self, number: usize, outcome: Outcome, why: Reason) {
        if self.phase == Phase::Open {
            self.phase = Phase::Draining(why);
        }
        let Some(at) = self.find(number) else { return };
        let offer = &mut self.offers[at];
        let index = number - offer.first;
        offer.receipts.set(index, outcome);
        offer.left -= offer.batch.messages.len() - index;
        if offer.left == 0 {
            self.complete(at);
        }
    }

    /// Takes no more offers.
    pub(super) fn drain(&mut self, why: Reason) {
        if self.phase == Phase::Open {
            self.phase = Phase::Draining(why);
        }
    }

    /// Ends the session; the first reason stays.
    pub(super) fn end(&mut self, why: Reason) {
        match &self.phase {
            Phase::Open => self.phase = Phase::Over(why),
            Phase::Draining(first) => self.phase = Phase::Over(first.clone()),
            Phase::Over(_) => {}
        }
    }

    /// Notes what the client reports about itself.
    pub(super) fn note(&mut self, trouble: Reason, now: Instant) {
        if trouble.code == Some(Code::Fatal) {
            self.failed.get_or_insert(now + LAST_REPORTS);
        }
        self.trouble = Some((now, trouble));
    }

    /// The topics that refused something.
    pub(super) fn refused_routes(&self) -> Vec<Route> {
        let routes = self.refusals.iter();
        routes.map(|refusal| refusal.partition.0.clone()).collect()
    }

    /// Whether the session goes on; ends it when an offer has not been answered by its deadline.
    pub(super) fn goes_on(&mut self, now: Instant) -> bool {
        let late = self.offers.iter().any(|offer| offer.deadline <= now);
        let failed = self.failed.is_some_and(|failed| failed <= now);
        if late || failed {
            let late = || Reason::new(ErrorKind::Unavailable, "Kafka did not answer in time");
            let trouble = self.trouble.take();
            let trouble = trouble.filter(|(at, _)| now.duration_since(*at) < TROUBLE_COUNTS_FOR);
            self.end(trouble.map_or_else(late, |(_, trouble)| trouble));
        }
        match self.phase {
            Phase::Open => true,
            Phase::Draining(_) => !self.offers.is_empty(),
            Phase::Over(_) => false,
        }
    }

    /// Answers everything that is still open.
    pub(super) fn settle(&mut self) {
        self.end(Reason::new(ErrorKind::Unavailable, "the session has ended"));
        let refusals = std::mem::take(&mut self.refusals);
        for refusal in &refusals {
            let alone = self.alone == Some(refusal.number);
            let outcome = match blame(refusal, &refusals, alone) {
                Blame::Itself(kind) => Outcome::Failed(refused(refusal, kind)),
                Blame::Anyone(kind) => Outcome::Suspect(refused(refusal, kind)),
                Blame::Nobody => Outcome::Unconfirmed,
            };
            if let Some(at) = self.find(refusal.number) {
                let offer = &mut self.offers[at];
                offer.receipts.set(refusal.number - offer.first, outcome);
            }
        }
        while !self.offers.is_empty() {
            self.complete(0);
        }
    }

    fn complete(&mut self, at: usize) {
        let Some(mut offer) = self.offers.remove(at) else {
            return;
        };
        match &self.phase {
            Phase::Open => {}
            Phase::Draining(why) | Phase::Over(why) => offer.receipts.end_session(why.error()),
        }
        // Nobody waits for it when the caller has dropped its pending future.
        drop(offer.done.send(offer.receipts));
    }

    fn find(&self, number: usize) -> Option<usize> {
        let after = self.offers.partition_point(|offer| offer.first <= number);
        let at = after.checked_sub(1)?;
        let offer = &self.offers[at];
        (number - offer.first < offer.batch.messages.len()).then_some(at)
    }

    /// Messages of a topic without a report.
    fn unreported(&self, route: &Route) -> usize {
        let open = self.offers.iter().flat_map(|offer| {
            let outcomes = offer.receipts.outcomes();
            offer.batch.messages.iter().zip(outcomes)
        });
        open.filter(|(outgoing, outcome)| {
            matches!(outcome, Outcome::Unconfirmed) && outgoing.route == *route
        })
        .count()
    }
}

fn refused(refusal: &Refusal, kind: ErrorKind) -> PublishError {
    let what = format!("Kafka refused it for {}", refusal.partition.0);
    PublishError::with_source(kind, what, refusal.code)
}

#[cfg(test)]
mod tests;

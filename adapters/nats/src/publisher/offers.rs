//! Offers whose receipts are not complete yet. Pure but for telling whoever waits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use onceward_core::{Batch, ErrorKind, Outcome, Outgoing, PublishError, Receipts};
use tokio::sync::oneshot;

/// One message of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    offer: u64,
    index: usize,
}

/// All offers that are not answered.
#[derive(Debug, Default)]
pub(crate) struct Offers {
    /// By number, the oldest first.
    open: BTreeMap<u64, Offer>,
    next: u64,
}

#[derive(Debug)]
struct Offer {
    batch: Arc<Batch>,
    receipts: Receipts,
    unanswered: usize,
    report: oneshot::Sender<Receipts>,
    taken: Instant,
}

/// Why a session is over, to be told many times.
#[derive(Debug, Clone)]
pub(crate) struct Over {
    pub(crate) kind: ErrorKind,
    pub(crate) what: String,
}

impl Over {
    pub(crate) fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into(),
        }
    }

    fn error(&self) -> PublishError {
        PublishError::new(self.kind, self.what.clone())
    }
}

impl Offers {
    /// Takes an offer at `now`, and gives a ticket for each of its messages.
    pub(crate) fn open(
        &mut self,
        batch: Arc<Batch>,
        report: oneshot::Sender<Receipts>,
        now: Instant,
    ) -> impl Iterator<Item = Ticket> + use<> {
        let messages = batch.messages.len();
        let offer = self.next;
        self.next += 1;
        let receipts = Receipts::unconfirmed(messages);
        if messages == 0 {
            // Whoever dropped the pending future does not want to know.
            report.send(receipts).ok();
        } else {
            self.open.insert(
                offer,
                Offer {
                    batch,
                    receipts,
                    unanswered: messages,
                    report,
                    taken: now,
                },
            );
        }
        (0..messages).map(move |index| Ticket { offer, index })
    }

    /// The message of a ticket.
    pub(crate) fn message(&self, ticket: Ticket) -> Option<&Outgoing> {
        self.open
            .get(&ticket.offer)?
            .batch
            .messages
            .get(ticket.index)
    }

    /// Answers one message; once all of its offer are answered, tells.
    pub(crate) fn answer(&mut self, ticket: Ticket, outcome: Outcome) {
        let Some(offer) = self.open.get_mut(&ticket.offer) else {
            return;
        };
        offer.receipts.set(ticket.index, outcome);
        offer.unanswered -= 1;
        if offer.unanswered == 0
            && let Some(offer) = self.open.remove(&ticket.offer)
        {
            offer.report.send(offer.receipts).ok();
        }
    }

    /// Tells everybody that the session is over; what is not answered is unconfirmed.
    pub(crate) fn end(&mut self, over: &Over) {
        for (_, mut offer) in std::mem::take(&mut self.open) {
            offer.receipts.end_session(over.error());
            offer.report.send(offer.receipts).ok();
        }
    }

    /// Refuses an offer that comes after the session's end.
    pub(crate) fn refuse(over: &Over, messages: usize, report: oneshot::Sender<Receipts>) {
        let mut receipts = Receipts::unconfirmed(messages);
        receipts.end_session(over.error());
        report.send(receipts).ok();
    }

    /// When the oldest offer that is not answered was taken.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.open.first_key_value().map(|(_, offer)| offer.taken)
    }

    /// Whether every offer is answered.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use onceward_core::{Message, Route};

    use super::*;

    fn batch(messages: usize) -> Arc<Batch> {
        let message = Message::bytes("t", "x").finish(10).unwrap().message;
        let outgoing = Outgoing {
            route: Route::new("t"),
            message,
            replay: None,
        };
        Arc::new(Batch {
            messages: vec![outgoing; messages],
        })
    }

    #[test]
    fn an_offer_is_told_once_all_its_messages_are_answered() {
        let mut offers = Offers::default();
        let (report, mut receipts) = oneshot::channel();
        let tickets: Vec<_> = offers.open(batch(2), report, Instant::now()).collect();

        offers.answer(tickets[1], Outcome::Confirmed);
        assert!(receipts.try_recv().is_err());
        offers.answer(tickets[0], Outcome::Confirmed);

        assert!(receipts.try_recv().unwrap().all_confirmed());
        assert!(offers.is_empty());
    }

    #[test]
    fn the_end_of_the_session_keeps_what_is_confirmed_and_leaves_the_rest_unknown() {
        let mut offers = Offers::default();
        let (report, mut receipts) = oneshot::channel();
        let tickets: Vec<_> = offers.open(batch(2), report, Instant::now()).collect();
        offers.answer(tickets[0], Outcome::Confirmed);

        offers.end(&Over::new(ErrorKind::Unavailable, "lost"));

        let receipts = receipts.try_recv().unwrap();
        assert!(matches!(
            receipts.outcomes(),
            [Outcome::Confirmed, Outcome::Unconfirmed]
        ));
        assert!(receipts.session_over().is_some());
    }

    #[test]
    fn an_empty_offer_is_answered_at_once() {
        let (report, mut receipts) = oneshot::channel();

        assert_eq!(
            Offers::default()
                .open(batch(0), report, Instant::now())
                .count(),
            0
        );

        assert!(receipts.try_recv().unwrap().all_confirmed());
    }

    #[test]
    fn the_oldest_offer_is_the_first_that_is_not_answered() {
        let mut offers = Offers::default();
        let (first, second) = (
            Instant::now(),
            Instant::now() + std::time::Duration::from_secs(1),
        );
        let (report, _receipts) = oneshot::channel();
        let tickets: Vec<Ticket> = offers.open(batch(1), report, first).collect();
        let (report, _later) = oneshot::channel();
        assert_eq!(offers.open(batch(1), report, second).count(), 1);

        assert_eq!(offers.oldest(), Some(first));
        offers.answer(tickets[0], Outcome::Confirmed);
        assert_eq!(offers.oldest(), Some(second));
    }
}

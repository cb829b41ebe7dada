//! Offers whose receipts are not complete yet. Pure; used by adapters that keep the messages of many offers in one queue.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crate::{Batch, ErrorKind, Outcome, Outgoing, PublishError, Receipts};

/// One message of an offer. However often it is copied, its first answer is the one that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OfferTicket {
    offer: u64,
    index: usize,
}

/// All offers that are not answered.
#[derive(Debug, Default)]
pub struct Offers {
    /// By number, the oldest first.
    open: BTreeMap<u64, Offer>,
    next: u64,
}

#[derive(Debug)]
struct Offer {
    batch: Arc<Batch>,
    receipts: Receipts,
    /// Whether each message is answered.
    answered: Vec<bool>,
    unanswered: usize,
    report: Report,
    taken: Instant,
}

/// Tells whoever waits for the receipts of an offer.
pub struct Report(Box<dyn FnOnce(Receipts) + Send + Sync>);

impl Report {
    /// A report that calls `tell` once. Whoever does not want to know any more is to be ignored there.
    pub fn new(tell: impl FnOnce(Receipts) + Send + Sync + 'static) -> Self {
        Self(Box::new(tell))
    }

    fn send(self, receipts: Receipts) {
        (self.0)(receipts);
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Report")
    }
}

/// Why a session is over, to be told many times.
#[derive(Debug, Clone)]
pub struct Over {
    /// What can be decided by.
    pub kind: ErrorKind,
    /// What happened, for people.
    pub what: String,
}

impl Over {
    /// A reason.
    pub fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
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
    pub fn open(
        &mut self,
        batch: Arc<Batch>,
        report: Report,
        now: Instant,
    ) -> impl Iterator<Item = OfferTicket> + use<> {
        let messages = batch.messages.len();
        let offer = self.next;
        self.next += 1;
        let receipts = Receipts::unconfirmed(messages);
        if messages == 0 {
            report.send(receipts);
        } else {
            self.open.insert(
                offer,
                Offer {
                    batch,
                    receipts,
                    answered: vec![false; messages],
                    unanswered: messages,
                    report,
                    taken: now,
                },
            );
        }
        (0..messages).map(move |index| OfferTicket { offer, index })
    }

    /// The message of a ticket.
    #[must_use]
    pub fn message(&self, ticket: OfferTicket) -> Option<&Outgoing> {
        self.open
            .get(&ticket.offer)?
            .batch
            .messages
            .get(ticket.index)
    }

    /// Answers one message; once all of its offer are answered, tells. Only the first answer for a ticket counts.
    pub fn answer(&mut self, ticket: OfferTicket, outcome: Outcome) {
        let Some(offer) = self.open.get_mut(&ticket.offer) else {
            return;
        };
        match offer.answered.get_mut(ticket.index) {
            Some(answered) if !*answered => *answered = true,
            Some(_) | None => return,
        }
        offer.receipts.set(ticket.index, outcome);
        offer.unanswered -= 1;
        if offer.unanswered == 0
            && let Some(offer) = self.open.remove(&ticket.offer)
        {
            offer.report.send(offer.receipts);
        }
    }

    /// Tells everybody that the session is over; what is not answered is unconfirmed.
    pub fn end(&mut self, over: &Over) {
        for (_, mut offer) in std::mem::take(&mut self.open) {
            offer.receipts.end_session(over.error());
            offer.report.send(offer.receipts);
        }
    }

    /// Refuses an offer that comes after the session's end.
    pub fn refuse(over: &Over, messages: usize, report: Report) {
        let mut receipts = Receipts::unconfirmed(messages);
        receipts.end_session(over.error());
        report.send(receipts);
    }

    /// When the oldest offer that is not answered was taken.
    #[must_use]
    pub fn oldest(&self) -> Option<Instant> {
        self.open.first_key_value().map(|(_, offer)| offer.taken)
    }

    /// The tickets that are not answered, of the offers that were taken by then.
    #[must_use]
    pub fn unanswered(&self, by: Instant) -> Vec<OfferTicket> {
        let late = self.open.iter().filter(|(_, offer)| offer.taken <= by);
        let tickets = late.flat_map(|(number, offer)| {
            let messages = offer.answered.iter().enumerate();
            let open = messages.filter(|(_, answered)| !**answered);
            open.map(|(index, _)| OfferTicket {
                offer: *number,
                index,
            })
        });
        tickets.collect()
    }

    /// Whether every offer is answered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::{Message, Route};

    fn report() -> (Report, mpsc::Receiver<Receipts>) {
        let (tell, told) = mpsc::channel();
        let report = Report::new(move |receipts| tell.send(receipts).unwrap());
        (report, told)
    }

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
        let (tell, receipts) = report();
        let tickets: Vec<_> = offers.open(batch(2), tell, Instant::now()).collect();

        offers.answer(tickets[1], Outcome::Confirmed);
        assert!(receipts.try_recv().is_err());
        offers.answer(tickets[0], Outcome::Confirmed);

        assert!(receipts.try_recv().unwrap().all_confirmed());
        assert!(offers.is_empty());
    }

    #[test]
    fn only_the_first_answer_for_a_message_counts() {
        let mut offers = Offers::default();
        let (tell, receipts) = report();
        let tickets: Vec<_> = offers.open(batch(2), tell, Instant::now()).collect();

        offers.answer(tickets[0], Outcome::Confirmed);
        offers.answer(tickets[0], Outcome::Unconfirmed);
        assert!(receipts.try_recv().is_err());
        offers.answer(tickets[1], Outcome::Confirmed);

        assert!(receipts.try_recv().unwrap().all_confirmed());
    }

    #[test]
    fn the_end_of_the_session_keeps_what_is_confirmed_and_leaves_the_rest_unknown() {
        let mut offers = Offers::default();
        let (tell, receipts) = report();
        let tickets: Vec<_> = offers.open(batch(2), tell, Instant::now()).collect();
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
        let (tell, receipts) = report();

        assert_eq!(
            Offers::default()
                .open(batch(0), tell, Instant::now())
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
        let (tell, _receipts) = report();
        let mut tickets: Vec<OfferTicket> = offers.open(batch(1), tell, first).collect();
        let (tell, _later) = report();
        tickets.extend(offers.open(batch(1), tell, second));

        assert_eq!(offers.oldest(), Some(first));
        offers.answer(tickets[0], Outcome::Confirmed);
        assert_eq!(offers.oldest(), Some(second));
    }

    #[test]
    fn of_an_offer_that_is_late_those_are_known_that_are_not_answered() {
        let mut offers = Offers::default();
        let late = Instant::now();
        let (tell, _receipts) = report();
        let tickets: Vec<OfferTicket> = offers.open(batch(3), tell, late).collect();
        let (tell, _later) = report();
        let later = late + std::time::Duration::from_secs(1);
        assert_eq!(offers.open(batch(1), tell, later).count(), 1);
        offers.answer(tickets[1], Outcome::Confirmed);

        let unanswered = offers.unanswered(late);

        assert_eq!(unanswered, [tickets[0], tickets[2]]);
    }
}

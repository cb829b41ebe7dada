//! What became of each message of an offer.

use crate::PublishError;

/// What became of one message.
#[derive(Debug)]
pub enum Outcome {
    /// The broker has it, as durably as it can be told to.
    Confirmed,
    /// The broker refused a request that held this message alone.
    Failed(PublishError),
    /// The broker refused a request that held this message together with others: any of them may be guilty.
    Suspect(PublishError),
    /// Nothing is known: it may or may not have arrived. It is published again.
    Unconfirmed,
}

/// One outcome per message of a batch, in the batch's order, each born [`Outcome::Unconfirmed`].
///
/// So a message that an adapter forgets becomes a duplicate, never a loss.
#[derive(Debug)]
pub struct Receipts {
    outcomes: Vec<Outcome>,
    over: Option<PublishError>,
}

impl Receipts {
    /// Receipts for `messages` messages, none of them confirmed.
    #[must_use]
    pub fn unconfirmed(messages: usize) -> Self {
        Self {
            outcomes: (0..messages).map(|_| Outcome::Unconfirmed).collect(),
            over: None,
        }
    }

    /// Sets the outcome of the message at `index`; an index outside the batch is ignored.
    pub fn set(&mut self, index: usize, outcome: Outcome) {
        if let Some(slot) = self.outcomes.get_mut(index) {
            *slot = outcome;
        }
    }

    /// Says that the session is over and why: nothing more may be offered to it.
    pub fn end_session(&mut self, why: PublishError) {
        self.over.get_or_insert(why);
    }

    /// The outcomes, in the batch's order.
    #[must_use]
    pub fn outcomes(&self) -> &[Outcome] {
        &self.outcomes
    }

    /// Why the session is over, if it is.
    #[must_use]
    pub fn session_over(&self) -> Option<&PublishError> {
        self.over.as_ref()
    }

    /// Whether every message is confirmed.
    #[must_use]
    pub fn all_confirmed(&self) -> bool {
        self.outcomes
            .iter()
            .all(|outcome| matches!(outcome, Outcome::Confirmed))
    }

    /// Takes the receipts apart: outcomes, and why the session is over.
    #[must_use]
    pub fn into_parts(self) -> (Vec<Outcome>, Option<PublishError>) {
        (self.outcomes, self.over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forgotten_message_is_unconfirmed() {
        let mut receipts = Receipts::unconfirmed(2);

        receipts.set(0, Outcome::Confirmed);
        receipts.set(9, Outcome::Confirmed);

        assert!(!receipts.all_confirmed());
        assert!(matches!(receipts.outcomes()[1], Outcome::Unconfirmed));
    }
}

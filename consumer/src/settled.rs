//! What a consumer has settled.

use crate::plan::Outcome;

/// How many deliveries were settled, by outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settled {
    /// Their handler's effects are committed.
    pub handled: u64,
    /// They wait in the database for another attempt, or behind one of their key.
    pub deferred: u64,
    /// They had been settled before.
    pub duplicates: u64,
    /// They are dead letters now.
    pub dead: u64,
    /// They had expired, and were not handled.
    pub expired: u64,
    /// The consumer ignores them.
    pub ignored: u64,
}

impl Settled {
    pub(crate) fn count(&mut self, outcome: Outcome) {
        let counted = match outcome {
            Outcome::Handled => &mut self.handled,
            Outcome::Deferred => &mut self.deferred,
            Outcome::Duplicate => &mut self.duplicates,
            Outcome::Dead => &mut self.dead,
            Outcome::Expired => &mut self.expired,
            Outcome::Ignored => &mut self.ignored,
        };
        *counted += 1;
    }
}

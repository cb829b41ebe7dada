//! What the comparison found.

use std::fmt;

use serde::Serialize;

/// Counts of what was seen and of what was wrong. Green is: nothing wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Messages whose transaction committed.
    pub committed: u64,
    /// Of these, how many reached the broker.
    pub published: u64,
    /// Copies in the broker beyond the first of each.
    pub duplicates: u64,
    /// How many copies the run's interruptions explain.
    pub duplicates_allowed: Option<u64>,
    /// Messages that took effect; `None` where nobody consumes.
    pub handled: Option<u64>,
    /// How often a lease was taken.
    pub claims: u64,
    /// Messages excused from arriving.
    pub excused: u64,

    /// Committed and not in the broker.
    pub lost: u64,
    /// In the broker and never committed, or without an id.
    pub phantom: u64,
    /// First arrivals behind the first arrival of a later version of their key.
    pub out_of_order: u64,
    /// Keys that lie in more than one partition.
    pub split_keys: u64,
    /// Arrivals with other bytes than were committed.
    pub payload_mismatch: u64,
    /// Arrivals under another key than was committed.
    pub key_mismatch: u64,
    /// Copies beyond those allowed.
    pub unexplained_duplicates: u64,
    /// Copies of messages beyond the takeovers that may have repeated them.
    pub copies_without_takeover: u64,
    /// Committed without an effect.
    pub missing_effects: u64,
    /// Effects beyond the first of each message.
    pub doubled_effects: u64,
    /// Effects of messages that were never committed.
    pub phantom_effects: u64,
    /// Effects behind the effect of a later version of their key.
    pub effects_out_of_order: u64,
    /// Checkpoints under a token that did not prove the lease, or under none.
    pub stale_checkpoints: u64,
    /// Cursors that went backwards.
    pub cursor_regressions: u64,

    /// The first few things that were wrong, for a person.
    pub examples: Vec<String>,
}

impl Verdict {
    /// Whether nothing was wrong.
    #[must_use]
    pub fn is_green(&self) -> bool {
        self.wrongs().iter().all(|(_, count)| *count == 0)
    }

    /// Whether all that was committed has arrived and taken effect: what a run waits for before it is judged.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.lost == 0 && self.missing_effects == 0
    }

    /// The name and count of each kind of wrong.
    #[must_use]
    pub fn wrongs(&self) -> [(&'static str, u64); 14] {
        [
            ("lost", self.lost),
            ("phantom", self.phantom),
            ("out of order", self.out_of_order),
            ("split keys", self.split_keys),
            ("payload mismatch", self.payload_mismatch),
            ("key mismatch", self.key_mismatch),
            ("unexplained duplicates", self.unexplained_duplicates),
            ("copies without takeover", self.copies_without_takeover),
            ("missing effects", self.missing_effects),
            ("doubled effects", self.doubled_effects),
            ("phantom effects", self.phantom_effects),
            ("effects out of order", self.effects_out_of_order),
            ("stale checkpoints", self.stale_checkpoints),
            ("cursor regressions", self.cursor_regressions),
        ]
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "ledger: {}",
            if self.is_green() { "green" } else { "RED" }
        )?;
        writeln!(f, "  {:<24}{:>10}", "committed", self.committed)?;
        writeln!(f, "  {:<24}{:>10}", "published", self.published)?;
        if let Some(handled) = self.handled {
            writeln!(f, "  {:<24}{handled:>10}", "handled")?;
        }
        let allowed = self
            .duplicates_allowed
            .map(|allowed| format!("  (at most {allowed})"))
            .unwrap_or_default();
        writeln!(f, "  {:<24}{:>10}{allowed}", "duplicates", self.duplicates)?;
        for (name, count) in [("claims", self.claims), ("excused", self.excused)] {
            if count > 0 {
                writeln!(f, "  {name:<24}{count:>10}")?;
            }
        }
        for (name, count) in self.wrongs() {
            let mark = if count == 0 { "" } else { "  <--" };
            writeln!(f, "  {name:<24}{count:>10}{mark}")?;
        }
        for example in &self.examples {
            writeln!(f, "  - {example}")?;
        }
        Ok(())
    }
}

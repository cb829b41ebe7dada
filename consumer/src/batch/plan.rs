//! Decides what a batch is made of, and what becomes of it after each run. Pure: no clock, no I/O.

use std::collections::HashSet;
use std::time::Duration;

use onceward_core::Backoff;
use uuid::Uuid;

use super::BatchSettings;
use crate::plan::{OUTAGE, Run};

/// How often a conflict with another transaction is repeated before the messages are handled one by one.
const REPEATS: u32 = 3;

const REPEAT: Backoff = Backoff {
    base: Duration::from_millis(5),
    max: Duration::from_millis(100),
};

/// How full a batch is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Filling {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

impl Filling {
    /// Takes a message in, unless it does not fit. The first one always does.
    pub(crate) fn add(&mut self, weight: usize, limit: &BatchSettings) -> bool {
        let fits =
            self.messages < limit.messages && self.bytes.saturating_add(weight) <= limit.bytes;
        if self.messages > 0 && !fits {
            return false;
        }
        self.messages += 1;
        self.bytes = self.bytes.saturating_add(weight);
        true
    }

    /// Whether nothing more can fit.
    pub(crate) fn is_full(self, limit: &BatchSettings) -> bool {
        self.messages >= limit.messages || self.bytes >= limit.bytes
    }
}

/// What becomes of a message for which a batch was put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// It is part of the batch.
    Within,
    /// A copy of one before it. A transaction can insert a mark only once: the copy comes again after the batch, and finds the mark.
    Behind,
    /// It has expired, and is handled by itself.
    Alone,
}

/// The place of each message. `messages` gives the mark of each, and whether it has expired.
pub(crate) fn places(messages: impl Iterator<Item = (Uuid, bool)>) -> Vec<Place> {
    let mut seen = HashSet::new();
    let place = |(mark, expired): (Uuid, bool)| match expired {
        true => Place::Alone,
        false if seen.insert(mark) => Place::Within,
        false => Place::Behind,
    };
    messages.map(place).collect()
}

/// In which order the marks of a batch are inserted, as places: by id, whatever the order of arrival. Two batches with marks
/// in common wait for one another at the first one of these, and never in a circle.
pub(crate) fn order_of_marks(marks: &[Uuid]) -> Vec<usize> {
    let mut places: Vec<usize> = (0..marks.len()).collect();
    places.sort_unstable_by_key(|place| marks[*place]);
    places
}

/// How many outages in a row are put down to the batch itself, such as one that the server has no memory for: between two of them
/// the database has answered.
const OUTAGES: u32 = 5;

/// How often a batch that lost its connection waits for its own marks: the server may take a while to miss the connection.
const WAITS: u32 = 20;

/// How the runs of a batch have ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Runs {
    conflicts: u32,
    /// In a row.
    outages: u32,
    /// After an outage.
    waits: u32,
    was_out: bool,
}

impl Runs {
    /// Counts one.
    pub(crate) fn add(&mut self, run: Run) {
        self.conflicts += u32::from(run == Run::Conflict);
        self.was_out |= run == Run::Outage;
        self.waits += u32::from(run == Run::Elsewhere);
        self.outages = if run == Run::Outage {
            self.outages + 1
        } else {
            0
        };
    }
}

/// What to do with a batch next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BatchNext {
    /// Each of its messages is settled, or has to be handled alone, as the run tells.
    Settled,
    /// Run it again after this long.
    Again(Duration),
    /// Wait until the database answers, at least this long; then again.
    Pause(Duration),
    /// Run it again without those that are to be handled alone.
    Without,
    /// Handle its messages one by one.
    Split,
    /// Give its messages up: another attempt might have their effects twice.
    GiveUp,
    /// Leave it: it comes again.
    Leave,
}

/// What to do after a run of a batch, which is counted in `runs`. `chance` lies in `0.0..1.0`.
pub(crate) fn after_batch(run: Run, runs: Runs, chance: f64) -> BatchNext {
    match run {
        Run::Handled => BatchNext::Settled,
        Run::Conflict if runs.conflicts <= REPEATS => {
            BatchNext::Again(REPEAT.delay(runs.conflicts, chance))
        }
        // What it waits for may be its own transaction, over a connection that was lost.
        Run::Elsewhere if runs.was_out && runs.waits <= WAITS => {
            BatchNext::Again(REPEAT.delay(runs.waits, chance))
        }
        Run::Outage if runs.outages < OUTAGES => {
            BatchNext::Pause(OUTAGE.delay(runs.outages, chance))
        }
        Run::Outage => BatchNext::Split,
        Run::Ended => BatchNext::GiveUp,
        Run::Stopped => BatchNext::Leave,
        Run::Unfinished => BatchNext::Without,
        // Somebody else works on one of them, for longer than a batch waits; or one of them is guilty.
        Run::Elsewhere | Run::Failed(_) | Run::Conflict => BatchNext::Split,
        // None of these is said of a batch. Alone, each message is told what it is.
        Run::LinedUp
        | Run::Duplicate
        | Run::IdConflict
        | Run::TooOld
        | Run::SequenceReused
        | Run::SequenceUnknown
        | Run::Expired
        | Run::Crashed => BatchNext::Split,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::handler::Verdict;

    fn limit(messages: usize, bytes: usize) -> BatchSettings {
        BatchSettings {
            messages,
            bytes,
            ..BatchSettings::default()
        }
    }

    /// What comes of a batch whose runs end so.
    fn after(runs: &[Run]) -> BatchNext {
        let mut before = Runs::default();
        for run in runs {
            before.add(*run);
        }
        after_batch(runs[runs.len() - 1], before, 0.5)
    }

    #[test]
    fn any_error_of_the_handler_splits_the_batch() {
        for verdict in [
            Verdict::Retry,
            Verdict::RetryAfter(Duration::from_secs(60)),
            Verdict::Reject,
            Verdict::Payload,
        ] {
            assert_eq!(after(&[Run::Failed(verdict)]), BatchNext::Split);
        }
    }

    #[test]
    fn conflicts_are_repeated_for_a_while() {
        assert!((1..=3).all(|n| matches!(after(&vec![Run::Conflict; n]), BatchNext::Again(_))));
        assert_eq!(after(&[Run::Conflict; 4]), BatchNext::Split);
    }

    #[test]
    fn an_outage_is_waited_for_and_five_in_a_row_are_the_batchs_own() {
        assert!((1..5).all(|n| matches!(after(&vec![Run::Outage; n]), BatchNext::Pause(_))));
        assert_eq!(after(&[Run::Outage; 5]), BatchNext::Split);
        let others = [
            [Run::Outage; 4].as_slice(),
            &[Run::Conflict],
            &[Run::Outage; 4],
        ];
        assert!(matches!(after(&others.concat()), BatchNext::Pause(_)));
    }

    #[test]
    fn a_batch_waits_for_its_own_lost_transaction_and_not_for_anothers() {
        assert_eq!(after(&[Run::Elsewhere]), BatchNext::Split);
        let own = [Run::Outage, Run::Elsewhere, Run::Elsewhere];
        assert!(matches!(after(&own), BatchNext::Again(_)));
        let long = [[Run::Outage].as_slice(), &[Run::Elsewhere; 21]];
        assert_eq!(after(&long.concat()), BatchNext::Split);
    }

    #[test]
    fn a_transaction_that_the_handler_has_ended_is_never_run_again() {
        assert_eq!(after(&[Run::Ended]), BatchNext::GiveUp);
    }

    #[test]
    fn what_has_expired_runs_alone_and_the_second_of_one_mark_behind_the_first() {
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));

        let places = places([(a, false), (b, true), (a, false)].into_iter());

        assert_eq!(places, [Place::Within, Place::Alone, Place::Behind]);
    }

    #[test]
    fn one_message_fits_however_large_it_is_and_no_second_one() {
        let limit = limit(10, 100);
        let mut filling = Filling::default();

        assert!(filling.add(1_000, &limit));
        assert!(filling.is_full(&limit));
        assert!(!filling.add(1, &limit));
    }

    proptest! {
        #[test]
        fn a_batch_keeps_its_limits(
            messages in 1..20_usize,
            bytes in 1..1_000_usize,
            weights in prop::collection::vec(1..300_usize, 1..60),
        ) {
            let limit = limit(messages, bytes);
            let mut filling = Filling::default();
            for weight in weights {
                filling.add(weight, &limit);
            }

            prop_assert!(filling.messages >= 1 && filling.messages <= messages);
            prop_assert!(filling.messages == 1 || filling.bytes <= bytes);
        }

        #[test]
        fn two_batches_insert_their_common_marks_in_one_order(
            first in prop::collection::hash_set(0..40_u128, 1..20),
            second in prop::collection::hash_set(0..40_u128, 1..20),
        ) {
            let inserted = |set: &HashSet<u128>| {
                let marks: Vec<Uuid> = set.iter().map(|n| Uuid::from_u128(*n)).collect();
                let places = order_of_marks(&marks);
                places.into_iter().map(|place| marks[place]).collect::<Vec<_>>()
            };
            let common = |of: &HashSet<u128>, other: &HashSet<u128>| {
                let all = inserted(of).into_iter();
                all.filter(|mark| other.contains(&mark.as_u128())).collect::<Vec<_>>()
            };

            prop_assert_eq!(common(&first, &second), common(&second, &first));
        }
    }
}

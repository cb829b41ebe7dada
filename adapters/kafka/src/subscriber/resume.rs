//! Decides where a partition is read on when the broker has no message at the place that we wanted. Pure: no clock, no I/O.

use crate::Start;

/// What is known when a partition cannot be read where it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lost {
    /// The next position that this member expected, once it had one.
    pub(super) expected: Option<i64>,
    /// The group's position.
    pub(super) committed: Option<i64>,
    /// The oldest position retained.
    pub(super) low: i64,
    /// The position after the newest.
    pub(super) high: i64,
    /// The position of the first message that came after the member did.
    pub(super) latest: i64,
}

/// Where to read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resume {
    /// The group begins here.
    Begin(i64),
    /// Nothing is missing.
    Same(i64),
    /// What lay between is gone.
    Jump {
        /// What was expected.
        from: i64,
        /// What is read instead.
        to: i64,
    },
}

impl Resume {
    pub(super) fn at(self) -> i64 {
        match self {
            Self::Begin(at) | Self::Same(at) | Self::Jump { to: at, .. } => at,
        }
    }
}

/// Where to read on.
pub(super) fn resume(lost: Lost, start: Start) -> Resume {
    match lost.expected.or(lost.committed) {
        None => Resume::Begin(match start {
            Start::Earliest => lost.low,
            Start::Latest => lost.latest,
        }),
        Some(at) if (lost.low..=lost.high).contains(&at) => Resume::Same(at),
        // Also when the position lies beyond the end, as after a topic was made anew: what is there now was never delivered.
        Some(from) => Resume::Jump { from, to: lost.low },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOST: Lost = Lost {
        expected: None,
        committed: None,
        low: 10,
        high: 20,
        latest: 18,
    };

    #[test]
    fn only_a_group_without_a_position_begins_where_it_is_told() {
        assert_eq!(resume(LOST, Start::Earliest), Resume::Begin(10));
        assert_eq!(resume(LOST, Start::Latest), Resume::Begin(18));
        let committed = Lost {
            committed: Some(15),
            ..LOST
        };
        assert_eq!(resume(committed, Start::Latest), Resume::Same(15));
    }

    #[test]
    fn what_retention_took_is_a_jump_to_the_oldest_that_is_left() {
        let lost = Lost {
            committed: Some(3),
            ..LOST
        };

        assert_eq!(
            resume(lost, Start::Latest),
            Resume::Jump { from: 3, to: 10 }
        );
    }

    #[test]
    fn what_was_delivered_already_counts_more_than_what_was_committed() {
        let lost = Lost {
            expected: Some(12),
            committed: Some(3),
            ..LOST
        };

        assert_eq!(resume(lost, Start::Earliest), Resume::Same(12));
    }

    #[test]
    fn a_topic_made_anew_is_read_from_its_start() {
        let lost = Lost {
            committed: Some(900),
            ..LOST
        };

        assert_eq!(
            resume(lost, Start::Latest),
            Resume::Jump { from: 900, to: 10 }
        );
    }
}

//! Decides where a partition is read on when the broker has no message at the place that we wanted. Pure: no clock, no I/O.

/// Where somebody stands in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stand {
    /// Everything before this was delivered or settled.
    At(i64),
    /// Nothing was read yet, and this is where reading begins.
    Begins(i64),
}

/// What is known when a partition cannot be read where it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lost {
    /// The next position that this member expected, once it had one; else the group's.
    pub(super) stand: Stand,
    /// The oldest position retained.
    pub(super) low: i64,
    /// The position after the newest.
    pub(super) high: i64,
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
pub(super) fn resume(lost: Lost) -> Resume {
    match lost.stand {
        Stand::Begins(at) => Resume::Begin(at),
        Stand::At(at) if (lost.low..=lost.high).contains(&at) => Resume::Same(at),
        // Also when the position lies beyond the end, as after a topic was made anew: what is there now was never delivered.
        Stand::At(from) => Resume::Jump { from, to: lost.low },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(stand: Stand) -> Lost {
        Lost {
            stand,
            low: 10,
            high: 20,
        }
    }

    #[test]
    fn only_what_nobody_has_read_is_begun() {
        assert_eq!(resume(lost(Stand::Begins(10))), Resume::Begin(10));
        assert_eq!(resume(lost(Stand::At(15))), Resume::Same(15));
    }

    #[test]
    fn what_retention_took_is_a_jump_to_the_oldest_that_is_left() {
        let lost = lost(Stand::At(3));

        assert_eq!(resume(lost), Resume::Jump { from: 3, to: 10 });
    }

    #[test]
    fn a_topic_made_anew_is_read_from_its_start() {
        let lost = lost(Stand::At(900));

        assert_eq!(resume(lost), Resume::Jump { from: 900, to: 10 });
    }
}

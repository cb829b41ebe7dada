//! What is not as in the bare run, and what that is called. Pure.

use crate::backlog::Care;

/// What is not as in the bare run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    /// Nothing.
    Bare,
    /// Messages are retained.
    Retained,
    /// A transaction that has written to the log stays open from before the backlog to the end.
    HeldOpen,
    /// So many streams read the log; all but one ask for other topics and pass over the messages.
    Streams(u16),
    /// No table is vacuumed or analyzed, by nobody.
    DeadAutovacuum,
}

impl Condition {
    /// Those that are measured in fresh databases.
    pub(super) const FRESH: [Self; 4] = [
        Self::HeldOpen,
        Self::Streams(3),
        Self::Streams(10),
        Self::DeadAutovacuum,
    ];

    pub(super) fn variant(self) -> String {
        match self {
            Self::Bare => "kafka bare".to_owned(),
            Self::Retained => "kafka retained".to_owned(),
            Self::HeldOpen => "kafka transaction held open".to_owned(),
            Self::Streams(count) => format!("kafka {count} streams"),
            Self::DeadAutovacuum => "kafka dead autovacuum".to_owned(),
        }
    }

    /// Streams beside the one that publishes.
    pub(super) const fn others(self) -> u16 {
        match self {
            Self::Streams(count) => count.saturating_sub(1),
            Self::Bare | Self::Retained | Self::HeldOpen | Self::DeadAutovacuum => 0,
        }
    }

    pub(super) const fn care(self) -> Care {
        match self {
            Self::DeadAutovacuum => Care::None,
            Self::Bare | Self::Retained | Self::HeldOpen | Self::Streams(_) => Care::Vacuum,
        }
    }
}

/// The variant of so many retained messages, such as `kafka 10m retained`.
pub(super) fn retained_variant(messages: u64) -> String {
    match messages {
        whole if whole >= 1_000_000 && whole % 1_000_000 == 0 => {
            format!("kafka {}m retained", whole / 1_000_000)
        }
        other => format!("kafka {other} retained"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_millions_are_told_as_such() {
        assert_eq!(retained_variant(20_000_000), "kafka 20m retained");
        assert_eq!(retained_variant(1_500), "kafka 1500 retained");
    }

    #[test]
    fn only_streams_have_others_beside_the_one_that_publishes() {
        let others = Condition::FRESH.map(Condition::others);

        assert_eq!(others, [0, 2, 9, 0]);
    }
}

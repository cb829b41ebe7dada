//! Decides whether a message may be handled that was in work when a process died, and whether with nothing beside it. Pure.

use std::cmp::Reverse;

/// How often a process may die while a message is handled alone.
const CRASHES: i16 = 3;

/// A start without an end, of another life of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unfinished {
    /// Whether the message was handled with nothing beside it.
    pub(crate) alone: bool,
    /// How often a process had died while it was, before.
    pub(crate) crashes: i16,
}

/// How a handler is to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// As any other.
    Beside,
    /// With nothing beside it, after so many crashes.
    Alone(i16),
    /// Not yet: there is something beside it.
    NotBeside,
    /// Never again: it has killed its process too often.
    Never(i16),
}

impl Unfinished {
    /// How often a process has died while the message was handled alone. A start beside others tells nothing: any of them may
    /// have been the one.
    fn crashes(self) -> i16 {
        self.crashes.saturating_add(i16::from(self.alone))
    }

    /// What its start without an end means for a message. `alone`: now there is nothing beside it.
    pub(crate) fn judge(self, alone: bool) -> Start {
        let crashes = self.crashes();
        if crashes >= CRASHES {
            Start::Never(crashes)
        } else if alone {
            Start::Alone(crashes)
        } else {
            Start::NotBeside
        }
    }
}

/// Whether a delivery may have been in work when a process died. `fresh`: it is among the first ones that are worked on of an ownership, as
/// not all brokers tell what they deliver again.
pub(crate) fn is_suspect(redelivered: Option<u32>, fresh: bool) -> bool {
    fresh || redelivered.is_some_and(|times| times > 0)
}

/// How many messages may be in work at a time in so many places, at most. Of each class: how many places it takes at most, and how many
/// messages it handles in one of them.
pub(crate) fn most_at_a_time(mut classes: Vec<(usize, usize)>, places: usize) -> usize {
    classes.sort_unstable_by_key(|(_, messages)| Reverse(*messages));
    let (mut left, mut most) = (places, 0_usize);
    for (limit, messages) in classes {
        let taken = limit.min(left);
        most = most.saturating_add(taken.saturating_mul(messages));
        left -= taken;
    }
    most.saturating_add(left)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What becomes of a message in lives of which each ends in a crash; in which it was alone. Gives how many there were.
    fn lives(alone: &[bool]) -> usize {
        let mut start: Option<Unfinished> = None;
        for (life, can_be_alone) in alone.iter().enumerate() {
            start = match start.map(|start| start.judge(*can_be_alone)) {
                None => Some(Unfinished {
                    alone: false,
                    crashes: 0,
                }),
                Some(Start::Alone(crashes)) => Some(Unfinished {
                    alone: true,
                    crashes,
                }),
                Some(Start::NotBeside | Start::Beside) => start,
                Some(Start::Never(_)) => return life,
            };
        }
        alone.len()
    }

    #[test]
    fn a_message_that_kills_its_process_is_given_up_on_after_three_starts_alone() {
        assert_eq!(lives(&[true; 20]), 4, "the first one was beside others");
    }

    #[test]
    fn a_neighbour_is_never_given_up_on() {
        let neighbour = Unfinished {
            alone: false,
            crashes: 0,
        };

        assert_eq!(neighbour.judge(false), Start::NotBeside);
        assert_eq!(neighbour.judge(true), Start::Alone(0));
    }

    #[test]
    fn what_is_delivered_again_and_what_comes_first_is_suspect() {
        assert!(is_suspect(Some(1), false));
        assert!(is_suspect(None, true));
        assert!(!is_suspect(Some(0), false));
        assert!(!is_suspect(None, false));
    }

    #[test]
    fn each_place_of_a_batch_handles_as_many_messages_as_it_holds() {
        assert_eq!(most_at_a_time(vec![], 16), 16);
        assert_eq!(most_at_a_time(vec![(usize::MAX, 1)], 16), 16);
        assert_eq!(most_at_a_time(vec![(4, 20)], 16), 4 * 20 + 12);
        assert_eq!(most_at_a_time(vec![(usize::MAX, 20)], 16), 16 * 20);
        assert_eq!(
            most_at_a_time(vec![(3, 1), (2, 5), (4, 20)], 7),
            4 * 20 + 2 * 5 + 1
        );
    }

    proptest! {
        #[test]
        fn only_starts_alone_count(alone in prop::collection::vec(any::<bool>(), 0..50)) {
            let lived = lives(&alone);
            // The first life finds no start, whether or not it could be alone.
            let counted = alone.iter().take(lived).skip(1).filter(|alone| **alone).count();

            prop_assert!(counted <= 3);
            prop_assert_eq!(lived < alone.len(), counted == 3 && lived < alone.len());
        }
    }
}

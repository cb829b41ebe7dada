//! Which types fail. A thousand messages that fail alike are one bug or one dead dependency, not a thousand poison messages.
//! Pure but for the lock.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

/// How many distinct messages of a type are looked back at.
const LAST: usize = 20;

/// How many of them have to fail.
const ENOUGH: usize = 10;

/// What became of the last distinct messages of each type, and which types are paused. Behind a lock, since all workers
/// tell of each attempt at once and must not wait for the loop; it is never held over anything that waits.
#[derive(Debug, Default)]
pub(crate) struct Types {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: HashMap<String, VecDeque<(Uuid, bool)>>,
    paused: HashSet<String>,
    /// Lines whose first message is to be tried all the same.
    probes: HashSet<Uuid>,
    /// Whether no more may be deferred.
    full: bool,
}

impl Types {
    /// An attempt at a message has ended. True: now most of its type have failed, and it is to be paused.
    pub(crate) fn note(&self, kind: &str, mark: Uuid, failed: bool) -> bool {
        let mut state = self.lock();
        if state.paused.contains(kind) {
            return false;
        }
        let last = state.last.entry(kind.to_owned()).or_default();
        last.retain(|(known, _)| *known != mark);
        last.push_back((mark, failed));
        if last.len() > LAST {
            last.pop_front();
        }
        let failures = last.iter().filter(|(_, failed)| *failed).count();
        let fails = failures >= ENOUGH && failures * 2 > last.len();
        if fails {
            last.clear();
            state.paused.insert(kind.to_owned());
        }
        fails
    }

    /// What the database says: the paused types, the lines to be tried, and whether no more may be deferred.
    pub(crate) fn told(&self, paused: HashSet<String>, probes: Vec<Uuid>, full: bool) {
        let mut state = self.lock();
        state.paused = paused;
        state.probes.extend(probes);
        state.full = full;
    }

    pub(crate) fn is_paused(&self, kind: &str) -> bool {
        self.lock().paused.contains(kind)
    }

    /// Whether so many wait that no more may.
    pub(crate) fn is_full(&self) -> bool {
        self.lock().full
    }

    /// Whether the line was chosen to be tried; once.
    pub(crate) fn take_probe(&self, line: Uuid) -> bool {
        self.lock().probes.remove(&line)
    }

    /// The type is handled again.
    pub(crate) fn resumed(&self, kind: &str) {
        self.lock().paused.remove(kind);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics under it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(n: usize) -> Uuid {
        Uuid::from_u128(n as u128)
    }

    #[test]
    fn ten_distinct_failures_among_the_last_ones_pause_the_type_once() {
        let types = Types::default();

        let paused: Vec<usize> = (0..15)
            .filter(|n| types.note("t", mark(*n), true))
            .collect();

        assert_eq!(paused, [9]);
        assert!(types.is_paused("t"));
        assert!(!types.is_paused("u"));
    }

    #[test]
    fn one_message_that_fails_again_and_again_is_one_message() {
        let types = Types::default();

        assert!(!(0..100).any(|_| types.note("t", mark(1), true)));
    }

    #[test]
    fn half_of_them_is_not_most_of_them() {
        let types = Types::default();

        assert!(!(0..100).any(|n| types.note("t", mark(n), n % 2 == 1)));
    }

    #[test]
    fn a_message_that_succeeds_at_last_counts_as_such() {
        let types = Types::default();
        for n in 0..9 {
            types.note("t", mark(n), true);
            types.note("t", mark(n), false);
        }

        assert!(!types.note("t", mark(9), true));
    }

    #[test]
    fn a_line_is_tried_once_for_each_time_it_is_chosen() {
        let types = Types::default();
        types.told(HashSet::new(), vec![mark(1)], false);

        assert!(types.take_probe(mark(1)));
        assert!(!types.take_probe(mark(1)));
    }
}

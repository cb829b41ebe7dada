//! What a member knows of types that fail: a thousand messages that fail alike are one bug or one dead dependency, not a thousand
//! poison messages.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use crate::FailingTypes;
use crate::plan::failing::{RecentRuns, can_be_paused};

/// How many types are looked at. A producer that makes up a type for each message must not fill the memory.
const MOST_TYPES: usize = 1_000;

/// The last messages of each type, and which types are paused. Behind a lock, since all workers tell of each run at once and must
/// not wait for the loop; it is never held over anything that waits. What is paused may be out of date: whoever defers a
/// message because of it asks the database in the transaction that does so.
#[derive(Debug)]
pub(crate) struct Types {
    settings: FailingTypes,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    recent_runs: HashMap<String, RecentRuns>,
    paused: HashSet<String>,
    /// How many pauses and ends of them this member has made.
    made: u64,
    /// The last one of a type, as far as a look that is on its way may not know of it.
    fresh: HashMap<String, u64>,
    /// Whether no more may be deferred.
    full: bool,
    /// Paused types of which no message waits that could be tried: one may be deferred all the same.
    hungry: HashSet<String>,
}

/// When the database was asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked(u64);

impl State {
    fn make(&mut self, kind: &str) {
        self.made += 1;
        self.fresh.insert(kind.to_owned(), self.made);
    }

    /// A type that fails again once it is resumed must not cost as many attempts as the first time.
    fn pause_runs(&mut self) {
        let paused = self.paused.iter();
        for kind in paused {
            if let Some(runs) = self.recent_runs.get_mut(kind) {
                runs.pause();
            }
        }
    }
}

impl Types {
    pub(crate) fn new(settings: FailingTypes) -> Self {
        Self {
            settings,
            state: Mutex::default(),
        }
    }

    pub(crate) fn settings(&self) -> &FailingTypes {
        &self.settings
    }

    /// A run of a message has ended. True: now its type fails, and is to be paused.
    pub(crate) fn note(&self, kind: &str, mark: Uuid, failed: bool) -> bool {
        let recent = self.settings.recent;
        let mut state = self.lock();
        if recent == 0 || state.paused.contains(kind) || !can_be_paused(kind) {
            return false;
        }
        if let Some(runs) = state.recent_runs.get_mut(kind) {
            let fails = runs.add(mark, failed, recent);
            if runs.is_clean() {
                state.recent_runs.remove(kind);
            }
            return fails;
        }
        if !failed {
            return false;
        }
        if state.recent_runs.len() >= MOST_TYPES {
            state.recent_runs.clear();
        }
        let runs = state.recent_runs.entry(kind.to_owned()).or_default();
        runs.add(mark, failed, recent)
    }

    /// A type is paused in the database.
    pub(crate) fn paused(&self, kind: &str) {
        let mut state = self.lock();
        state.paused.insert(kind.to_owned());
        state.make(kind);
        state.pause_runs();
    }

    /// A type is handled again in the database.
    pub(crate) fn resumed(&self, kind: &str) {
        let mut state = self.lock();
        state.paused.remove(kind);
        state.hungry.remove(kind);
        state.make(kind);
    }

    /// The database is about to be asked what is paused.
    pub(crate) fn asks(&self) -> Asked {
        Asked(self.lock().made)
    }

    /// What the database says is paused, as it was asked then. What this member has made of a type since is newer.
    pub(crate) fn told_paused(&self, mut paused: HashSet<String>, Asked(then): Asked) {
        let mut state = self.lock();
        state.fresh.retain(|_, made| *made > then);
        for kind in state.fresh.keys() {
            if state.paused.contains(kind) {
                paused.insert(kind.clone());
            } else {
                paused.remove(kind);
            }
        }
        state.hungry.retain(|kind| paused.contains(kind));
        state.full &= !paused.is_empty();
        state.paused = paused;
        state.pause_runs();
    }

    /// How many messages wait; none: so many that they could not be counted.
    pub(crate) fn told_waiting(&self, count: Option<u64>) {
        let deferred = self.settings.deferred;
        self.lock().full = count.is_none_or(|count| count >= deferred);
    }

    /// Whether a message is wanted of a paused type, to be tried.
    pub(crate) fn told_hungry(&self, kind: &str, hungry: bool) {
        let mut state = self.lock();
        if !hungry {
            state.hungry.remove(kind);
        } else if state.paused.contains(kind) {
            state.hungry.insert(kind.to_owned());
        }
    }

    pub(crate) fn is_paused(&self, kind: &str) -> bool {
        self.lock().paused.contains(kind)
    }

    /// Whether a delivery can only be held: its type is paused, and as many wait as may. One that is to be tried is let through.
    pub(crate) fn holds(&self, kind: &str) -> bool {
        let mut state = self.lock();
        state.full && state.paused.contains(kind) && !state.hungry.remove(kind)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Whoever panicked under the lock has left it whole: every change is one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types() -> Types {
        Types::new(FailingTypes {
            recent: 4,
            deferred: 10,
            ..FailingTypes::default()
        })
    }

    fn set(kinds: &[&str]) -> HashSet<String> {
        kinds.iter().map(|kind| (*kind).to_owned()).collect()
    }

    fn told(types: &Types, kinds: &[&str]) {
        let asked = types.asks();
        types.told_paused(set(kinds), asked);
    }

    fn fails(types: &Types, kind: &str, marks: std::ops::Range<u128>) -> bool {
        let mut notes = marks.map(|n| types.note(kind, Uuid::from_u128(n), true));
        notes.any(|fails| fails)
    }

    #[test]
    fn a_type_that_could_not_be_paused_is_found_to_fail_again() {
        let types = types();

        assert!(!fails(&types, "t", 0..1));
        assert!(fails(&types, "t", 1..2));
        assert!(
            fails(&types, "t", 2..3),
            "nobody has said that it is paused"
        );
        types.paused("t");
        assert!(types.is_paused("t"));
        assert!(!fails(&types, "t", 3..9));
    }

    #[test]
    fn what_failed_before_a_pause_does_not_pause_again_by_itself() {
        let types = types();
        fails(&types, "t", 0..1);

        told(&types, &["t"]);
        told(&types, &[]);

        assert!(!fails(&types, "t", 1..2));
        assert!(fails(&types, "t", 2..3));
    }

    #[test]
    fn types_that_are_handled_take_no_memory() {
        let types = types();

        types.note("t", Uuid::from_u128(1), false);
        assert!(types.lock().recent_runs.is_empty());
        types.note("t", Uuid::from_u128(1), true);
        types.note("t", Uuid::from_u128(1), false);

        assert!(types.lock().recent_runs.is_empty());
        for n in 0..5_000 {
            types.note(&format!("t{n}"), Uuid::from_u128(n), true);
        }
        assert!(types.lock().recent_runs.len() <= MOST_TYPES);
    }

    #[test]
    fn where_no_more_may_wait_a_paused_type_is_held_but_for_one_to_be_tried() {
        let types = types();
        told(&types, &["t"]);
        assert!(!types.holds("t"));

        types.told_waiting(Some(10));
        assert!(types.holds("t"));
        assert!(!types.holds("u"), "another type is handled");
        types.told_hungry("t", true);
        assert!(!types.holds("t"));
        assert!(types.holds("t"), "one is enough");

        told(&types, &[]);
        assert!(!types.holds("t"));
        told(&types, &["t"]);
        assert!(!types.holds("t"), "what waited may be gone since");
    }

    #[test]
    fn what_could_not_be_counted_is_as_many_as_may_wait() {
        let types = types();
        told(&types, &["t"]);

        types.told_waiting(None);
        assert!(types.holds("t"));
        types.told_waiting(Some(9));
        assert!(!types.holds("t"));
    }

    #[test]
    fn a_look_that_began_before_a_pause_or_its_end_undoes_neither() {
        let types = types();
        told(&types, &["resumed"]);

        let asked = types.asks();
        types.paused("paused");
        types.resumed("resumed");
        types.told_paused(set(&["resumed"]), asked);
        assert!(types.is_paused("paused"));
        assert!(!types.is_paused("resumed"));

        // The next look knows better.
        told(&types, &["resumed"]);
        assert!(!types.is_paused("paused"));
        assert!(types.is_paused("resumed"));
    }

    #[test]
    fn a_type_that_fails_again_once_it_is_resumed_is_paused_sooner() {
        let types = Types::new(FailingTypes::default());
        assert!(!fails(&types, "t", 0..9));
        assert!(fails(&types, "t", 9..10));
        types.paused("t");
        told(&types, &["t"]);

        types.resumed("t");
        assert!(!fails(&types, "t", 10..13));
        assert!(fails(&types, "t", 13..14));
    }

    #[test]
    fn nothing_is_paused_where_no_message_is_looked_back_at() {
        let types = Types::new(FailingTypes {
            recent: 0,
            ..FailingTypes::default()
        });

        assert!(!fails(&types, "t", 0..100));
    }
}

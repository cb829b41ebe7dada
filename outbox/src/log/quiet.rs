//! Decides whether a read could bring anything. Pure: no clock, no I/O.

use onceward_core::Lane;

use super::cursor::{Cursor, Step};
use super::snapshot::Snapshot;

/// What a read has left with nothing more to bring: its cursors, until somebody has committed something.
///
/// A row is there for whoever sees its transaction, and a snapshot tells which transactions had ended when it was taken. Two equal
/// snapshots of one server: no transaction with an id has ended in between, for until it ended its id was above the first one's `xmax`
/// or among those that ran, and since then it would be neither in the second. Nor has one begun that could be seen. What was written
/// and not seen then is not seen now; what was seen then was read. Nothing else brings rows: no time of day, no setting, no other
/// stream. So behind a read that left nothing of what it saw another one would find nothing, and leave the cursors where they are. Rows
/// that go, as a slot is emptied, had been read; and whoever empties one has an id. Whose read it was does not matter: whoever takes the
/// answer of another stream stands where it leads to.
///
/// Whoever renews a lease or stores a cursor commits too, so that a stream's own writes bring it to read at their own pace.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Quiet {
    seen: Snapshot,
    cursors: Vec<(Lane, Cursor)>,
}

impl Quiet {
    /// What is known after a read that came to these steps; none if one of them left anything.
    #[must_use]
    pub fn after<'a, R: 'a>(steps: impl IntoIterator<Item = (Lane, &'a Step<R>)>) -> Option<Self> {
        let mut cursors = Vec::new();
        for (lane, step) in steps {
            if step.left {
                return None;
            }
            cursors.push((lane, step.after.clone()));
        }
        let seen = cursors.first()?.1.snapshot.clone();
        let at_once = cursors.iter().all(|(_, cursor)| cursor.snapshot == seen);
        at_once.then_some(Self { seen, cursors })
    }

    /// Whether it says something about a read for these cursors. Those that were not read then, or stand elsewhere now, must be read.
    #[must_use]
    pub fn covers<'a>(&self, cursors: impl IntoIterator<Item = (Lane, &'a Cursor)>) -> bool {
        let known = |(lane, cursor): (Lane, &Cursor)| {
            let mut known = self.cursors.iter();
            known.any(|(of, at)| (*of, at) == (lane, cursor))
        };
        cursors.into_iter().all(known)
    }

    /// What the read saw that it speaks of.
    #[must_use]
    pub fn seen(&self) -> &Snapshot {
        &self.seen
    }

    /// Whether a read that sees this would bring nothing.
    #[must_use]
    pub fn holds(&self, now: &Snapshot) -> bool {
        self.seen == *now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(text: &str) -> Snapshot {
        text.parse().unwrap()
    }

    fn at(last: i64, seen: &str) -> Cursor {
        Cursor::starting(last, snapshot(seen))
    }

    fn step(rows: &[i64], after: Cursor, left: bool) -> Step<i64> {
        let rows = rows.to_vec();
        Step { rows, after, left }
    }

    fn quiet() -> Quiet {
        let step = step(&[], at(7, "11:14:12"), false);
        Quiet::after([(Lane::Standard, &step)]).unwrap()
    }

    #[test]
    fn the_same_snapshot_shows_nothing_and_any_other_may() {
        assert!(quiet().holds(&snapshot("11:14:12")));
        for other in ["11:14:", "11:15:12", "11:14:12,13", "14:14:"] {
            assert!(!quiet().holds(&snapshot(other)), "{other}");
        }
    }

    #[test]
    fn it_speaks_of_the_cursors_that_were_read_and_where_they_stand_now() {
        let quiet = quiet();

        assert!(quiet.covers([(Lane::Standard, &at(7, "11:14:12"))]));
        assert!(!quiet.covers([(Lane::Bulk, &at(7, "11:14:12"))]));
        assert!(!quiet.covers([(Lane::Standard, &at(6, "11:14:12"))]));
        assert!(!quiet.covers([(Lane::Standard, &at(7, "10:12:"))]));
    }

    #[test]
    fn only_a_read_that_left_nothing_leaves_the_log_quiet() {
        let of = |step: Step<i64>| Quiet::after([(Lane::Bulk, &step)]);

        assert!(of(step(&[], at(7, "11:14:"), false)).is_some());
        assert!(of(step(&[8], at(8, "11:14:"), false)).is_some());
        assert!(of(step(&[8], at(8, "11:14:"), true)).is_none());
    }

    #[test]
    fn cursors_at_several_moments_are_not_quiet_together() {
        let one = step(&[], at(7, "11:14:"), false);
        let other = step(&[], at(7, "11:15:"), false);

        let steps = [(Lane::Bulk, &one), (Lane::Standard, &other)];

        assert!(Quiet::after(steps).is_none());
        assert!(Quiet::after::<i64>([]).is_none());
    }
}

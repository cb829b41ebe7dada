//! Decides whether a read could bring anything. Pure: no clock, no I/O.

use onceward_core::Lane;

use super::cursor::{Cursor, Step};
use super::snapshot::Snapshot;

/// What a read has left with nothing to bring: its cursors, until somebody has committed something.
///
/// A row is there for whoever sees its transaction, and a snapshot tells which transactions had ended when it was taken. Two equal
/// snapshots of one server: no transaction with an id has ended in between, for until it ended its id was above the first one's `xmax`
/// or among those that ran, and since then it would be neither in the second. Nor has one begun that could be seen. What was written
/// and not seen then is not seen now; what was seen then was read. Nothing else brings rows: no time of day, no setting, no other
/// stream. So for the same cursors a read would find what the last one found, nothing, and would leave them where they are. Rows
/// that go, as a slot is emptied, had been read; and whoever empties one has an id.
///
/// Whoever renews a lease or stores a cursor commits too, so that a stream's own writes bring it to read at their own pace.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Quiet {
    seen: Snapshot,
    cursors: Vec<(Lane, Cursor)>,
}

impl Quiet {
    /// What is known after a read that led from each of these cursors to its step; none unless all of it is quiet.
    #[must_use]
    pub fn after<'a, R: 'a>(
        steps: impl IntoIterator<Item = (Lane, &'a Cursor, &'a Step<R>)>,
    ) -> Option<Self> {
        let mut cursors = Vec::new();
        for (lane, before, step) in steps {
            // While it pages, a cursor asks for nothing new, and its snapshot is not that of the read.
            let paged = before.paging.is_some() || step.after.paging.is_some();
            if paged || !step.rows.is_empty() {
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

    /// Whether a read that sees this would bring nothing.
    #[must_use]
    pub fn holds(&self, now: &Snapshot) -> bool {
        self.seen == *now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::cursor::Paging;

    fn snapshot(text: &str) -> Snapshot {
        text.parse().unwrap()
    }

    fn at(last: i64, seen: &str) -> Cursor {
        Cursor::starting(last, snapshot(seen))
    }

    fn empty(after: Cursor) -> Step<i64> {
        Step {
            rows: Vec::new(),
            after,
        }
    }

    fn quiet() -> Quiet {
        let before = at(7, "10:12:");
        let step = empty(at(7, "11:14:12"));
        Quiet::after([(Lane::Standard, &before, &step)]).unwrap()
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
    fn a_read_that_brought_something_or_paged_leaves_nothing_quiet() {
        let (before, after) = (at(7, "10:12:"), at(7, "11:14:"));
        let with_a_row = Step {
            rows: vec![8],
            after: at(8, "11:14:"),
        };
        let paging = Cursor {
            paging: Some(Paging {
                pinned: snapshot("10:13:"),
                late_pos: 3,
            }),
            ..before.clone()
        };
        let of = |before: &Cursor, step: &Step<i64>| Quiet::after([(Lane::Bulk, before, step)]);

        assert!(of(&before, &empty(after.clone())).is_some());
        assert!(of(&before, &with_a_row).is_none());
        assert!(of(&before, &empty(paging.clone())).is_none());
        assert!(of(&paging, &empty(after)).is_none());
    }

    #[test]
    fn cursors_at_several_moments_are_not_quiet_together() {
        let before = at(7, "10:12:");
        let (one, other) = (empty(at(7, "11:14:")), empty(at(7, "11:15:")));

        let steps = [
            (Lane::Bulk, &before, &one),
            (Lane::Standard, &before, &other),
        ];

        assert!(Quiet::after(steps).is_none());
        assert!(Quiet::after::<i64>([]).is_none());
    }
}

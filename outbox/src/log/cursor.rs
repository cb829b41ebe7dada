//! Decides what a read asks for, what of its answer is delivered, and where the cursor stands then. Pure: no clock, no I/O.

use std::hash::{Hash, Hasher};

use super::snapshot::Snapshot;
use crate::faults;

/// How far a stream has come in a lane: the highest `seq` that was read, and the snapshot it was read at.
///
/// Everything with `seq <= last` that was visible at `snapshot` has been delivered. Rows below `last` that
/// became visible since are *late*: their transactions committed after a later number had been read. A read
/// delivers the late rows and the next new ones, sorted by `seq`. If A committed before B was written, then A
/// has the lower `seq` and every snapshot that sees B sees A: A is in the same read, sorted before B, or in an
/// earlier one.
///
/// Cursors that differ in [`late_below`](Self::late_below) alone are equal: they read the same.
#[derive(Debug, Clone)]
pub struct Cursor {
    /// The highest `seq` that was read; 0 before the first.
    pub last: i64,
    /// What could be seen when `last` was read.
    pub snapshot: Snapshot,
    /// Set while more late rows wait than fit in one read: they come first, page by page.
    pub paging: Option<Paging>,
    /// Rows up to here are none of this cursor's business, however late they come; 0 for most streams.
    pub floor: i64,
    /// What is known of the transactions of its late rows.
    pub late_below: LateBelow,
}

/// A transaction id that was given after a number had been, if one is known. No row up to that number is of that transaction or of a later
/// one: a cursor whose `last` is no higher has no late row of those, and a read of it need not go through what they wrote.
///
/// Ids are given in order and so are numbers, and a transaction has its id before it takes a number. So whoever has this id or a later one took
/// its numbers later than that one, and they are above it.
///
/// It only saves work: the rows that a read gives stay the same. It is ignored once the cursor's `last` is above that number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct LateBelow(Option<(i64, u64)>);

/// A cursor in the middle of its late rows.
///
/// The pages end with what `pinned` could see. What commits meanwhile is late for the next read, so that it
/// cannot pass an earlier row of its key that waits on a later page.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Paging {
    /// The snapshot under which all pages are read; it becomes the cursor's snapshot after the last one.
    pub pinned: Snapshot,
    /// The highest `seq` of the pages so far.
    pub late_pos: i64,
}

/// What one read asks of a lane. A row is
///
/// - *late* if `after < seq <= last`, `snapshot` does not see its transaction, `pinned` (if set) does, and it is below `late_below` (if set);
/// - *new* if `seq > last` and `new_rows` is set.
///
/// Of each kind the read takes the lowest, up to its limits; at least one, if there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    /// The highest `seq` that was read before.
    pub(crate) last: i64,
    /// Late rows lie above this `seq`.
    pub(crate) after: i64,
    /// What the last read could see.
    pub(crate) snapshot: &'a Snapshot,
    /// Late rows are those that this snapshot sees; if not set, those that the read itself sees.
    pub(crate) pinned: Option<&'a Snapshot>,
    /// Late rows are of transactions below this one.
    pub(crate) late_below: Option<u64>,
    /// Whether new rows are wanted too.
    pub(crate) new_rows: bool,
}

/// What one read found in a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found<R> {
    /// The late rows, in any order.
    pub(crate) late: Vec<R>,
    /// There are late rows beyond those in `late`, all of them with a higher `seq`.
    pub(crate) more_late: bool,
    /// The new rows, in any order.
    pub(crate) new: Vec<R>,
    /// If new rows were asked for: there may be some beyond those in `new`, all of them with a higher `seq`.
    pub(crate) more_new: bool,
    /// What the read could see.
    pub(crate) seen: Snapshot,
}

/// A row's place in the log, all that a cursor needs to know of it.
pub(crate) trait Sequenced {
    /// The row's number.
    fn seq(&self) -> i64;
}

/// What a read of a lane delivers, and where its cursor stands once all of it is confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step<R> {
    /// The rows to deliver, by ascending `seq`.
    pub rows: Vec<R>,
    /// The cursor behind them.
    pub after: Cursor,
    /// Whether the read may have seen rows that are left for the next one.
    pub left: bool,
}

impl Cursor {
    /// A cursor before the first row, or behind `last` at a snapshot that saw everything up to there.
    #[cfg(test)]
    pub(crate) fn starting(last: i64, snapshot: Snapshot) -> Self {
        Self {
            last,
            snapshot,
            paging: None,
            floor: 0,
            late_below: LateBelow::default(),
        }
    }

    /// Takes note of a transaction. `txid` must be one whose id was given after the number `given` had been: with any other, later reads miss
    /// rows. Ignored if `last` is above `given`.
    pub fn learn(&mut self, given: i64, txid: u64) {
        let known = self.known_late_below();
        if self.last <= given && known.is_none_or(|known| txid < known) {
            self.late_below = LateBelow(Some((given, txid)));
        }
    }

    /// The lowest transaction id of which, and of all later ones, it is known that no late row is.
    pub(crate) fn known_late_below(&self) -> Option<u64> {
        let LateBelow(known) = self.late_below;
        let holds = known.filter(|(given, _)| self.last <= *given);
        holds.map(|(_, txid)| txid)
    }

    /// Whether this cursor has read everything that `other` has passed and will never read again.
    #[must_use]
    pub fn has_reached(&self, other: &Self) -> bool {
        self.paging.is_none()
            && other.paging.is_none()
            && self.floor == other.floor
            && self.last >= other.last
            && self.snapshot.sees_all_of(&other.snapshot)
    }

    /// What the next read has to ask for.
    pub(crate) fn request(&self) -> Request<'_> {
        let late_pos = self.paging.as_ref().map_or(0, |paging| paging.late_pos);
        Request {
            last: self.last,
            after: self.floor.max(late_pos),
            snapshot: &self.snapshot,
            pinned: self.paging.as_ref().map(|paging| &paging.pinned),
            late_below: self.known_late_below(),
            new_rows: self.paging.is_none(),
        }
    }

    /// What of the answer is delivered, and the cursor behind it.
    pub(crate) fn advance<R: Sequenced>(&self, found: Found<R>) -> Step<R> {
        let Found {
            late: mut rows,
            more_late,
            new,
            more_new,
            seen,
        } = found;
        rows.sort_unstable_by_key(Sequenced::seq);
        if more_late {
            return self.next_page(rows, seen);
        }
        if let Some(paging) = &self.paging {
            // What came after the pinned snapshot is late for the next read, also what is new: it may follow
            // a row of its key that this snapshot did not see.
            let after = self.at(self.last, paging.pinned.clone());
            let left = true;
            return Step { rows, after, left };
        }
        if faults::late_rows_are_dropped() {
            rows.clear();
        }
        let last = new.iter().map(Sequenced::seq).fold(self.last, i64::max);
        if rows.is_empty() {
            rows = new;
        } else {
            rows.extend(new);
        }
        rows.sort_unstable_by_key(Sequenced::seq);
        let after = self.at(last, seen);
        let left = more_new;
        Step { rows, after, left }
    }

    /// A page of late rows with more to come: the snapshot stays, nothing new is taken.
    fn next_page<R: Sequenced>(&self, rows: Vec<R>, seen: Snapshot) -> Step<R> {
        let before = self.request().after;
        let late_pos = rows.last().map_or(before, Sequenced::seq);
        let pinned = match &self.paging {
            Some(paging) => paging.pinned.clone(),
            None => seen,
        };
        let after = Self {
            paging: Some(Paging { pinned, late_pos }),
            ..self.clone()
        };
        let left = true;
        Step { rows, after, left }
    }

    fn at(&self, last: i64, snapshot: Snapshot) -> Self {
        Self {
            last,
            snapshot,
            paging: None,
            floor: self.floor,
            late_below: self.late_below,
        }
    }

    /// What tells which rows come next, and nothing that only spares the search for them.
    fn position(&self) -> (i64, &Snapshot, Option<&Paging>, i64) {
        let Self {
            last,
            snapshot,
            paging,
            floor,
            late_below: _,
        } = self;
        (*last, snapshot, paging.as_ref(), *floor)
    }
}

impl PartialEq for Cursor {
    fn eq(&self, other: &Self) -> bool {
        self.position() == other.position()
    }
}

impl Eq for Cursor {}

/// A check that explores states has to look at `late_below` besides.
impl Hash for Cursor {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.position().hash(state);
    }
}

/// The statement's contract as functions, for the checks that stand in for it.
#[cfg(test)]
impl Request<'_> {
    /// Whether a row that the read can see is late.
    pub(crate) fn is_late(&self, seq: i64, txid: u64) -> bool {
        self.after < seq
            && seq <= self.last
            && !self.snapshot.sees(txid)
            && self.pinned.is_none_or(|pinned| pinned.sees(txid))
            && self.late_below.is_none_or(|below| txid < below)
    }

    /// Whether a row that the read can see is new.
    pub(crate) fn is_new(&self, seq: i64) -> bool {
        self.new_rows && seq > self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_id_that_is_learnt_holds_up_to_the_number_that_had_been_given() {
        let cursor = Cursor::starting(7, "700:900:".parse().unwrap());
        let mut informed = cursor.clone();

        informed.learn(6, 800);
        assert_eq!(informed.known_late_below(), None, "7 may be given later");
        informed.learn(9, 1_000);
        informed.learn(9, 950);
        informed.learn(12, 1_000);

        assert_eq!(informed.known_late_below(), Some(950));
        assert_eq!(informed, cursor, "it reads the same");
        let known_at = |last| {
            let there = informed.at(last, "700:990:".parse().unwrap());
            there.known_late_below()
        };
        assert_eq!(
            [known_at(7), known_at(9), known_at(10)],
            [Some(950), Some(950), None]
        );
        let mut ahead = informed.at(10, "700:990:".parse().unwrap());
        ahead.learn(12, 1_000);
        assert_eq!(ahead.known_late_below(), Some(1_000));
    }
}

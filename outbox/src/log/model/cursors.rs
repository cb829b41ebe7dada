//! One reader, whose read, delivery and step forward are one act: the cursor alone is under test.

use std::fmt::Debug;
use std::hash::Hash;

use super::world::{Row, SCENARIOS, Scenario, World};
use super::{Findings, System, explore_all};
use crate::log::cursor::{Cursor, Found};
use crate::log::snapshot::Snapshot;

/// Reads before the transactions have ended; afterwards there is no limit.
const READS_MEANWHILE: u8 = 4;

/// A way to read the log.
pub(super) trait Reader: Clone + Hash + PartialEq + Sized {
    fn start(world: &World) -> Self;

    /// What is delivered, and the reader behind it.
    fn read(&self, world: &World, delivered: &[u8], limit: usize) -> (Vec<Row>, Self);
}

#[derive(Clone, Hash)]
struct Reading<R> {
    world: World,
    reader: R,
    arrivals: Vec<u8>,
    doubled: bool,
    reads: u8,
    limit: usize,
}

#[derive(Debug)]
struct Read;

impl<R: Reader> Reading<R> {
    fn start(world: World, limit: usize) -> Self {
        let reader = R::start(&world);
        Self {
            world,
            reader,
            arrivals: Vec::new(),
            doubled: false,
            reads: 0,
            limit,
        }
    }
}

impl<R: Reader> System for Reading<R> {
    type Action = Read;

    fn acts(&self) -> Vec<(Read, Self)> {
        let mut acts = Vec::new();
        let quiet = self.world.is_quiet();
        if quiet || self.reads < READS_MEANWHILE {
            let (rows, reader) = self.reader.read(&self.world, &self.arrivals, self.limit);
            if !rows.is_empty() || reader != self.reader {
                let mut after = self.clone();
                after.reader = reader;
                after.reads += u8::from(!quiet);
                for row in rows {
                    if after.arrivals.contains(&row.seq) {
                        after.doubled = true;
                    } else {
                        after.arrivals.push(row.seq);
                    }
                }
                acts.push((Read, after));
            }
        }
        acts
    }

    fn world(&self) -> &World {
        &self.world
    }

    fn with(&self, world: World) -> Self {
        Self {
            world,
            ..self.clone()
        }
    }

    fn arrivals(&self) -> &[u8] {
        &self.arrivals
    }

    fn is_doubled(&self) -> bool {
        self.doubled
    }
}

/// All scenarios, or those up to the first in which something is `wanted`.
pub(super) fn check<R: Reader>(wanted: fn(&Findings) -> bool) -> Findings {
    check_worlds::<R>(World::new, wanted)
}

pub(super) fn check_worlds<R: Reader>(
    world: fn(Scenario) -> World,
    wanted: fn(&Findings) -> bool,
) -> Findings {
    let with_limits = |scenario: &Scenario| {
        let world = world(scenario);
        [1, 2, 99].map(|limit| Reading::<R>::start(world.clone(), limit))
    };
    explore_all(SCENARIOS.iter().flat_map(with_limits), wanted)
}

pub(super) fn loses<R: Reader>() -> bool {
    check::<R>(|findings| findings.lost.is_some())
        .lost
        .is_some()
}

fn breaks_order<R: Reader>() -> bool {
    check::<R>(|findings| findings.reordered.is_some())
        .reordered
        .is_some()
}

/// The cursor of the product.
impl Reader for Cursor {
    fn start(world: &World) -> Self {
        Self::starting(0, world.snapshot())
    }

    fn read(&self, world: &World, _: &[u8], limit: usize) -> (Vec<Row>, Self) {
        let step = self.advance(world.read(&self.request(), limit));
        (step.rows, step.after)
    }
}

#[test]
fn the_cursor_loses_nothing_and_keeps_order_in_every_interleaving() {
    let findings = check::<Cursor>(|_| false);

    println!("{} states, {} ends", findings.states, findings.ends);
    assert!(findings.are_none(), "{findings:?}");
    assert!(findings.states > 300_000, "too few: {}", findings.states);
}

/// The highest number so far, nothing else.
#[derive(Clone, Hash, PartialEq)]
struct SeqAboveLast(u8);

impl Reader for SeqAboveLast {
    fn start(_: &World) -> Self {
        Self(0)
    }

    fn read(&self, world: &World, _: &[u8], limit: usize) -> (Vec<Row>, Self) {
        let rows: Vec<Row> = world
            .committed()
            .filter(|row| row.seq > self.0)
            .take(limit)
            .collect();
        let last = rows.last().map_or(self.0, |row| row.seq);
        (rows, Self(last))
    }
}

#[test]
fn reading_above_the_last_number_is_found_to_lose() {
    assert!(loses::<SeqAboveLast>());
}

/// The common advice: a cursor of (transaction, number), below the oldest that runs.
#[derive(Clone, Hash, PartialEq)]
struct GatedByXmin(u8, u8);

impl Reader for GatedByXmin {
    fn start(_: &World) -> Self {
        Self(0, 0)
    }

    fn read(&self, world: &World, _: &[u8], limit: usize) -> (Vec<Row>, Self) {
        let xmin = world.snapshot().xmin();
        let mut rows: Vec<Row> = world
            .committed()
            .filter(|row| u64::from(row.xid) < xmin && (row.xid, row.seq) > (self.0, self.1))
            .collect();
        rows.sort_by_key(|row| (row.xid, row.seq));
        rows.truncate(limit);
        let after = rows
            .last()
            .map_or(self.clone(), |row| Self(row.xid, row.seq));
        (rows, after)
    }
}

#[test]
fn gating_by_the_oldest_running_transaction_is_found_to_break_order() {
    assert!(breaks_order::<GatedByXmin>());
}

/// Rows are marked when delivered; those below the oldest running transaction are due, by number.
#[derive(Clone, Hash, PartialEq)]
struct MarkedBelowXmin;

impl Reader for MarkedBelowXmin {
    fn start(_: &World) -> Self {
        Self
    }

    fn read(&self, world: &World, delivered: &[u8], limit: usize) -> (Vec<Row>, Self) {
        let xmin = world.snapshot().xmin();
        let due = |row: &Row| u64::from(row.xid) < xmin && !delivered.contains(&row.seq);
        (world.committed().filter(due).take(limit).collect(), Self)
    }
}

#[test]
fn marking_rows_below_the_oldest_running_transaction_is_found_to_break_order() {
    assert!(breaks_order::<MarkedBelowXmin>());
}

/// A number that is missing is waited for until all that ran when it was missed have ended.
#[derive(Clone, Hash, PartialEq)]
struct HolesGivenUp {
    last: u8,
    /// Missing numbers, each with the transaction before which everything must have ended.
    holes: Vec<(u8, u64)>,
}

impl Reader for HolesGivenUp {
    fn start(_: &World) -> Self {
        Self {
            last: 0,
            holes: Vec::new(),
        }
    }

    fn read(&self, world: &World, _: &[u8], limit: usize) -> (Vec<Row>, Self) {
        let snapshot = world.snapshot();
        let visible: Vec<Row> = world.committed().collect();
        let top = visible.last().map_or(0, |row| row.seq);
        let (mut rows, mut last, mut stuck) = (Vec::new(), self.last, false);
        let mut holes = Vec::new();
        for seq in self.last + 1..=top {
            let hole = self.holes.iter().find(|(hole, _)| *hole == seq);
            let row = visible.iter().find(|row| row.seq == seq);
            let dead = hole.is_some_and(|(_, xmax)| snapshot.xmin() >= *xmax);
            let passes = !stuck && rows.len() < limit && (row.is_some() || dead);
            stuck |= !passes;
            if passes {
                last = seq;
                rows.extend(row);
            } else if row.is_none() {
                holes.push(hole.copied().unwrap_or((seq, snapshot.xmax())));
            }
        }
        (rows, Self { last, holes })
    }
}

#[test]
fn giving_up_on_holes_is_found_to_lose() {
    assert!(loses::<HolesGivenUp>());
}

/// The cursor of the product with one rule changed.
macro_rules! wrong_cursor {
    ($name:ident, $read:expr) => {
        #[derive(Clone, Hash, PartialEq)]
        struct $name(Cursor);

        impl Reader for $name {
            fn start(world: &World) -> Self {
                Self(Cursor::start(world))
            }

            fn read(&self, world: &World, _: &[u8], limit: usize) -> (Vec<Row>, Self) {
                let read: fn(&Cursor, &World, usize) -> (Vec<Row>, Cursor) = $read;
                let (rows, after) = read(&self.0, world, limit);
                (rows, Self(after))
            }
        }
    };
}

wrong_cursor!(WithoutLateRows, |cursor, world, limit| {
    let found = world.read(&cursor.request(), limit);
    let step = cursor.advance(Found {
        late: Vec::new(),
        more_late: false,
        ..found
    });
    (step.rows, step.after)
});

#[test]
fn a_cursor_without_late_rows_is_found_to_lose() {
    assert!(loses::<WithoutLateRows>());
}

wrong_cursor!(PagesEndAtTheNewestSnapshot, |cursor, world, limit| {
    let found = world.read(&cursor.request(), limit);
    let seen = found.seen.clone();
    let mut step = cursor.advance(found);
    if cursor.paging.is_some() && step.after.paging.is_none() {
        step.after.snapshot = seen;
    }
    (step.rows, step.after)
});

#[test]
fn pages_that_end_at_the_newest_snapshot_are_found_to_lose() {
    assert!(loses::<PagesEndAtTheNewestSnapshot>());
}

wrong_cursor!(PagesUnderNoSnapshot, |cursor, world, limit| {
    let mut cursor = cursor.clone();
    if let Some(paging) = &mut cursor.paging {
        paging.pinned = world.snapshot();
    }
    let step = cursor.advance(world.read(&cursor.request(), limit));
    (step.rows, step.after)
});

#[test]
fn pages_under_no_pinned_snapshot_are_found_to_lose() {
    assert!(loses::<PagesUnderNoSnapshot>());
}

wrong_cursor!(NewRowsBesideThePages, |cursor, world, limit| {
    let request = cursor.request();
    let found = world.read(&request, limit);
    let new: Vec<Row> = world
        .committed()
        .filter(|row| i64::from(row.seq) > cursor.last)
        .take(limit)
        .collect();
    let mut step = cursor.advance(Found {
        new: Vec::new(),
        ..found
    });
    step.after.last = new.last().map_or(cursor.last, |row| i64::from(row.seq));
    step.rows.extend(new);
    (step.rows, step.after)
});

#[test]
fn new_rows_beside_the_pages_are_found_to_break_order() {
    assert!(breaks_order::<NewRowsBesideThePages>());
}

/// The number of a snapshot's next transaction instead of the snapshot: what ran then is forgotten.
#[derive(Clone, Hash, PartialEq)]
struct ForgetsWhatRan(Cursor);

impl Reader for ForgetsWhatRan {
    fn start(world: &World) -> Self {
        Self(Cursor::start(world))
    }

    fn read(&self, world: &World, _: &[u8], limit: usize) -> (Vec<Row>, Self) {
        let step = self.0.advance(world.read(&self.0.request(), limit));
        let forget = |snapshot: &Snapshot| {
            Snapshot::new(snapshot.xmax(), snapshot.xmax(), Vec::new()).unwrap()
        };
        let snapshot = forget(&step.after.snapshot);
        (
            step.rows,
            Self(Cursor {
                snapshot,
                ..step.after
            }),
        )
    }
}

#[test]
fn a_snapshot_without_the_running_transactions_is_found_to_lose() {
    assert!(loses::<ForgetsWhatRan>());
}

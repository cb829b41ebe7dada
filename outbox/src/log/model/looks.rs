//! A reader that reads only if a look shows another snapshot than that of the last read, if that left nothing.

use onceward_core::Lane;

use super::cursors::{Reader, check, loses};
use super::world::{Row, World};
use crate::log::cursor::{Cursor, Step};
use crate::log::quiet::Quiet;

/// As the relay polls an idle log.
#[derive(Clone, Hash, PartialEq)]
struct Looking {
    cursor: Cursor,
    quiet: Option<Quiet>,
}

impl Looking {
    fn starting(world: &World) -> Self {
        Self {
            cursor: Cursor::start(world),
            quiet: None,
        }
    }

    fn step(&self, world: &World, limit: usize) -> Step<Row> {
        self.cursor
            .advance(world.read(&self.cursor.request(), limit))
    }

    fn quiet_after(step: &Step<Row>) -> Option<Quiet> {
        Quiet::after([(Lane::Standard, step)])
    }

    fn is_covered(&self, quiet: &Quiet) -> bool {
        quiet.covers([(Lane::Standard, &self.cursor)])
    }
}

impl Reader for Looking {
    fn start(world: &World) -> Self {
        Self::starting(world)
    }

    fn read(&self, world: &World, _: &[u8], limit: usize) -> (Vec<Row>, Self) {
        let quiet = self.quiet.as_ref();
        if quiet.is_some_and(|quiet| self.is_covered(quiet) && quiet.holds(&world.snapshot())) {
            return (Vec::new(), self.clone());
        }
        let step = self.step(world, limit);
        let quiet = Self::quiet_after(&step);
        let cursor = step.after;
        (step.rows, Self { cursor, quiet })
    }
}

#[test]
fn looking_before_reading_loses_nothing_and_keeps_order_in_every_interleaving() {
    let findings = check::<Looking>(|_| false);

    println!("{} states, {} ends", findings.states, findings.ends);
    assert!(findings.are_none(), "{findings:?}");
    assert!(findings.states > 300_000, "too few: {}", findings.states);
}

/// Takes the highest transaction that has ended for the snapshot.
#[derive(Clone, Hash, PartialEq)]
struct LooksAtTheHighest(Looking);

impl Reader for LooksAtTheHighest {
    fn start(world: &World) -> Self {
        Self(Looking::starting(world))
    }

    fn read(&self, world: &World, arrivals: &[u8], limit: usize) -> (Vec<Row>, Self) {
        let xmax = world.snapshot().xmax();
        if self.0.quiet.is_some() && self.0.cursor.snapshot.xmax() == xmax {
            return (Vec::new(), self.clone());
        }
        let (rows, after) = self.0.read(world, arrivals, limit);
        (rows, Self(after))
    }
}

#[test]
fn looking_at_the_highest_transaction_alone_is_found_to_lose() {
    assert!(loses::<LooksAtTheHighest>());
}

/// Takes reads for whole that left something.
#[derive(Clone, Hash, PartialEq)]
struct TakenForWhole<const PAGES: bool>(Looking);

impl<const PAGES: bool> Reader for TakenForWhole<PAGES> {
    fn start(world: &World) -> Self {
        Self(Looking::starting(world))
    }

    fn read(&self, world: &World, _: &[u8], limit: usize) -> (Vec<Row>, Self) {
        let quiet = self.0.quiet.as_ref();
        if quiet.is_some_and(|quiet| self.0.is_covered(quiet) && quiet.holds(&world.snapshot())) {
            return (Vec::new(), self.clone());
        }
        let mut step = self.0.step(world, limit);
        let paged = self.0.cursor.paging.is_some() || step.after.paging.is_some();
        step.left &= paged != PAGES;
        let quiet = Looking::quiet_after(&step);
        let cursor = step.after;
        (step.rows, Self(Looking { cursor, quiet }))
    }
}

#[test]
fn taking_a_read_for_whole_that_brought_as_much_as_it_may_is_found_to_lose() {
    assert!(loses::<TakenForWhole<false>>());
}

#[test]
fn taking_a_read_for_whole_that_paged_is_found_to_lose() {
    assert!(loses::<TakenForWhole<true>>());
}

//! The cursor of the product, told after each of its reads of an id that was given later.

use std::hash::{Hash, Hasher};

use super::cursors::{Reader, check_worlds};
use super::world::{Row, Scenario, World};
use crate::log::cursor::Cursor;

/// Learns the lowest id that is given after its read, for the number that it has come to: any other id says less. Numbers further on are left to
/// the long histories. `TOO_EARLY`: takes the end of its snapshot for that id.
#[derive(Clone, PartialEq)]
struct Informed<const TOO_EARLY: bool>(Cursor);

impl<const TOO_EARLY: bool> Hash for Informed<TOO_EARLY> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
        self.0.late_below.hash(state);
    }
}

impl<const TOO_EARLY: bool> Reader for Informed<TOO_EARLY> {
    fn start(world: &World) -> Self {
        Self(Cursor::start(world))
    }

    fn read(&self, world: &World, delivered: &[u8], limit: usize) -> (Vec<Row>, Self) {
        let (rows, mut after) = self.0.read(world, delivered, limit);
        let txid = if TOO_EARLY {
            after.snapshot.xmax()
        } else {
            world.next_xid()
        };
        after.learn(after.last, txid);
        (rows, Self(after))
    }
}

fn ids_first(scenario: Scenario) -> World {
    World::new(scenario).ids_first()
}

#[test]
fn a_cursor_that_knows_which_ids_were_given_later_loses_nothing_and_keeps_order() {
    let findings = check_worlds::<Informed<false>>(ids_first, |_| false);

    println!("{} states, {} ends", findings.states, findings.ends);
    assert!(findings.are_none(), "{findings:?}");
    assert!(findings.states > 200_000, "too few: {}", findings.states);
}

#[test]
fn it_is_found_to_lose_where_numbers_are_taken_before_ids() {
    let findings = check_worlds::<Informed<false>>(World::new, |found| found.lost.is_some());

    assert!(findings.lost.is_some());
}

#[test]
fn an_id_that_may_have_been_given_before_the_read_is_found_to_lose() {
    let findings = check_worlds::<Informed<true>>(ids_first, |found| found.lost.is_some());

    assert!(findings.lost.is_some());
}

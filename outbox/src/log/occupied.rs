//! Decides which slots of the log a read goes through. Pure.

use std::collections::BTreeMap;

/// The slots that a read goes through: those that were in use at the read before. Most of the ring is empty, and each slot that a
/// statement goes through costs the same whether it is or not.
///
/// A read may leave out a slot only if there is nothing in it for its cursors. So each read also says which partitions are in use, by
/// their size on disk, which it asks after its snapshot was taken. A row that the snapshot sees has had its page since before it was
/// committed. A partition without a page has nothing that the read could have found: it never had, or it was emptied since, and only what
/// every stored cursor has passed is ever emptied. If another one than those is in use, then what was read is no answer, and it is asked again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Occupied {
    /// The slot of each partition, by its number in the catalog.
    partitions: BTreeMap<i64, i16>,
    slots: Vec<i16>,
}

/// What a read that went through some slots is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Covered {
    /// Nothing was left out.
    All,
    /// A slot that is in use was left out; the next one goes through it.
    Part,
    /// A partition is in use that was not there: nobody knows its slot.
    Unknown(i64),
}

impl Occupied {
    /// All slots of these partitions: nothing is known yet.
    pub(super) fn all(partitions: BTreeMap<i64, i16>) -> Self {
        let slots = sorted(partitions.values().copied());
        Self { partitions, slots }
    }

    /// The slots to go through, at least one if there is any partition.
    pub(super) fn slots(&self) -> &[i16] {
        &self.slots
    }

    /// Takes note of which partitions a read through these slots found in use.
    pub(super) fn cover(&mut self, in_use: &[i64]) -> Covered {
        let known = |partition: &&i64| self.partitions.contains_key(partition);
        if let Some(unknown) = in_use.iter().find(|partition| !known(partition)) {
            return Covered::Unknown(*unknown);
        }
        let found = in_use
            .iter()
            .filter_map(|number| self.partitions.get(number));
        let found = sorted(found.copied());
        let is_covered = found.iter().all(|slot| self.slots.contains(slot));
        if found.is_empty() {
            self.slots.truncate(1);
        } else {
            self.slots = found;
        }
        if is_covered {
            Covered::All
        } else {
            Covered::Part
        }
    }
}

fn sorted(slots: impl Iterator<Item = i16>) -> Vec<i16> {
    let mut slots: Vec<i16> = slots.collect();
    slots.sort_unstable();
    slots
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four partitions, whose numbers are in another order than their slots.
    fn ring() -> Occupied {
        Occupied::all(BTreeMap::from([(103, 0), (102, 1), (101, 2), (100, 3)]))
    }

    #[test]
    fn at_first_a_read_goes_through_the_whole_ring() {
        assert_eq!(ring().slots(), [0, 1, 2, 3]);
    }

    #[test]
    fn after_the_first_read_only_slots_in_use_are_gone_through() {
        let mut occupied = ring();

        assert_eq!(occupied.cover(&[101, 100]), Covered::All);
        assert_eq!(occupied.slots(), [2, 3]);

        assert_eq!(occupied.cover(&[100]), Covered::All);
        assert_eq!(occupied.slots(), [3]);
    }

    #[test]
    fn a_read_that_left_out_a_slot_in_use_is_no_answer_and_the_next_one_goes_through_it() {
        let mut occupied = ring();
        occupied.cover(&[102]);

        assert_eq!(occupied.cover(&[102, 101]), Covered::Part);

        assert_eq!(occupied.slots(), [1, 2]);
        assert_eq!(occupied.cover(&[102, 101]), Covered::All);
    }

    #[test]
    fn of_an_empty_log_one_slot_is_gone_through() {
        let mut occupied = ring();

        assert_eq!(occupied.cover(&[]), Covered::All);
        assert_eq!(occupied.slots(), [0]);
        assert_eq!(occupied.cover(&[100]), Covered::Part);
        assert_eq!(occupied.slots(), [3]);
    }

    #[test]
    fn a_partition_that_was_not_there_makes_the_read_worthless() {
        let mut occupied = ring();

        assert_eq!(occupied.cover(&[100, 99]), Covered::Unknown(99));

        assert_eq!(occupied.slots(), [0, 1, 2, 3]);
    }
}

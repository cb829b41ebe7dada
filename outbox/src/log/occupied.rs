//! Decides which slots of the log a read goes through. Pure.

/// The slots that a read goes through: those that were in use at the read before. Most of the ring is empty, and each slot that a
/// statement goes through costs the same whether it is or not.
///
/// A read may leave out a slot only if it is empty. So each read also says which slots are in use, by their size on disk, which it
/// asks after its snapshot was taken. A row that the snapshot sees has had its page since before it was committed: a slot without a
/// page has nothing that this read could have found. If another slot than those is in use, then what was read is no answer, and it is
/// asked again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Occupied(Vec<i16>);

impl Occupied {
    /// All slots of a ring: nothing is known yet.
    pub(super) fn all(ring: i16) -> Self {
        Self((0..ring.max(1)).collect())
    }

    /// The slots to go through, at least one.
    pub(super) fn slots(&self) -> &[i16] {
        &self.0
    }

    /// Takes note of what a read through these slots found in use. Whether it went through all of that: if not, it is no answer.
    pub(super) fn cover(&mut self, in_use: Vec<i16>) -> bool {
        let covered = in_use.iter().all(|slot| self.0.contains(slot));
        if in_use.is_empty() {
            self.0.truncate(1);
        } else {
            self.0 = in_use;
        }
        covered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_first_a_read_goes_through_the_whole_ring() {
        assert_eq!(Occupied::all(4).slots(), [0, 1, 2, 3]);
    }

    #[test]
    fn then_through_what_is_in_use() {
        let mut occupied = Occupied::all(4);

        assert!(occupied.cover(vec![2, 3]));
        assert_eq!(occupied.slots(), [2, 3]);

        assert!(occupied.cover(vec![3]));
        assert_eq!(occupied.slots(), [3]);
    }

    #[test]
    fn a_read_that_left_out_a_slot_in_use_is_no_answer_and_the_next_one_goes_through_it() {
        let mut occupied = Occupied::all(4);
        occupied.cover(vec![1]);

        assert!(!occupied.cover(vec![1, 2]));

        assert_eq!(occupied.slots(), [1, 2]);
        assert!(occupied.cover(vec![1, 2]));
    }

    #[test]
    fn of_an_empty_log_one_slot_is_gone_through() {
        let mut occupied = Occupied::all(4);

        assert!(occupied.cover(Vec::new()));
        assert_eq!(occupied.slots(), [0]);
        assert!(!occupied.cover(vec![3]));
        assert_eq!(occupied.slots(), [3]);
    }
}

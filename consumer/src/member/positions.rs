//! How far this member has come in each partition: the position up to which all that was delivered is settled. Pure.
//!
//! A partition is delivered from its oldest delivery that was not acked, and what was acked is settled: so all up to there is.

use std::collections::{BTreeMap, HashMap};

use onceward_core::Partition;

use crate::faults::{Bug, planted};

#[derive(Debug, Default)]
pub(super) struct Positions {
    tracks: HashMap<Partition, Track>,
    owners: HashMap<u64, Partition>,
    /// Whether something is being written.
    writing: bool,
}

#[derive(Debug, Default)]
struct Track {
    /// From the oldest delivery that is not settled on, by number.
    open: BTreeMap<u64, Place>,
    /// One was left before it was settled: nothing behind it counts.
    broken: bool,
    highest: Option<u64>,
    written: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    position: u64,
    settled: bool,
}

impl Positions {
    /// A delivery has arrived. Numbers grow.
    pub(super) fn arrive(&mut self, partition: &Partition, number: u64, position: Option<u64>) {
        let Some(position) = position else {
            return;
        };
        let place = Place {
            position,
            settled: false,
        };
        let track = self.tracks.entry(partition.clone()).or_default();
        track.open.insert(number, place);
        self.owners.insert(number, partition.clone());
    }

    /// Its mark is committed, by whomever.
    pub(super) fn settled(&mut self, number: u64) {
        if let Some(partition) = self.owners.remove(&number)
            && let Some(track) = self.tracks.get_mut(&partition)
        {
            track.settled(number);
        }
    }

    /// It is forgotten, settled or not.
    pub(super) fn gone(&mut self, number: u64) {
        if let Some(partition) = self.owners.remove(&number)
            && let Some(track) = self.tracks.get_mut(&partition)
        {
            // Only one that is not settled is still known.
            track.broken |= track.open.contains_key(&number);
        }
    }

    /// The partition is somebody else's. What is known of it stays true.
    pub(super) fn lost(&mut self, partition: &Partition) {
        if let Some(track) = self.tracks.get_mut(partition) {
            track.open.clear();
            track.broken = false;
        }
    }

    /// What is to be written, if anything is and nothing is on its way. It is on its way then, until it is told what became of it.
    pub(super) fn take_news(&mut self) -> Option<Vec<(Partition, u64)>> {
        if self.writing {
            return None;
        }
        let news = self.tracks.iter().filter_map(|(partition, track)| {
            let highest = track.highest.filter(|_| track.highest != track.written)?;
            Some((partition.clone(), highest))
        });
        let news: Vec<(Partition, u64)> = news.collect();
        self.writing = !news.is_empty();
        self.writing.then_some(news)
    }

    /// The end of a write; none: it failed.
    pub(super) fn written(&mut self, positions: Option<Vec<(Partition, u64)>>) {
        self.writing = false;
        for (partition, position) in positions.into_iter().flatten() {
            if let Some(track) = self.tracks.get_mut(&partition) {
                track.written = Some(position);
            }
        }
    }
}

impl Track {
    fn settled(&mut self, number: u64) {
        // One of an ownership before is not known any more.
        if let Some(place) = self.open.get_mut(&number) {
            place.settled = true;
            if planted(Bug::PositionOfTheNewest) {
                self.highest = self.highest.max(Some(place.position));
            }
        }
        while !self.broken
            && let Some(first) = self.open.first_entry()
            && first.get().settled
        {
            let position = first.remove().position;
            self.highest = self.highest.max(Some(position));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn partition() -> Partition {
        Partition::new("p")
    }

    fn written(positions: &mut Positions) -> Option<u64> {
        let news = positions.take_news();
        let highest = news.as_ref().map(|news| news[0].1);
        positions.written(news);
        highest
    }

    #[test]
    fn only_what_is_settled_without_a_gap_counts() {
        let mut positions = Positions::default();
        for (number, position) in [(1, 10), (2, 12), (3, 20)] {
            positions.arrive(&partition(), number, Some(position));
        }

        positions.settled(2);
        assert_eq!(written(&mut positions), None);
        positions.settled(1);
        assert_eq!(written(&mut positions), Some(12));
        assert_eq!(written(&mut positions), None, "it is known");
        positions.settled(3);
        assert_eq!(written(&mut positions), Some(20));
    }

    #[test]
    fn nothing_behind_one_that_was_left_counts_until_the_partition_comes_again() {
        let mut positions = Positions::default();
        for number in 1..=3 {
            positions.arrive(&partition(), number, Some(number));
        }
        positions.settled(1);
        positions.gone(1);

        positions.gone(2);
        positions.settled(3);
        assert_eq!(written(&mut positions), Some(1));

        positions.lost(&partition());
        positions.arrive(&partition(), 4, Some(2));
        positions.arrive(&partition(), 5, Some(3));
        positions.settled(4);
        positions.settled(5);
        assert_eq!(written(&mut positions), Some(3));
    }

    #[test]
    fn what_runs_on_after_a_loss_counts_for_nothing() {
        let mut positions = Positions::default();
        positions.arrive(&partition(), 1, Some(7));
        positions.lost(&partition());
        positions.arrive(&partition(), 2, Some(7));

        positions.settled(1);
        assert_eq!(written(&mut positions), None, "7 was delivered again");
        positions.gone(1);
        positions.settled(2);
        assert_eq!(written(&mut positions), Some(7));
    }

    #[test]
    fn what_could_not_be_written_is_written_again_and_one_write_runs_at_a_time() {
        let mut positions = Positions::default();
        positions.arrive(&partition(), 1, Some(1));
        positions.arrive(&partition(), 2, None);
        positions.settled(1);

        assert_eq!(positions.take_news(), Some(vec![(partition(), 1)]));
        assert_eq!(positions.take_news(), None);
        positions.written(None);
        assert_eq!(positions.take_news(), Some(vec![(partition(), 1)]));
    }

    proptest! {
        /// Settled, left, lost in any order: what is noted is never above a position that is not settled.
        #[test]
        fn a_position_that_is_not_settled_is_never_passed(
            steps in prop::collection::vec((0..8_u8, 0..6_usize), 1..200)
        ) {
            let mut positions = Positions::default();
            let mut settled: HashSet<u64> = HashSet::new();
            // The broker delivers again from the oldest one that is not settled.
            let (mut next, mut number) = (0_u64, 0_u64);
            let mut open: Vec<(u64, u64)> = Vec::new();
            for (step, which) in steps {
                match step {
                    0..=2 => {
                        number += 1;
                        positions.arrive(&partition(), number, Some(next));
                        open.push((number, next));
                        next += 1;
                    }
                    3..=5 if !open.is_empty() => {
                        let (number, position) = open.remove(which % open.len());
                        settled.insert(position);
                        positions.settled(number);
                        positions.gone(number);
                    }
                    6 if !open.is_empty() => {
                        let (number, _) = open.remove(which % open.len());
                        positions.gone(number);
                    }
                    7 => {
                        positions.lost(&partition());
                        open.clear();
                        next = (0..).find(|position| !settled.contains(position)).unwrap();
                    }
                    _ => {}
                }
                if let Some(highest) = written(&mut positions) {
                    prop_assert!((0..=highest).all(|position| settled.contains(&position)));
                }
            }
        }
    }
}

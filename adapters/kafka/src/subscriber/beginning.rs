//! Where a group begins in partitions in which it has no position.
//!
//! A group that begins with the latest has no position in any partition of a topic. It gets one in each of them by one commit, also in
//! those of other members. A partition that has none after that is known to be new, and nothing of it is left out, whoever gets it.

use std::collections::{BTreeMap, BTreeSet};

use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};

use super::assignment::Place;
use super::questions::{Positions, Questions};
use super::resume::Stand;
use crate::Start;

/// Where the group stands in partitions, or why that cannot be told now. One that is left out waits for another member.
pub(super) type Stands = BTreeMap<Place, KafkaResult<Stand>>;

/// How a member begins.
pub(super) struct Beginning {
    pub(super) start: Start,
    /// Milliseconds since the epoch: what has come since is not left out.
    pub(super) since: i64,
}

/// What is done about partitions of a topic in which the group has no position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// They are new to the group: they are read from their oldest message.
    Read,
    /// The group gets a position in each partition of the topic.
    Begin,
    /// Another member does that.
    Wait,
}

/// What is done about partitions without a position. `begun`: the group has one in another partition of the topic. `first`: this member
/// owns the topic's first partition. Only that one begins the topic: of two, the later could pass over what the earlier has read already.
fn step(begun: bool, first: bool) -> Step {
    match (begun, first) {
        (true, _) => Step::Read,
        (false, true) => Step::Begin,
        (false, false) => Step::Wait,
    }
}

impl Beginning {
    /// Where the group stands in these partitions. `owned`: the partitions of this member.
    pub(super) fn stands(
        &self,
        questions: &Questions<'_>,
        places: &[Place],
        owned: &BTreeSet<Place>,
    ) -> KafkaResult<Stands> {
        let committed = questions.committed(places)?;
        let mut stands = Stands::new();
        let mut lacking: BTreeMap<&str, Vec<Place>> = BTreeMap::new();
        for place in places {
            if let Some(at) = committed.get(place) {
                stands.insert(place.clone(), Ok(Stand::At(*at)));
            } else {
                let of_topic = lacking.entry(&place.topic).or_default();
                of_topic.push(place.clone());
            }
        }
        for (topic, places) in lacking {
            match self.of_topic(questions, topic, &places, owned) {
                Ok(found) => stands.extend(found),
                Err(error) => {
                    let failed = places.into_iter();
                    stands.extend(failed.map(|place| (place, Err(error.clone()))));
                }
            }
        }
        Ok(stands)
    }

    fn of_topic(
        &self,
        questions: &Questions<'_>,
        topic: &str,
        lacking: &[Place],
        owned: &BTreeSet<Place>,
    ) -> KafkaResult<Stands> {
        match self.start {
            Start::Earliest => read(questions, lacking, &Positions::new()),
            Start::Latest => {
                let all = questions.partitions(topic)?;
                let committed = questions.committed(&all)?;
                let first = all.iter().min().is_some_and(|first| owned.contains(first));
                match step(!committed.is_empty(), first) {
                    Step::Read => read(questions, lacking, &committed),
                    Step::Begin => self.begin(questions, &all, lacking),
                    Step::Wait => Ok(Stands::new()),
                }
            }
        }
    }

    /// Gives the group a position in each partition of a topic.
    fn begin(
        &self,
        questions: &Questions<'_>,
        all: &[Place],
        lacking: &[Place],
    ) -> KafkaResult<Stands> {
        // Ends first: what comes between the two questions is found by the second.
        let ends = questions.ends(all)?;
        let since = questions.since(all, self.since)?;
        if ends.len() < all.len() {
            // Without a position in it, what comes there meanwhile could not be told from what was there.
            return Err(KafkaError::OffsetFetch(Code::LeaderNotAvailable));
        }
        let at = |(place, end): (Place, i64)| {
            let at = since.get(&place).map_or(end, |since| end.min(*since));
            (place, at)
        };
        questions.commit(&ends.into_iter().map(at).collect())?;
        // Asked again: where a later try finds no position, it takes the partition for a new one.
        let committed = questions.committed(all)?;
        let stand = |place: &Place| {
            let missing = KafkaError::OffsetFetch(Code::NoOffset);
            let at = committed.get(place).copied().ok_or(missing);
            (place.clone(), at.map(Stand::At))
        };
        Ok(lacking.iter().map(stand).collect())
    }
}

/// Reads partitions from the group's position, or else from their oldest message.
fn read(
    questions: &Questions<'_>,
    lacking: &[Place],
    committed: &Positions,
) -> KafkaResult<Stands> {
    let new = lacking
        .iter()
        .filter(|place| !committed.contains_key(place));
    let oldest = questions.oldest(&new.cloned().collect::<Vec<_>>())?;
    let stand = |place: &Place| {
        let begins = || oldest.get(place).copied().map(Stand::Begins);
        let at = committed.get(place).copied().map(Stand::At);
        let untold = KafkaError::OffsetFetch(Code::LeaderNotAvailable);
        (place.clone(), at.or_else(begins).ok_or(untold))
    };
    Ok(lacking.iter().map(stand).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_without_a_position_is_new_once_the_group_has_one_in_another() {
        assert_eq!(step(true, false), Step::Read);
        assert_eq!(step(true, true), Step::Read);
    }

    #[test]
    fn one_member_alone_begins_a_topic_and_the_others_wait_for_it() {
        assert_eq!(step(false, true), Step::Begin);
        assert_eq!(step(false, false), Step::Wait);
    }
}

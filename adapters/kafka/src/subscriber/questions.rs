//! What a member asks the cluster: about many partitions at once, and all that it asks on one occasion within one limit. So questions to
//! a cluster that hangs keep the member's thread from its group for that long at most, however many partitions there are. A commit is no
//! question: librdkafka waits for it as it does for the one at a revocation.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::{Offset, TopicPartitionList};

use super::assignment::Place;
use super::member::Member;
use super::position_of;

/// How long the questions of one occasion may take together.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Positions in partitions. Those of which none could be told are left out.
pub(super) type Positions = BTreeMap<Place, i64>;

/// The questions of one occasion.
pub(super) struct Questions<'a> {
    consumer: &'a BaseConsumer<Member>,
    by: Instant,
}

impl<'a> Questions<'a> {
    pub(super) fn new(consumer: &'a BaseConsumer<Member>) -> Self {
        Self {
            consumer,
            by: Instant::now() + ANSWER_WITHIN,
        }
    }

    /// The group's positions. Either all are told, or there is an error: one that is not known now is not one that is not there.
    pub(super) fn committed(&self, places: &[Place]) -> KafkaResult<Positions> {
        if places.is_empty() {
            return Ok(Positions::new());
        }
        let found = self.consumer.committed_offsets(list(places), self.left())?;
        found.elements().iter().try_for_each(|one| one.error())?;
        Ok(positions(&found))
    }

    /// The oldest positions retained.
    pub(super) fn oldest(&self, places: &[Place]) -> KafkaResult<Positions> {
        self.offsets(places, Offset::Beginning)
    }

    /// The positions after the newest.
    pub(super) fn ends(&self, places: &[Place]) -> KafkaResult<Positions> {
        self.offsets(places, Offset::End)
    }

    /// The positions of the first messages since then, where there are any. `millis`: since the epoch.
    pub(super) fn since(&self, places: &[Place], millis: i64) -> KafkaResult<Positions> {
        self.offsets(places, Offset::Offset(millis))
    }

    /// All partitions of a topic.
    pub(super) fn partitions(&self, topic: &str) -> KafkaResult<Vec<Place>> {
        let answer = self.consumer.fetch_metadata(Some(topic), self.left())?;
        let mut topics = answer.topics().iter();
        let missing = KafkaError::MetadataFetch(Code::UnknownTopicOrPartition);
        let found = topics.find(|one| one.name() == topic).ok_or(missing)?;
        if let Some(error) = found.error() {
            return Err(KafkaError::MetadataFetch(error.into()));
        }
        let place = |number| Place {
            topic: topic.to_owned(),
            number,
        };
        let partitions = found.partitions().iter();
        Ok(partitions.map(|one| place(one.id())).collect())
    }

    /// Commits these positions of the group, whoever owns the partitions. The library does not tell of single ones that were refused.
    pub(super) fn commit(&self, positions: &Positions) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        for (place, at) in positions {
            list.add_partition_offset(&place.topic, place.number, Offset::Offset(*at))?;
        }
        self.consumer.commit(&list, CommitMode::Sync)
    }

    fn offsets(&self, places: &[Place], of: Offset) -> KafkaResult<Positions> {
        if places.is_empty() {
            return Ok(Positions::new());
        }
        let mut list = list(places);
        list.set_all_offsets(of)?;
        let found = self.consumer.offsets_for_times(list, self.left())?;
        Ok(positions(&found))
    }

    /// Never zero, which some of the library's calls take for a limit and others for none.
    fn left(&self) -> Duration {
        let left = self.by.saturating_duration_since(Instant::now());
        left.max(Duration::from_millis(1))
    }
}

fn list(places: &[Place]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(places.len());
    for place in places {
        list.add_partition(&place.topic, place.number);
    }
    list
}

fn positions(list: &TopicPartitionList) -> Positions {
    let elements = list.elements();
    let told = elements.iter().filter(|one| one.error().is_ok());
    told.filter_map(|one| {
        let place = Place {
            topic: one.topic().to_owned(),
            number: one.partition(),
        };
        Some((place, position_of(one.offset())?))
    })
    .collect()
}

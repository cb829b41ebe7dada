//! What a member does when its group calls: takes partitions, gives them back, commits positions, reads on after a jump.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use onceward_core::{Arrival, SubscribeErrorKind};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{
    BaseConsumer, CommitMode, Consumer as _, ConsumerContext, RebalanceProtocol,
};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::message::Timestamp;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use tracing::{debug, error, info, warn};

use super::assignment::{Assignment, Place};
use super::beginning::{Beginning, Stands};
use super::questions::Questions;
use super::resume::{Lost, Resume, Stand, resume};
use super::shared::Shared;
use super::table::{Generation, Stuck};
use crate::errors::subscribe_error;
use crate::{KafkaSubscription, log};

/// How long the thread waits for the group at a time.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(50);

/// One member, as librdkafka calls it. All calls but the log's come from the member's own thread.
pub(super) struct Member {
    shared: Arc<Shared>,
    pub(super) subscription: KafkaSubscription,
    beginning: Beginning,
    /// The consumer that calls; set before it joins.
    pub(super) consumer: OnceLock<Weak<BaseConsumer<Self>>>,
}

impl ClientContext for Member {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        log::line(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log::client_error(&error, reason);
    }

    fn stats_raw(&self, _statistics: &[u8]) {}
}

impl ConsumerContext for Member {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        what: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let cooperative = matches!(
            consumer.rebalance_protocol(),
            RebalanceProtocol::Cooperative
        );
        let done = if what == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.assigned(consumer, list);
            let assigned = if cooperative {
                consumer.incremental_assign(list)
            } else {
                consumer.assign(list)
            };
            // A group that begins has a position from now on.
            self.commit(consumer, Some(&places(list)), CommitMode::Async);
            assigned
        } else {
            self.revoked(consumer, list);
            if cooperative {
                consumer.incremental_unassign(list)
            } else {
                consumer.unassign()
            }
        };
        if let Err(error) = done {
            warn!(%error, "a change of partitions failed");
            self.shared
                .locked()
                .fail(subscribe_error("a change of partitions failed", error));
        }
        self.shared.moved.notify_one();
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        match result {
            Ok(()) => self.note_committed(offsets),
            // Whatever was not committed comes again and is dropped by its mark.
            Err(error) => info!(%error, "positions could not be committed; will retry"),
        }
    }
}

impl Member {
    pub(super) fn new(shared: Arc<Shared>, subscription: KafkaSubscription) -> Self {
        let beginning = Beginning {
            start: subscription.start,
            since: Timestamp::now().to_millis().unwrap_or(0),
        };
        Self {
            shared,
            subscription,
            beginning,
            consumer: OnceLock::new(),
        }
    }

    fn assigned(&self, consumer: &BaseConsumer<Self>, list: &mut TopicPartitionList) {
        let places = places(list);
        let mut owned = self.shared.locked().places();
        owned.extend(places.iter().cloned());
        let questions = Questions::new(consumer);
        let stands = self.beginning.stands(&questions, &places, &owned);
        // Then librdkafka asks by itself, and what it does not find is looked for later.
        let later = |error: KafkaError| info!(%error, "the group's positions cannot be told now");
        let mut stands = stands.unwrap_or_else(|error| {
            later(error);
            Stands::new()
        });
        for place in places {
            info!(
                topic = place.topic,
                partition = place.number,
                "partition assigned"
            );
            let mut assignment = Assignment::new(place.clone());
            let stand = stands.remove(&place).transpose();
            let stand = stand.unwrap_or_else(|error| {
                later(error);
                None
            });
            if let Some(stand) = stand {
                let at = Offset::Offset(assignment.stand(stand));
                let set = list.set_partition_offset(&place.topic, place.number, at);
                debug!(?set, ?at, "partition is read from here");
            } else {
                info!(
                    topic = place.topic,
                    partition = place.number,
                    "partition waits for the group's position"
                );
            }
            // Before the assignment takes effect, so that no record goes to the queue of the whole member.
            let queue = self.queue(&place);
            self.shared.locked().assign(assignment, queue);
        }
    }

    fn queue(&self, place: &Place) -> Option<PartitionQueue<Self>> {
        let consumer = self.consumer.get()?.upgrade()?;
        let mut queue = consumer.split_partition_queue(&place.topic, place.number)?;
        let moved = Arc::clone(&self.shared.moved);
        queue.set_nonempty_callback(move || moved.notify_one());
        Some(queue)
    }

    fn revoked(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let places = places(list);
        if consumer.assignment_lost() {
            warn!(partitions = places.len(), "partitions lost");
            self.shared.locked().remove(&places, |_| false);
            return;
        }
        let released = self.wait_for_release(&places);
        self.commit(consumer, Some(&places), CommitMode::Sync);
        let mut table = self.shared.locked();
        table.remove(&places, |generation| released.contains(&generation));
        info!(partitions = places.len(), "partitions given back");
    }

    /// Lets work in progress finish, for a while. Gives those that were released.
    fn wait_for_release(&self, places: &[Place]) -> BTreeSet<Generation> {
        let mut released = BTreeSet::new();
        if self.shared.is_closing() {
            return released;
        }
        let within = self.subscription.revoke_within;
        let deadline = Instant::now() + within;
        let (sender, receiver) = mpsc::channel();
        let leaving = self.shared.locked().revoke(places, within, &sender);
        drop(sender);
        self.shared.moved.notify_one();
        while released.len() < leaving.len() && !self.shared.is_closing() {
            let left = deadline.saturating_duration_since(Instant::now());
            match receiver.recv_timeout(left.min(LOOK_EVERY)) {
                Ok(generation) => drop(released.insert(generation)),
                Err(RecvTimeoutError::Timeout) if !left.is_zero() => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        released
    }

    /// Commits what is settled without a gap.
    pub(super) fn commit(
        &self,
        consumer: &BaseConsumer<Self>,
        of: Option<&[Place]>,
        mode: CommitMode,
    ) {
        let positions = self.shared.locked().to_commit(of);
        if positions.is_empty() {
            return;
        }
        let mut list = TopicPartitionList::new();
        for (place, position) in &positions {
            let at = Offset::Offset(*position);
            if let Err(error) = list.add_partition_offset(&place.topic, place.number, at) {
                warn!(%error, position, "a position cannot be committed");
            }
        }
        match (consumer.commit(&list, mode), mode) {
            (Ok(()), CommitMode::Sync) => self.note_committed(&list),
            (Ok(()), CommitMode::Async) => {}
            (Err(error), _) => info!(%error, "positions could not be committed; will retry"),
        }
    }

    /// Whether every position that is settled is committed, as far as the broker has told.
    pub(super) fn is_committed(&self) -> bool {
        self.shared.locked().to_commit(None).is_empty()
    }

    fn note_committed(&self, list: &TopicPartitionList) {
        let mut table = self.shared.locked();
        for one in list.elements() {
            if let (Ok(()), Offset::Offset(position)) = (one.error(), one.offset()) {
                let place = Place {
                    topic: one.topic().to_owned(),
                    number: one.partition(),
                };
                table.committed(&place, position);
            }
        }
    }

    /// Finds out where partitions are to be read on that cannot be read where they should be, and reads them on there.
    pub(super) fn resume_stuck(&self, consumer: &BaseConsumer<Self>) {
        let mut topics: BTreeMap<String, Vec<Stuck>> = BTreeMap::new();
        for one in self.shared.locked().stuck() {
            let of_topic = topics.entry(one.place.topic.clone()).or_default();
            of_topic.push(one);
        }
        // One after the other, each with its own limit: a topic of which nobody answers keeps no other from being read.
        for stuck in topics.into_values() {
            self.resume_topic(consumer, stuck);
        }
    }

    fn resume_topic(&self, consumer: &BaseConsumer<Self>, stuck: Vec<Stuck>) {
        let found = self.lost(&Questions::new(consumer), &stuck);
        for one in stuck {
            let place = one.place;
            let resumed = match &found {
                Ok(found) => match found.get(&place) {
                    Some(Ok(lost)) => self.resume(consumer, one.generation, &place, resume(*lost)),
                    Some(Err(error)) => Err(error.clone()),
                    // Another member gives the group its position.
                    None => Ok(()),
                },
                Err(error) => Err(error.clone()),
            };
            if let Err(error) = resumed {
                let what = format!("{} cannot be read on", place.partition());
                warn!(topic = place.topic, partition = place.number, %error, "partition cannot be read on; will retry");
                self.shared.locked().fail(subscribe_error(what, error));
            }
        }
    }

    /// Asks what there is to be read of a topic's partitions. Those are left out that wait for another member.
    fn lost(
        &self,
        questions: &Questions<'_>,
        stuck: &[Stuck],
    ) -> KafkaResult<BTreeMap<Place, KafkaResult<Lost>>> {
        let owned = self.shared.locked().places();
        let fresh = stuck.iter().filter(|one| one.expected.is_none());
        let fresh: Vec<Place> = fresh.map(|one| one.place.clone()).collect();
        let mut stands = self.beginning.stands(questions, &fresh, &owned)?;
        let expected = stuck.iter().filter_map(|one| {
            let expected = one.expected?;
            Some((one.place.clone(), Ok(Stand::At(expected))))
        });
        stands.extend(expected);
        let known: Vec<Place> = stands.keys().cloned().collect();
        let (oldest, ends) = (questions.oldest(&known)?, questions.ends(&known)?);
        let lost = stands.into_iter().map(|(place, stand)| {
            let untold = || KafkaError::OffsetFetch(Code::LeaderNotAvailable);
            let lost = stand.and_then(|stand| {
                Ok(Lost {
                    stand,
                    low: *oldest.get(&place).ok_or_else(untold)?,
                    high: *ends.get(&place).ok_or_else(untold)?,
                })
            });
            (place, lost)
        });
        Ok(lost.collect())
    }

    /// Reads a partition on.
    fn resume(
        &self,
        consumer: &BaseConsumer<Self>,
        generation: Generation,
        place: &Place,
        at: Resume,
    ) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        list.add_partition(&place.topic, place.number);
        if let Err(error) = consumer.incremental_unassign(&list) {
            debug!(%error, "partition is not read at the moment");
        }
        let queue = self.queue(place);
        let queue = queue.ok_or(KafkaError::ConsumerQueueClose(Code::UnknownPartition))?;
        list.set_all_offsets(Offset::Offset(at.at()))?;
        consumer.incremental_assign(&list)?;
        let mut table = self.shared.locked();
        let Some(partition) = table.resume(generation, at, queue) else {
            return Ok(());
        };
        if let Resume::Jump { from, to } = at {
            error!(%partition, from, to, "messages were removed by the broker before they were delivered");
            let position = |at: i64| u64::try_from(at).unwrap_or(0);
            let (from, to) = (position(from), position(to));
            table.tell(Arrival::Jumped {
                partition,
                from,
                to,
            });
        }
        Ok(())
    }

    pub(super) fn failed(&self, error: KafkaError) {
        let code = error.rdkafka_error_code();
        // One connection of several; all of them down is told by itself.
        let passing = [
            Code::BrokerTransportFailure,
            Code::Resolve,
            Code::OperationTimedOut,
        ];
        if code.is_some_and(|code| passing.contains(&code)) {
            return;
        }
        let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
        let failure = subscribe_error("the consumer group cannot be read", error);
        let mut table = self.shared.locked();
        if fatal {
            table.end(SubscribeErrorKind::Misconfigured, &in_one_line(&failure));
        }
        table.fail(failure);
    }
}

/// An error and its cause in one line.
fn in_one_line(error: &onceward_core::SubscribeError) -> String {
    match &error.source {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn places(list: &TopicPartitionList) -> Vec<Place> {
    let elements = list.elements();
    let places = elements.iter().map(|one| Place {
        topic: one.topic().to_owned(),
        number: one.partition(),
    });
    places.collect()
}

#[cfg(test)]
mod tests;

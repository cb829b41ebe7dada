//! What a member does when its group calls: takes partitions, gives them back, commits positions, reads on after a jump.

use std::collections::BTreeSet;
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
use super::position_of;
use super::resume::{Lost, Resume, resume};
use super::shared::Shared;
use super::table::Generation;
use crate::errors::subscribe_error;
use crate::{KafkaSubscription, Start, log};

/// How long the thread waits for the group at a time.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long a question to the cluster may take.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// One member, as librdkafka calls it. All calls but the log's come from the member's own thread.
pub(super) struct Member {
    shared: Arc<Shared>,
    pub(super) subscription: KafkaSubscription,
    /// Milliseconds since the epoch.
    joined_at_millis: i64,
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
        Self {
            shared,
            subscription,
            joined_at_millis: Timestamp::now().to_millis().unwrap_or(0),
            consumer: OnceLock::new(),
        }
    }

    fn assigned(&self, consumer: &BaseConsumer<Self>, list: &mut TopicPartitionList) {
        let committed = consumer.committed_offsets(list.clone(), ANSWER_WITHIN);
        if let Err(error) = &committed {
            // Then librdkafka asks by itself, and what it does not find is looked for later.
            info!(%error, "the group's positions cannot be read now");
        }
        let committed = committed.ok();
        for place in places(list) {
            info!(
                topic = place.topic,
                partition = place.number,
                "partition assigned"
            );
            let mut assignment = Assignment::new(place.clone());
            let committed = committed.as_ref();
            let at = committed.and_then(|all| self.begin(consumer, &mut assignment, all));
            if let Some(at) = at {
                let set = list.set_partition_offset(&place.topic, place.number, Offset::Offset(at));
                debug!(?set, at, "partition is read from here");
            }
            // Before the assignment takes effect, so that no record goes to the queue of the whole member.
            let queue = self.queue(&place);
            self.shared.locked().assign(assignment, queue);
        }
    }

    /// Where a partition is read from, if that can be told now. `all`: the group's positions in the partitions assigned.
    fn begin(
        &self,
        consumer: &BaseConsumer<Self>,
        assignment: &mut Assignment,
        all: &TopicPartitionList,
    ) -> Option<i64> {
        let place = &assignment.place;
        let found = all.find_partition(&place.topic, place.number)?;
        if let Some(committed) = position_of(found.offset()) {
            assignment.committed(committed);
            return Some(committed);
        }
        let of_topic = all.elements_for_topic(&place.topic);
        let known = of_topic
            .iter()
            .any(|one| position_of(one.offset()).is_some());
        // A partition added to a topic that the group reads already: what came into it before we did is not to be left out.
        let start = if known {
            Start::Earliest
        } else {
            self.subscription.start
        };
        let lost = self.lost(consumer, place, None, None).ok()?;
        let at = resume(lost, start);
        assignment.resume(at);
        Some(at.at())
    }

    /// Asks what there is to be read of a partition.
    fn lost(
        &self,
        consumer: &BaseConsumer<Self>,
        place: &Place,
        expected: Option<i64>,
        committed: Option<i64>,
    ) -> KafkaResult<Lost> {
        let (low, high) = consumer.fetch_watermarks(&place.topic, place.number, ANSWER_WITHIN)?;
        let mut list = TopicPartitionList::new();
        let joined = Offset::Offset(self.joined_at_millis);
        list.add_partition_offset(&place.topic, place.number, joined)?;
        let since = consumer.offsets_for_times(list, ANSWER_WITHIN)?;
        let since = since.elements();
        let since = since.first().and_then(|one| position_of(one.offset()));
        Ok(Lost {
            expected,
            committed,
            low,
            high,
            latest: since.map_or(high, |since| since.min(high)),
        })
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

    /// Finds out where a partition is to be read on, and reads it on there.
    fn resume(
        &self,
        consumer: &BaseConsumer<Self>,
        generation: Generation,
        place: &Place,
        expected: Option<i64>,
    ) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        list.add_partition(&place.topic, place.number);
        let committed = consumer.committed_offsets(list.clone(), ANSWER_WITHIN)?;
        let committed = committed.elements();
        let committed = committed.first().and_then(|one| position_of(one.offset()));
        let lost = self.lost(consumer, place, expected, committed)?;
        let at = resume(lost, self.subscription.start);
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

    pub(super) fn resume_stuck(&self, consumer: &BaseConsumer<Self>) {
        let stuck = self.shared.locked().stuck();
        for (generation, place, expected) in stuck {
            if let Err(error) = self.resume(consumer, generation, &place, expected) {
                let what = format!("{} cannot be read on", place.partition());
                warn!(topic = place.topic, partition = place.number, %error, "partition cannot be read on; will retry");
                self.shared.locked().fail(subscribe_error(what, error));
            }
        }
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

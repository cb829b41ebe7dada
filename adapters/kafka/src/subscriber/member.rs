//! The thread of a member: polls the group, hands partitions over, commits positions, and leaves.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use onceward_core::{Arrival, SubscribeErrorKind};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{
    BaseConsumer, CommitMode, Consumer as _, ConsumerContext, RebalanceProtocol,
};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::message::Message as _;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::{Notify, watch};
use tracing::{debug, error, info, warn};

use super::assignment::Place;
use super::position_of;
use super::resume::{Lost, Resume, resume};
use super::table::{Generation, Table};
use crate::errors::subscribe_error;
use crate::{KafkaSubscription, log};

/// How long the thread waits for the group at a time.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long a question to the cluster may take.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What a member's tasks and its thread share.
pub(super) struct Shared {
    // Acks come from any task, arrivals go to one, and the thread changes what is owned; nobody waits while holding it.
    table: Mutex<Table>,
    /// Told when there may be something to take.
    pub(super) moved: Arc<Notify>,
    closing: AtomicBool,
    ended: watch::Sender<bool>,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            table: Mutex::default(),
            moved: Arc::new(Notify::new()),
            closing: AtomicBool::new(false),
            ended: watch::Sender::new(false),
        }
    }

    pub(super) fn locked(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the member to leave.
    pub(super) fn leave(&self) {
        self.closing.store(true, Ordering::Release);
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Waits until the member has left its group.
    pub(super) async fn ended(&self) {
        let mut ended = self.ended.subscribe();
        // The sender lives as long as `self`, so that this cannot fail.
        drop(ended.wait_for(|ended| *ended).await);
    }
}

/// One member, as librdkafka calls it. All calls but the log's come from the member's own thread.
pub(super) struct Member {
    shared: Arc<Shared>,
    subscription: KafkaSubscription,
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
            self.assigned(list);
            if cooperative {
                consumer.incremental_assign(list)
            } else {
                consumer.assign(list)
            }
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
            consumer: OnceLock::new(),
        }
    }

    fn assigned(&self, list: &TopicPartitionList) {
        for place in places(list) {
            info!(
                topic = place.topic,
                partition = place.number,
                "partition assigned"
            );
            // Before the assignment takes effect, so that no record goes to the queue of the whole member.
            let queue = self.queue(&place);
            self.shared.locked().assign(place, queue);
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
    fn commit(&self, consumer: &BaseConsumer<Self>, of: Option<&[Place]>, mode: CommitMode) {
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
        let (low, high) = consumer.fetch_watermarks(&place.topic, place.number, ANSWER_WITHIN)?;
        let lost = Lost {
            expected,
            committed,
            low,
            high,
        };
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

    fn resume_stuck(&self, consumer: &BaseConsumer<Self>) {
        let stuck = self.shared.locked().stuck();
        for (generation, place, expected) in stuck {
            if let Err(error) = self.resume(consumer, generation, &place, expected) {
                let what = format!("{} cannot be read on", place.partition());
                warn!(topic = place.topic, partition = place.number, %error, "partition cannot be read on; will retry");
                self.shared.locked().fail(subscribe_error(what, error));
            }
        }
    }

    fn failed(&self, error: KafkaError) {
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

/// Runs until the member is told to leave; then it has left.
pub(super) fn run(mut consumer: Arc<BaseConsumer<Member>>, shared: &Shared) {
    let member = Arc::clone(consumer.context());
    let mut next_commit = Instant::now() + member.subscription.commit_every;
    let mut next_resume = Instant::now();
    while !shared.is_closing() {
        match consumer.poll(LOOK_EVERY) {
            None => {}
            Some(Ok(record)) => {
                // Not expected: every partition has its queue before it is read. Read again from there, so that it is not lost.
                let at = Offset::Offset(record.offset());
                let again = consumer.seek(record.topic(), record.partition(), at, ANSWER_WITHIN);
                warn!(
                    topic = record.topic(),
                    partition = record.partition(),
                    ?again,
                    "record outside its partition's queue"
                );
            }
            Some(Err(error)) => member.failed(error),
        }
        // In case a queue has told too early or too late.
        shared.moved.notify_one();
        let now = Instant::now();
        if now >= next_resume && !shared.locked().stuck().is_empty() {
            member.resume_stuck(&consumer);
            next_resume = Instant::now() + LOOK_EVERY;
        }
        if now >= next_commit {
            member.commit(&consumer, None, CommitMode::Async);
            next_commit = now + member.subscription.commit_every;
        }
    }
    member.commit(&consumer, None, CommitMode::Sync);
    let untold = shared.locked().clear();
    drop(untold);
    drop(member);
    // Leaving blocks, so it must happen here: a task may hold the consumer for the length of one call.
    loop {
        match Arc::try_unwrap(consumer) {
            Ok(last) => break drop(last),
            Err(still) => consumer = still,
        }
        std::thread::sleep(LOOK_EVERY);
    }
    shared.ended.send_replace(true);
    shared.moved.notify_one();
}

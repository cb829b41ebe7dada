//! One member of a Kafka consumer group.
//!
//! Each partition has a queue of its own in librdkafka, from which [`next`](Subscriber::next) takes directly; the member's thread
//! only serves the group. So not calling `next` is the pause: librdkafka fetches no more than its queue holds, and keeps the member
//! in its group.

mod assignment;
mod beginning;
mod member;
mod questions;
mod resume;
mod shared;
mod table;
mod thread;

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use onceward_core::{
    Acker, Arrival, Backlog, Capabilities, Partition, SubscribeError, SubscribeErrorKind,
    Subscriber, Ticket,
};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::{Offset, TopicPartitionList};
use tokio::time::timeout;

use crate::config::{self, KafkaConfig, KafkaSubscription};
use crate::errors::subscribe_error;
use crate::publisher::capabilities;
use assignment::{Assignment, Place};
use member::Member;
use questions::ANSWER_WITHIN;
use shared::Shared;
use table::Generation;
use thread::run;

/// One member of a consumer group. Dropping it leaves the group in the background.
pub struct KafkaSubscriber {
    shared: Arc<Shared>,
    consumer: Weak<BaseConsumer<Member>>,
}

impl std::fmt::Debug for KafkaSubscriber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaSubscriber").finish_non_exhaustive()
    }
}

/// What a delivery is acked by: its place in one assignment of its partition to this member. Acks of an earlier assignment are ignored.
#[derive(Debug, Clone)]
pub struct KafkaToken {
    generation: Generation,
    ticket: Ticket,
}

/// Acks deliveries. A position is committed within [`KafkaSubscription::commit_every`] of the ack of everything before it.
#[derive(Clone)]
pub struct KafkaAcker {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for KafkaAcker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaAcker").finish_non_exhaustive()
    }
}

impl KafkaSubscriber {
    pub(crate) fn join(
        config: &KafkaConfig,
        subscription: KafkaSubscription,
    ) -> Result<Self, SubscribeError> {
        let refused = |error: KafkaError| {
            let what = "librdkafka refuses the properties of the member";
            SubscribeError::with_source(SubscribeErrorKind::Misconfigured, what, error)
        };
        let settings = config::consumer(config, &subscription);
        let topics = subscription.topics.clone();
        let shared = Arc::new(Shared::new());
        let member = Member::new(Arc::clone(&shared), subscription);
        let consumer: BaseConsumer<Member> =
            settings.create_with_context(member).map_err(refused)?;
        let consumer = Arc::new(consumer);
        let weak = Arc::downgrade(&consumer);
        drop(consumer.context().consumer.set(Weak::clone(&weak)));
        let topics: Vec<&str> = topics.iter().map(|topic| topic.as_str()).collect();
        consumer.subscribe(&topics).map_err(refused)?;
        let of_thread = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("onceward-kafka-member".to_owned())
            .spawn(move || run(consumer, &of_thread))
            .map_err(|error| {
                let what = "no thread can be started for the member";
                SubscribeError::with_source(SubscribeErrorKind::Unavailable, what, error)
            })?;
        Ok(Self {
            shared,
            consumer: weak,
        })
    }
}

impl Subscriber for KafkaSubscriber {
    type Token = KafkaToken;
    type Acker = KafkaAcker;

    fn capabilities(&self) -> Capabilities {
        capabilities()
    }

    fn acker(&self) -> KafkaAcker {
        KafkaAcker {
            shared: Arc::clone(&self.shared),
        }
    }

    async fn next(&mut self, room: usize) -> Result<Vec<Arrival<KafkaToken>>, SubscribeError> {
        loop {
            // Nothing is taken before an await, so that dropping this loses nothing.
            let moved = self.shared.moved.notified();
            let arrivals = self.shared.locked().take(room)?;
            if !arrivals.is_empty() {
                return Ok(arrivals);
            }
            moved.await;
        }
    }

    fn pause(&mut self, partition: &Partition, paused: bool) {
        self.shared.locked().pause(partition, paused);
        self.shared.moved.notify_one();
    }

    async fn backlog(&mut self) -> Result<Vec<Backlog>, SubscribeError> {
        let gone = || {
            let what = "the member has left its group";
            SubscribeError::new(SubscribeErrorKind::Unavailable, what)
        };
        let consumer = self.consumer.upgrade().ok_or_else(gone)?;
        let known: Vec<Known> = self.shared.locked().assignments().map(Known::of).collect();
        // The library's calls block.
        let asked = tokio::task::spawn_blocking(move || ask(&consumer, known)).await;
        asked
            .map_err(|_| gone())?
            .map_err(|error| subscribe_error("the backlog cannot be read now", error))
    }

    async fn close(self, within: Duration) {
        self.shared.leave(Instant::now() + within);
        // Dropped after that, the member leaves all the same.
        drop(timeout(within, self.shared.ended()).await);
    }
}

impl Drop for KafkaSubscriber {
    fn drop(&mut self) {
        self.shared.leave(Instant::now());
    }
}

impl Acker for KafkaAcker {
    type Token = KafkaToken;

    async fn ack(&self, tokens: Vec<KafkaToken>) -> Result<(), SubscribeError> {
        let mut table = self.shared.locked();
        for token in tokens {
            table.ack(token.generation, token.ticket);
        }
        Ok(())
    }

    async fn give_back(
        &self,
        _tokens: Vec<KafkaToken>,
        _after: Duration,
    ) -> Result<(), SubscribeError> {
        Ok(())
    }

    async fn extend(
        &self,
        tokens: Vec<KafkaToken>,
    ) -> Result<Vec<Option<Instant>>, SubscribeError> {
        Ok(vec![None; tokens.len()])
    }
}

/// What the member knows of a partition's backlog.
struct Known {
    place: Place,
    position: Option<i64>,
    oldest: Option<std::time::SystemTime>,
}

impl Known {
    fn of(assignment: &Assignment) -> Self {
        Self {
            place: assignment.place.clone(),
            position: assignment.position(),
            oldest: assignment.oldest(),
        }
    }
}

/// A position, unless the offset stands for something else.
fn position_of(offset: Offset) -> Option<i64> {
    if let Offset::Offset(position) = offset {
        Some(position)
    } else {
        None
    }
}

fn ask(consumer: &BaseConsumer<Member>, known: Vec<Known>) -> KafkaResult<Vec<Backlog>> {
    let mut list = TopicPartitionList::new();
    for one in &known {
        list.add_partition(&one.place.topic, one.place.number);
    }
    if known.is_empty() {
        return Ok(Vec::new());
    }
    let committed = if known.iter().all(|one| one.position.is_some()) {
        list.clone()
    } else {
        consumer.committed_offsets(list.clone(), ANSWER_WITHIN)?
    };
    list.set_all_offsets(Offset::End)?;
    let ends = consumer.offsets_for_times(list, ANSWER_WITHIN)?;
    let backlogs = known.into_iter().map(|one| {
        let at = |list: &TopicPartitionList| {
            let found = list.find_partition(&one.place.topic, one.place.number)?;
            position_of(found.offset())
        };
        let position = one.position.or_else(|| at(&committed));
        let unknown = KafkaError::OffsetFetch(Code::NoOffset);
        let (Some(end), Some(position)) = (at(&ends), position) else {
            return Err(unknown);
        };
        Ok(Backlog {
            partition: one.place.partition(),
            count: u64::try_from(end - position).unwrap_or(0),
            oldest: one.oldest,
        })
    });
    backlogs.collect()
}

//! Reading from a broker in memory. A delivery that is not acked comes again when its partition gets another owner.

use std::sync::Arc;
use std::time::{Duration, Instant};

use onceward_core::{
    Acker, Arrival, Backlog, Capabilities, Partition, Release, SubscribeError, SubscribeErrorKind,
    Subscriber,
};
use tokio::sync::watch;

use crate::MemoryBroker;
use crate::group::MemberId;
use crate::publisher::capabilities;
use crate::topic::Topic;

/// One member of a group. Dropping it is like a crash: others take over at once.
#[derive(Debug)]
pub struct MemorySubscriber {
    broker: MemoryBroker,
    changes: watch::Receiver<()>,
    group: Arc<str>,
    member: MemberId,
}

/// What a delivery is acked by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryToken {
    pub(crate) topic: Arc<str>,
    pub(crate) position: u64,
}

/// Acks deliveries of a group.
#[derive(Debug, Clone)]
pub struct MemoryAcker {
    broker: MemoryBroker,
    group: Arc<str>,
}

impl MemorySubscriber {
    pub(crate) fn join(broker: MemoryBroker, group: &str, topics: &[&str]) -> Self {
        let topics: Vec<String> = topics.iter().map(|topic| (*topic).to_owned()).collect();
        let changes = broker.changes();
        let member = broker.change(|state| state.join(group, &topics));
        Self {
            broker,
            changes,
            group: group.into(),
            member,
        }
    }

    fn arrivals(&self, room: usize) -> Result<Vec<Arrival<MemoryToken>>, SubscribeError> {
        let release = |topic: &str| {
            let (broker, group, member) = (self.broker.clone(), self.group.clone(), self.member);
            let topic = topic.to_owned();
            Release::new(move || {
                broker.change(|state| state.release(&group, member, &topic));
            })
        };
        let mut state = self.broker.lock();
        let arrivals = state.arrivals(&self.group, self.member, room, release);
        if arrivals.is_empty() && state.down {
            return Err(stopped());
        }
        Ok(arrivals)
    }
}

fn stopped() -> SubscribeError {
    SubscribeError::new(SubscribeErrorKind::Unavailable, "the broker is stopped")
}

impl Subscriber for MemorySubscriber {
    type Token = MemoryToken;
    type Acker = MemoryAcker;

    fn capabilities(&self) -> Capabilities {
        capabilities()
    }

    fn acker(&self) -> MemoryAcker {
        MemoryAcker {
            broker: self.broker.clone(),
            group: self.group.clone(),
        }
    }

    async fn next(&mut self, room: usize) -> Result<Vec<Arrival<MemoryToken>>, SubscribeError> {
        loop {
            // Marked as seen before looking, so that a change in between wakes the wait below.
            self.changes.borrow_and_update();
            let arrivals = self.arrivals(room)?;
            if !arrivals.is_empty() || self.changes.changed().await.is_err() {
                return Ok(arrivals);
            }
        }
    }

    fn pause(&mut self, partition: &Partition, paused: bool) {
        self.broker.change(|state| {
            let group = state.groups.get_mut(&*self.group);
            let share = group.and_then(|group| group.shares.get_mut(partition.as_str()));
            if let Some(share) = share.filter(|share| share.owner == Some(self.member)) {
                share.paused = paused;
            }
        });
    }

    async fn backlog(&mut self) -> Result<Vec<Backlog>, SubscribeError> {
        let state = self.broker.lock();
        if state.down {
            return Err(stopped());
        }
        let shares = state.groups.get(&*self.group).map(|group| &group.shares);
        let owned = shares
            .into_iter()
            .flatten()
            .filter(|(_, share)| share.owner == Some(self.member));
        let none = Topic::default();
        Ok(owned
            .map(|(name, share)| {
                let topic = state.topics.get(name).unwrap_or(&none);
                let (count, oldest) = share.unacked(topic);
                let oldest = oldest.and_then(|position| topic.get(position));
                Backlog {
                    partition: Partition::new(name),
                    count,
                    oldest: oldest.map(|record| record.at),
                }
            })
            .collect())
    }

    async fn close(self, _within: Duration) {}
}

impl Drop for MemorySubscriber {
    fn drop(&mut self) {
        self.broker
            .change(|state| state.leave(&self.group, self.member));
    }
}

impl Acker for MemoryAcker {
    type Token = MemoryToken;

    async fn ack(&self, tokens: Vec<MemoryToken>) -> Result<(), SubscribeError> {
        self.broker.change(|state| {
            if state.down {
                return Err(stopped());
            }
            let dropped = state.acks_dropped;
            if let Some(group) = state.groups.get_mut(&*self.group).filter(|_| !dropped) {
                for token in tokens {
                    if let Some(share) = group.shares.get_mut(&*token.topic) {
                        share.ack(token.position);
                    }
                }
            }
            Ok(())
        })
    }

    async fn give_back(
        &self,
        _tokens: Vec<MemoryToken>,
        _after: Duration,
    ) -> Result<(), SubscribeError> {
        Ok(())
    }

    async fn extend(
        &self,
        tokens: Vec<MemoryToken>,
    ) -> Result<Vec<Option<Instant>>, SubscribeError> {
        Ok(vec![None; tokens.len()])
    }
}

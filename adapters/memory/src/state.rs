//! All that the broker knows, and what happens to it. Pure; [`MemoryBroker`](crate::MemoryBroker) locks it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::SystemTime;

use onceward_core::{
    Arrival, Delivery, ErrorKind, Origin, Outcome, Outgoing, Partition, PublishError, Release,
    Route, TopicReport, TopicState,
};

use crate::group::{Group, MemberId, Notice};
use crate::headers::{self, BROKER};
use crate::topic::Topic;
use crate::{MemoryRecord, MemoryToken};

/// All that the broker knows.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) topics: BTreeMap<String, Topic>,
    pub(crate) groups: BTreeMap<String, Group>,
    /// Whether topics must be made before they are used.
    pub(crate) strict: bool,
    pub(crate) down: bool,
    /// Counts the stops: a session or member of an earlier run is over.
    pub(crate) run: u64,
    pub(crate) refuse_next: VecDeque<ErrorKind>,
    pub(crate) withheld: bool,
    pub(crate) acks_dropped: bool,
    members: MemberId,
}

impl State {
    /// The topic, made if topics need not be made first.
    pub(crate) fn topic(&mut self, name: &str) -> Result<&mut Topic, PublishError> {
        if self.strict && !self.topics.contains_key(name) {
            return Err(PublishError::new(
                ErrorKind::UnknownTopic,
                format!("there is no topic {name}"),
            ));
        }
        Ok(self.topics.entry(name.to_owned()).or_default())
    }

    /// Stores one message of a session, unless it follows one of its key that was not stored.
    pub(crate) fn offer(
        &mut self,
        outgoing: &Outgoing,
        ended: &mut BTreeSet<String>,
        at: SystemTime,
    ) -> Outcome {
        let key = outgoing.message.key.as_ref().map(|key| key.as_str());
        if key.is_some_and(|key| ended.contains(key)) {
            return Outcome::Unconfirmed;
        }
        match self.store(outgoing, at) {
            Ok(()) => Outcome::Confirmed,
            Err(error) => {
                ended.extend(key.map(str::to_owned));
                Outcome::Failed(error)
            }
        }
    }

    fn store(&mut self, outgoing: &Outgoing, at: SystemTime) -> Result<(), PublishError> {
        if let Some(kind) = self.refuse_next.pop_front() {
            return Err(PublishError::new(kind, "refused because a test said so"));
        }
        let headers = headers::encode(outgoing)?;
        let payload = outgoing.message.payload.clone();
        let topic = self.topic(outgoing.route.as_str())?;
        topic.store(headers, payload, at)
    }

    pub(crate) fn check(&mut self, route: &Route) -> TopicReport {
        let down = self.down;
        let topic = self.topic(route.as_str());
        let state = match topic {
            _ if down => Err(PublishError::new(
                ErrorKind::Unavailable,
                "the broker is stopped",
            )),
            Ok(topic) => Ok(TopicState {
                max_message: topic.limit,
                warnings: Vec::new(),
                unread: None,
            }),
            Err(error) => Err(error),
        };
        TopicReport {
            route: route.clone(),
            state,
        }
    }

    pub(crate) fn join(&mut self, group: &str, topics: &[String]) -> MemberId {
        let member = self.members;
        self.members += 1;
        let known = &self.topics;
        let first = |topic: &str| known.get(topic).map_or(0, Topic::first);
        let group = self.groups.entry(group.to_owned()).or_default();
        group.join(member, topics, first);
        self.balance();
        member
    }

    pub(crate) fn leave(&mut self, group: &str, member: MemberId) {
        if let Some(group) = self.groups.get_mut(group) {
            group.leave(member);
        }
        self.balance();
    }

    pub(crate) fn release(&mut self, group: &str, member: MemberId, topic: &str) {
        if let Some(group) = self.groups.get_mut(group) {
            group.release(member, topic);
        }
        self.balance();
    }

    fn balance(&mut self) {
        if !self.down {
            self.groups.values_mut().for_each(Group::balance);
        }
    }

    pub(crate) fn stop(&mut self) {
        self.down = true;
        self.run += 1;
        self.groups.values_mut().for_each(Group::lose_all);
    }

    pub(crate) fn start(&mut self) {
        self.down = false;
        self.balance();
    }

    /// What there is for a member: notices first, then at most `room` deliveries, each partition in order.
    pub(crate) fn arrivals(
        &mut self,
        group: &str,
        member: MemberId,
        room: usize,
        release: impl Fn(&str) -> Release,
    ) -> Vec<Arrival<MemoryToken>> {
        let Some(group) = self.groups.get_mut(group) else {
            return Vec::new();
        };
        let notices = group.notices.get_mut(&member).map(std::mem::take);
        let mut arrivals: Vec<_> = notices
            .into_iter()
            .flatten()
            .map(|notice| arrival(notice, &release))
            .collect();
        let mut left = room;
        for (name, share) in &mut group.shares {
            let readable = share.owner == Some(member) && !share.paused && !share.revoking;
            let Some(topic) = self.topics.get(name).filter(|_| readable) else {
                continue;
            };
            if let Some((from, to)) = share.pass_removed(topic.first()) {
                let partition = Partition::new(name);
                arrivals.push(Arrival::Jumped {
                    partition,
                    from,
                    to,
                });
            }
            while let Some(record) = topic.get(share.cursor).filter(|_| left > 0) {
                let before = share.deliveries.entry(share.cursor).or_default();
                arrivals.push(Arrival::Delivery(delivery(name, record, *before)));
                *before += 1;
                share.cursor += 1;
                left -= 1;
            }
        }
        arrivals
    }
}

fn arrival(notice: Notice, release: impl Fn(&str) -> Release) -> Arrival<MemoryToken> {
    match notice {
        Notice::Assigned(topic) => Arrival::Assigned(Partition::new(&topic)),
        Notice::Lost(topic) => Arrival::Lost(Partition::new(&topic)),
        Notice::Revoking(topic) => Arrival::Revoking {
            partition: Partition::new(&topic),
            within: std::time::Duration::from_secs(60),
            release: release(&topic),
        },
    }
}

fn delivery(topic: &str, record: &MemoryRecord, redelivered: u32) -> Delivery<MemoryToken> {
    Delivery {
        message: headers::decode(topic, record),
        origin: Origin {
            broker: BROKER,
            partition: Partition::new(topic),
            position: Some(record.position),
            redelivered: Some(redelivered),
            sent_at: Some(record.at),
        },
        deadline: None,
        token: MemoryToken {
            topic: topic.into(),
            position: record.position,
        },
    }
}

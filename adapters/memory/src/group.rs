//! Who of a group owns which partition, and how far each partition is acked. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::topic::Topic;

/// A member, by a number that is never used again.
pub(crate) type MemberId = u64;

/// What a member is told about its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Notice {
    Assigned(String),
    Revoking(String),
    Lost(String),
}

/// One topic as a group reads it.
#[derive(Debug, Default)]
pub(crate) struct Share {
    pub(crate) owner: Option<MemberId>,
    pub(crate) revoking: bool,
    pub(crate) paused: bool,
    /// The next position to deliver.
    pub(crate) cursor: u64,
    /// Everything below is acked.
    floor: u64,
    acked: BTreeSet<u64>,
    /// How often each position that is not below the floor was delivered.
    pub(crate) deliveries: BTreeMap<u64, u32>,
}

impl Share {
    fn starting_at(position: u64) -> Self {
        Self {
            cursor: position,
            floor: position,
            ..Self::default()
        }
    }

    /// Takes an ack. One from an earlier owner counts as well: it acks only what is settled.
    pub(crate) fn ack(&mut self, position: u64) {
        if position >= self.floor {
            self.acked.insert(position);
        }
        while self.acked.remove(&self.floor) {
            self.floor += 1;
        }
        self.deliveries = self.deliveries.split_off(&self.floor);
    }

    /// Passes what retention removed; tells from where to where if any of it was never delivered.
    pub(crate) fn pass_removed(&mut self, first: u64) -> Option<(u64, u64)> {
        let jumped = (self.cursor < first).then_some((self.cursor, first));
        self.cursor = self.cursor.max(first);
        if self.floor < first {
            self.floor = first;
            self.acked = self.acked.split_off(&first);
            self.ack(first.saturating_sub(1));
        }
        jumped
    }

    /// Goes back to the oldest delivery that is not acked.
    pub(crate) fn rewind(&mut self) {
        self.cursor = self.floor;
    }

    /// How many messages are not acked, and the position of the oldest of them.
    pub(crate) fn unacked(&self, topic: &Topic) -> (u64, Option<u64>) {
        let floor = self.floor.max(topic.first());
        let acked = self.acked.range(floor..).count() as u64;
        let count = topic.next().saturating_sub(floor).saturating_sub(acked);
        (count, (count > 0).then_some(floor))
    }
}

/// A group of members that share topics.
#[derive(Debug, Default)]
pub(crate) struct Group {
    members: BTreeMap<MemberId, Vec<String>>,
    pub(crate) shares: BTreeMap<String, Share>,
    pub(crate) notices: BTreeMap<MemberId, VecDeque<Notice>>,
}

impl Group {
    /// Takes a member in, without partitions yet. `first` gives the position at which the group begins a topic that it never read.
    pub(crate) fn join(
        &mut self,
        member: MemberId,
        topics: &[String],
        first: impl Fn(&str) -> u64,
    ) {
        for topic in topics {
            self.shares
                .entry(topic.clone())
                .or_insert_with(|| Share::starting_at(first(topic)));
        }
        self.members.insert(member, topics.to_vec());
        self.notices.insert(member, VecDeque::new());
    }

    /// Lets a member go; its partitions are free.
    pub(crate) fn leave(&mut self, member: MemberId) {
        self.members.remove(&member);
        self.notices.remove(&member);
        for share in self.shares.values_mut() {
            if share.owner == Some(member) {
                share.owner = None;
                share.revoking = false;
            }
        }
    }

    /// Frees a partition that its owner was asked to give up.
    pub(crate) fn release(&mut self, member: MemberId, topic: &str) {
        if let Some(share) = self.shares.get_mut(topic)
            && share.owner == Some(member)
            && share.revoking
        {
            share.owner = None;
            share.revoking = false;
        }
    }

    /// Every member loses what it owns.
    pub(crate) fn lose_all(&mut self) {
        for (topic, share) in &mut self.shares {
            share.revoking = false;
            if let Some(notices) = share.owner.take().and_then(|m| self.notices.get_mut(&m)) {
                notices.push_back(Notice::Lost(topic.clone()));
            }
        }
    }

    /// Gives free partitions to whoever owns the fewest, and asks whoever owns at least two more than another to give one up.
    pub(crate) fn balance(&mut self) {
        let free: Vec<String> = self.topics(|share| share.owner.is_none());
        for topic in free {
            if let Some(owner) = self.poorest(&topic) {
                self.assign(&topic, owner);
            }
        }
        if self.shares.values().any(|share| share.revoking) {
            return;
        }
        let owned: Vec<String> = self.topics(|share| share.owner.is_some());
        let richer = owned.into_iter().find_map(|topic| {
            let owner = self.shares.get(&topic)?.owner?;
            let poorest = self.poorest(&topic)?;
            (self.owned_by(owner) >= self.owned_by(poorest) + 2).then_some((topic, owner))
        });
        if let Some((topic, owner)) = richer {
            if let Some(share) = self.shares.get_mut(&topic) {
                share.revoking = true;
            }
            self.tell(owner, Notice::Revoking(topic));
        }
    }

    fn assign(&mut self, topic: &str, owner: MemberId) {
        if let Some(share) = self.shares.get_mut(topic) {
            share.owner = Some(owner);
            share.paused = false;
            share.rewind();
        }
        self.tell(owner, Notice::Assigned(topic.to_owned()));
    }

    fn tell(&mut self, member: MemberId, notice: Notice) {
        if let Some(notices) = self.notices.get_mut(&member) {
            notices.push_back(notice);
        }
    }

    fn topics(&self, which: impl Fn(&Share) -> bool) -> Vec<String> {
        let matching = self.shares.iter().filter(|(_, share)| which(share));
        matching.map(|(topic, _)| topic.clone()).collect()
    }

    fn poorest(&self, topic: &str) -> Option<MemberId> {
        let readers = self.members.iter();
        readers
            .filter(|(_, topics)| topics.iter().any(|t| t == topic))
            .map(|(member, _)| *member)
            .min_by_key(|member| self.owned_by(*member))
    }

    fn owned_by(&self, member: MemberId) -> usize {
        let owned = self.shares.values();
        owned.filter(|share| share.owner == Some(member)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(topics: &[&str], members: u64) -> Group {
        let topics: Vec<String> = topics.iter().map(|t| (*t).to_owned()).collect();
        let mut group = Group::default();
        for member in 0..members {
            group.join(member, &topics, |_| 0);
            group.balance();
        }
        group
    }

    #[test]
    fn a_partition_has_one_owner_and_the_second_member_stands_by() {
        let group = group(&["a"], 2);

        assert_eq!(group.shares["a"].owner, Some(0));
        assert!(group.notices[&1].is_empty());
    }

    #[test]
    fn a_member_that_leaves_is_followed_from_the_oldest_unacked_delivery() {
        let mut group = group(&["a"], 2);
        let share = group.shares.get_mut("a").unwrap();
        share.cursor = 5;
        share.ack(0);
        share.ack(2);

        group.leave(0);
        group.balance();

        assert_eq!(group.shares["a"].owner, Some(1));
        assert_eq!(group.shares["a"].cursor, 1);
        assert_eq!(group.notices[&1][0], Notice::Assigned("a".to_owned()));
    }

    #[test]
    fn a_newcomer_gets_its_part_only_once_it_is_released() {
        let mut group = group(&["a", "b"], 2);

        assert_eq!(
            group.notices[&0].back(),
            Some(&Notice::Revoking("a".to_owned()))
        );
        assert_eq!(group.shares["a"].owner, Some(0));
        group.release(0, "a");
        group.balance();

        assert_eq!(group.shares["a"].owner, Some(1));
        assert_eq!(group.shares["b"].owner, Some(0));
    }

    #[test]
    fn what_retention_removed_is_passed_and_told_once() {
        let mut share = Share::starting_at(0);
        share.cursor = 2;
        share.ack(0);

        assert_eq!(share.pass_removed(5), Some((2, 5)));
        assert_eq!(share.pass_removed(5), None);
        share.ack(5);
        share.rewind();

        assert_eq!(share.cursor, 6);
    }
}

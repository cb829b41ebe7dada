//! What this member holds of each partition, and when a partition is to be paused or given back. Pure.

use std::collections::{BTreeMap, HashMap};

use onceward_core::Partition;

use super::fresh::{Fresh, Stand};

/// The partitions of a member.
#[derive(Debug)]
pub(super) struct Shares {
    shares: HashMap<Partition, Share>,
    owners: HashMap<u64, Owner>,
    messages: usize,
    ahead: u64,
    at_a_time: usize,
}

/// Which partition a delivery is of, and in which ownership of it.
#[derive(Debug)]
struct Owner {
    partition: Partition,
    ownership: u64,
    stand: Stand,
}

#[derive(Debug, Default)]
struct Share {
    /// Grows whenever the partition is lost: what was delivered before is not ours to ack any more.
    ownership: u64,
    /// Deliveries that are not acked, with their number in the order of delivery of this partition.
    open: BTreeMap<u64, u64>,
    delivered: u64,
    /// Of this ownership.
    fresh: Fresh,
    revoking: bool,
    paused: bool,
    /// It is somebody else's. What of it is still in work holds memory, but nothing more of it comes.
    lost: bool,
}

impl Shares {
    /// A partition is paused when it alone would fill the memory for `messages`, or when its newest delivery is `ahead`
    /// of its oldest open one. So many deliveries are in work at a time, at most.
    pub(super) fn new(messages: usize, ahead: u64, at_a_time: usize) -> Self {
        Self {
            shares: HashMap::new(),
            owners: HashMap::new(),
            messages,
            ahead,
            at_a_time,
        }
    }

    /// A delivery has arrived. Gives the partition if it is to be paused.
    pub(super) fn arrive(
        &mut self,
        partition: &Partition,
        number: u64,
        stand: Stand,
    ) -> Option<Partition> {
        let limit = self.limit();
        let share = self.shares.entry(partition.clone()).or_default();
        share.lost = false;
        share.open.insert(number, share.delivered);
        share.delivered += 1;
        let owner = Owner {
            partition: partition.clone(),
            ownership: share.ownership,
            stand,
        };
        self.owners.insert(number, owner);
        if !share.paused && share.is_full(limit, self.ahead) {
            share.paused = true;
            return Some(partition.clone());
        }
        None
    }

    /// A delivery is acked, or left. Gives the partition if it is to be read again.
    pub(super) fn gone(&mut self, number: u64) -> Option<Partition> {
        let limit = self.limit();
        let Owner {
            partition,
            ownership,
            ..
        } = self.owners.remove(&number)?;
        let share = self.shares.get_mut(&partition)?;
        if share.ownership == ownership {
            share.open.remove(&number);
        }
        // At half of it, so that it does not flutter.
        if share.paused && !share.is_full(limit.div_ceil(2), self.ahead.div_ceil(2)) {
            share.paused = false;
            return Some(partition);
        }
        None
    }

    /// With several partitions none may take all the room: a full one must not stop the others.
    fn limit(&self) -> usize {
        let owned = self.shares.values().filter(|share| !share.lost);
        if owned.take(2).count() > 1 {
            self.messages.div_ceil(2)
        } else {
            self.messages
        }
    }

    pub(super) fn assigned(&mut self, partition: &Partition) {
        let share = self.shares.entry(partition.clone()).or_default();
        share.fresh = Fresh::default();
        share.revoking = false;
        share.paused = false;
        share.lost = false;
    }

    /// A delivery was settled that nobody had settled before.
    pub(super) fn settled(&mut self, number: u64) {
        if let Some(owner) = self.owners.get(&number)
            && let Some(share) = self.shares.get_mut(&owner.partition)
            && share.ownership == owner.ownership
        {
            share.fresh.settled(number, &owner.stand, self.at_a_time);
        }
    }

    /// Whether a delivery that starts now is among those that the owner before may have been at.
    pub(super) fn is_fresh(&self, number: u64) -> bool {
        let owner = self.owners.get(&number);
        let share = owner.and_then(|owner| Some((owner, self.shares.get(&owner.partition)?)));
        share.is_none_or(|(owner, share)| share.fresh.tells(number, &owner.stand, self.at_a_time))
    }

    /// Nothing new of it may start from now on.
    pub(super) fn revoking(&mut self, partition: &Partition) {
        self.shares.entry(partition.clone()).or_default().revoking = true;
    }

    /// Whether nothing of it is open any more.
    pub(super) fn is_finished(&self, partition: &Partition) -> bool {
        let share = self.shares.get(partition);
        share.is_none_or(|share| share.open.is_empty())
    }

    /// It is somebody else's from now on. True: it was paused, and must not be when it comes back.
    pub(super) fn lost(&mut self, partition: &Partition) -> bool {
        self.shares.get_mut(partition).is_some_and(|share| {
            share.ownership += 1;
            share.open.clear();
            share.revoking = false;
            share.lost = true;
            std::mem::take(&mut share.paused)
        })
    }

    /// Whether the delivery is of a partition that we still own as we did when it came.
    pub(super) fn is_ours(&self, number: u64) -> bool {
        self.owners.get(&number).is_some_and(|owner| {
            let share = self.shares.get(&owner.partition);
            share.is_some_and(|share| share.ownership == owner.ownership)
        })
    }

    /// Whether the delivery is of this partition.
    pub(super) fn is_of(&self, number: u64, partition: &Partition) -> bool {
        let owner = self.owners.get(&number);
        owner.is_some_and(|owner| owner.partition == *partition)
    }
}

impl Share {
    fn is_full(&self, messages: usize, ahead: u64) -> bool {
        let oldest = self.open.values().next().copied();
        let distance = oldest.map_or(0, |oldest| self.delivered - oldest);
        self.open.len() >= messages || distance >= ahead
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;

    fn partition(name: &str) -> Partition {
        Partition::new(name)
    }

    fn alone() -> Stand {
        Stand {
            key: None,
            together: 1,
        }
    }

    #[test]
    fn a_partition_whose_oldest_delivery_is_stuck_is_not_read_beyond() {
        let p = partition("p");
        let mut shares = Shares::new(100, 4, 1);

        assert_eq!(shares.arrive(&p, 1, alone()), None);
        for number in 2..=3 {
            assert_eq!(shares.arrive(&p, number, alone()), None);
            assert_eq!(shares.gone(number), None);
        }
        assert_eq!(shares.arrive(&p, 4, alone()), Some(p.clone()));
        assert_eq!(shares.gone(4), None, "1 is still stuck");
        assert_eq!(shares.gone(1), Some(p));
    }

    #[test]
    fn a_full_partition_is_paused_and_read_again_at_half_of_it() {
        let (p, q) = (partition("p"), partition("q"));
        let mut shares = Shares::new(8, 1_000, 1);
        shares.arrive(&q, 0, alone());

        let paused: Vec<bool> = (1..=4)
            .map(|n| shares.arrive(&p, n, alone()).is_some())
            .collect();

        assert_eq!(paused, [false, false, false, true]);
        assert_eq!((shares.gone(1), shares.gone(2)), (None, None));
        assert_eq!(shares.gone(3), Some(p));
    }

    /// How many of the partition arrive before it is paused, of those with these numbers.
    fn until_paused(shares: &mut Shares, of: &Partition, mut numbers: Range<u64>) -> Option<usize> {
        let full = numbers.position(|number| shares.arrive(of, number, alone()).is_some());
        full.map(|place| place + 1)
    }

    #[test]
    fn the_only_partition_that_is_left_has_all_the_room_whatever_is_in_work_of_those_before() {
        let (p, q) = (partition("p"), partition("q"));
        let mut shares = Shares::new(8, 1_000, 1);
        for one in [&p, &q] {
            shares.assigned(one);
        }
        shares.arrive(&q, 0, alone());
        assert_eq!(until_paused(&mut shares, &p, 1..100), Some(4));

        shares.lost(&q);
        assert_eq!(shares.gone(0), None);
        assert_eq!(shares.gone(1), Some(p.clone()), "3 of 8 are held");
        assert_eq!(until_paused(&mut shares, &p, 100..200), Some(5));

        // With another one it has half of it again.
        for number in 1..200 {
            shares.gone(number);
        }
        shares.assigned(&q);
        assert_eq!(until_paused(&mut shares, &p, 200..300), Some(4));
    }

    #[test]
    fn the_first_ones_of_an_ownership_are_fresh_but_for_what_had_been_settled_before() {
        let p = partition("p");
        let mut shares = Shares::new(100, 100, 2);
        shares.assigned(&p);
        for number in 1..=5 {
            shares.arrive(&p, number, alone());
        }

        // Those that had been settled before do not count, however many there are.
        shares.gone(1);
        assert!(shares.is_fresh(2));
        shares.settled(2);
        assert!(shares.is_fresh(3));
        shares.settled(4);
        assert!(!shares.is_fresh(5));
        assert!(shares.is_fresh(3), "it arrived before 4");
        shares.settled(3);
        assert!(!shares.is_fresh(4));

        shares.lost(&p);
        shares.assigned(&p);
        shares.settled(1);
        shares.settled(5);
        shares.arrive(&p, 6, alone());
        assert!(shares.is_fresh(6), "those were of the ownership before");
    }

    #[test]
    fn what_was_delivered_before_a_loss_is_not_ours_after_it() {
        let p = partition("p");
        let mut shares = Shares::new(8, 8, 1);
        shares.assigned(&p);
        shares.arrive(&p, 1, alone());

        shares.lost(&p);
        shares.assigned(&p);
        shares.arrive(&p, 2, alone());

        assert!(!shares.is_ours(1));
        assert!(shares.is_ours(2));
        shares.gone(1);
        assert!(!shares.is_finished(&p), "2 is open");
        shares.gone(2);
        assert!(shares.is_finished(&p));
    }
}

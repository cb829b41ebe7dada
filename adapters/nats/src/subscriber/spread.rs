//! Who of the members is to read which partitions, from what each hears of the others. Pure: only a hint, for the pin alone
//! decides who reads.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How long a member counts after it was last heard.
const SILENCE: Duration = Duration::from_secs(3);
/// How long the others must have been the same before partitions move. Longer than a beat, so that a member that comes
/// has heard everybody before it takes anything.
const SETTLE: Duration = Duration::from_secs(1);

/// What falls to one member: each `count`-th partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    index: usize,
    count: usize,
}

impl Share {
    /// Nothing yet.
    pub(crate) const NONE: Self = Self { index: 0, count: 0 };

    /// The share of `me` among these, who each come to the same by themselves.
    fn of(me: &str, members: &BTreeSet<String>) -> Self {
        Self {
            index: members.iter().take_while(|id| id.as_str() < me).count(),
            count: members.len(),
        }
    }

    /// Whether that partition falls to it.
    pub(crate) fn has(self, partition: usize) -> bool {
        partition.checked_rem(self.count) == Some(self.index)
    }

    pub(crate) fn members(self) -> usize {
        self.count
    }
}

/// The members, as one of them hears them.
#[derive(Debug)]
pub(crate) struct Members {
    me: String,
    heard: BTreeMap<String, Instant>,
    /// Who counts now, and since when it is these.
    seen: BTreeSet<String>,
    since: Instant,
    /// Those by whom the share was last made up; nobody before the first time.
    settled: BTreeSet<String>,
}

impl Members {
    pub(crate) fn new(me: String, now: Instant) -> Self {
        Self {
            heard: BTreeMap::new(),
            seen: BTreeSet::from([me.clone()]),
            since: now,
            settled: BTreeSet::new(),
            me,
        }
    }

    /// A member was heard. Tells if it is new here.
    pub(crate) fn heard(&mut self, id: &str, now: Instant) -> bool {
        if id == self.me {
            return false;
        }
        match self.heard.get_mut(id) {
            Some(last) => {
                *last = now;
                false
            }
            None => {
                self.heard.insert(id.to_owned(), now);
                true
            }
        }
    }

    /// A member said goodbye: what was its share is free at once.
    pub(crate) fn left(&mut self, id: &str) {
        if id == self.me {
            return;
        }
        self.heard.remove(id);
        self.seen.remove(id);
        self.settled.remove(id);
    }

    /// Nothing could be heard for a while, of nobody: all those who counted do so as if heard just now.
    pub(crate) fn was_deaf(&mut self, now: Instant) {
        self.heard.values_mut().for_each(|last| *last = now);
        self.since = now;
    }

    /// What falls to this member now.
    pub(crate) fn share(&mut self, now: Instant) -> Share {
        self.heard.retain(|_, last| now < *last + SILENCE);
        let known = self.heard.keys().chain([&self.me]).cloned().collect();
        if self.seen != known {
            self.seen = known;
            self.since = now;
        }
        if self.settled != self.seen && now >= self.since + SETTLE {
            self.settled.clone_from(&self.seen);
        }
        if self.settled.is_empty() {
            return Share::NONE;
        }
        Share::of(&self.me, &self.settled)
    }

    /// When to look again, if nobody is heard meanwhile.
    pub(crate) fn next_look(&self) -> Option<Instant> {
        let silent = self.heard.values().min().map(|last| *last + SILENCE);
        let settles = (self.settled != self.seen).then_some(self.since + SETTLE);
        silent.into_iter().chain(settles).min()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn share(index: usize, count: usize) -> Share {
        Share { index, count }
    }

    proptest! {
        #[test]
        fn equal_views_give_each_partition_to_one_member_and_balance_within_one(
            members in proptest::collection::btree_set("[a-z0-9]{1,8}", 1..12),
            partitions in 1_usize..257,
        ) {
            let shares: Vec<Share> = members.iter().map(|me| Share::of(me, &members)).collect();

            let mut sizes = vec![0; shares.len()];
            for partition in 0..partitions {
                let takers: Vec<usize> = (0..shares.len())
                    .filter(|member| shares[*member].has(partition))
                    .collect();
                prop_assert_eq!(takers.len(), 1);
                sizes[takers[0]] += 1;
            }
            let (least, most) = (sizes.iter().min(), sizes.iter().max());
            prop_assert!(most.unwrap() - least.unwrap() <= 1, "{:?}", sizes);
        }

        #[test]
        fn members_that_heard_the_same_agree_in_whatever_order_they_heard_it(
            members in proptest::collection::btree_set("[a-z0-9]{1,8}", 2..8),
            partition in 0_usize..256,
        ) {
            let start = Instant::now();
            let takers = members.iter().enumerate().filter(|(turn, me)| {
                let mut view = Members::new((*me).clone(), start);
                for id in members.iter().cycle().skip(*turn).take(members.len()) {
                    view.heard(id, start);
                }
                view.share(start);
                view.share(start + SETTLE).has(partition)
            });

            prop_assert_eq!(takers.count(), 1);
        }
    }

    #[test]
    fn a_member_takes_nothing_before_it_has_listened() {
        let start = Instant::now();
        let mut members = Members::new("b".to_owned(), start);

        assert_eq!(members.share(start + SETTLE - MS), Share::NONE);
        assert_eq!(members.next_look(), Some(start + SETTLE));
        assert_eq!(members.share(start + SETTLE), share(0, 1));
        assert_eq!(members.next_look(), None);
    }

    #[test]
    fn a_member_that_comes_counts_once_nothing_has_changed_for_a_while() {
        let start = Instant::now();
        let mut members = Members::new("b".to_owned(), start);
        let now = start + SETTLE;
        members.share(now);

        assert!(members.heard("a", now));
        assert_eq!(members.share(now), share(0, 1));
        assert!(members.heard("c", now + SETTLE / 2));
        assert!(!members.heard("a", now + SETTLE / 2));
        assert_eq!(members.share(now + SETTLE / 2), share(0, 1));

        assert_eq!(members.share(now + SETTLE), share(0, 1));
        assert_eq!(members.share(now + SETTLE * 3 / 2), share(1, 3));
    }

    #[test]
    fn a_member_that_is_silent_is_dropped_and_one_that_says_goodbye_at_once() {
        let start = Instant::now();
        let mut members = Members::new("b".to_owned(), start);
        for id in ["a", "c"] {
            members.heard(id, start);
        }
        members.share(start);
        let mut now = start + SETTLE;
        assert_eq!(members.share(now), share(1, 3));

        members.left("a");
        assert_eq!(members.share(now), share(0, 2));
        assert_eq!(members.next_look(), Some(start + SILENCE));
        now = start + SILENCE;
        assert_eq!(members.share(now), share(0, 2));
        assert_eq!(members.next_look(), Some(now + SETTLE));
        assert_eq!(members.share(now + SETTLE), share(0, 1));
    }

    #[test]
    fn one_that_comes_and_goes_moves_nothing() {
        let start = Instant::now();
        let mut members = Members::new("b".to_owned(), start);
        let now = start + SETTLE;
        members.share(now);

        members.heard("a", now);
        members.share(now);
        members.left("a");

        assert_eq!(members.share(now + MS), share(0, 1));
        assert_eq!(members.next_look(), None);
    }

    #[test]
    fn who_was_deaf_takes_nobody_for_gone() {
        let start = Instant::now();
        let mut members = Members::new("b".to_owned(), start);
        members.heard("a", start);
        members.share(start);
        assert_eq!(members.share(start + SETTLE), share(1, 2));

        let back = start + SILENCE * 5;
        members.was_deaf(back);

        assert_eq!(members.share(back), share(1, 2));
        assert_eq!(members.share(back + SILENCE), share(1, 2));
        assert_eq!(members.share(back + SILENCE + SETTLE), share(0, 1));
    }
}

//! Tells which deliveries the owner of a partition before may have been at when it died: not all brokers tell what they deliver
//! again. Pure.

use std::collections::{BTreeSet, HashMap};

use crate::keys::KeyId;

/// Where a delivery stands in its key.
#[derive(Debug, Clone)]
pub(super) struct Stand {
    /// None: it waits behind nobody.
    pub(super) key: Option<KeyId>,
    /// How many of a key are in work together, at most.
    pub(super) together: usize,
}

/// What an ownership has settled that nobody had settled before, as far as it tells anything.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    /// The first ones to arrive of those that were the first of their key.
    first: BTreeSet<u64>,
    /// How many of each key.
    of_keys: HashMap<KeyId, usize>,
}

impl Fresh {
    /// A delivery was settled that nobody had settled before. `most`: as many are in work at a time, at most.
    pub(super) fn settled(&mut self, number: u64, stand: &Stand, most: usize) {
        if !self.is_early(number, most) {
            return;
        }
        let before = stand.key.as_ref().map_or(0, |key| {
            let count = self.of_keys.entry(key.clone()).or_default();
            *count += 1;
            *count - 1
        });
        if before == 0 {
            self.first.insert(number);
            while self.first.len() > most {
                self.first.pop_last();
            }
        }
    }

    /// Whether the owner before may have been at it. He was at `most` at a time, and at none of a key before those that had come earlier: what
    /// had arrived before one of those, he had settled, or it was one of them, or waited behind its key.
    pub(super) fn tells(&self, number: u64, stand: &Stand, most: usize) -> bool {
        let before = stand.key.as_ref().and_then(|key| self.of_keys.get(key));
        self.is_early(number, most) && before.is_none_or(|count| *count < stand.together)
    }

    /// Whether fewer keys than may be in work have begun before it. Those that only follow in a key do not count: he had them wait.
    fn is_early(&self, number: u64, most: usize) -> bool {
        self.first.len() < most || self.first.last().is_some_and(|last| number < *last)
    }
}

#[cfg(test)]
mod tests {
    use onceward_core::{MAX_PAYLOAD, Message};

    use super::*;

    fn stand(key: Option<u32>, together: usize) -> Stand {
        let draft = Message::json("t", &1).unwrap();
        let draft = match key {
            Some(key) => draft.key(key),
            None => draft,
        };
        let message = draft.finish(MAX_PAYLOAD).unwrap().message;
        Stand {
            key: KeyId::of(&message),
            together,
        }
    }

    #[test]
    fn without_keys_as_many_are_fresh_as_are_in_work_at_a_time() {
        let (mut fresh, any) = (Fresh::default(), stand(None, 1));

        assert!(fresh.tells(1, &any, 2));
        fresh.settled(2, &any, 2);
        assert!(fresh.tells(3, &any, 2));
        fresh.settled(4, &any, 2);
        assert!(!fresh.tells(5, &any, 2));
        assert!(fresh.tells(3, &any, 2), "it arrived before 4");
        fresh.settled(3, &any, 2);
        assert!(!fresh.tells(4, &any, 2));
    }

    #[test]
    fn what_waited_behind_its_key_makes_no_other_key_stale() {
        let (mut fresh, one, other) = (Fresh::default(), stand(Some(1), 1), stand(Some(2), 1));
        for number in 0..100 {
            assert_eq!(fresh.tells(number, &one, 2), number == 0);
            fresh.settled(number, &one, 2);
        }

        assert!(fresh.tells(100, &other, 2));
        fresh.settled(100, &other, 2);
        assert!(!fresh.tells(101, &stand(Some(3), 1), 2));
    }

    #[test]
    fn of_a_key_as_many_are_fresh_as_a_batch_holds() {
        let (mut fresh, key) = (Fresh::default(), stand(Some(1), 3));

        let fresh: Vec<bool> = (0..5)
            .map(|number| {
                let tells = fresh.tells(number, &key, 2);
                fresh.settled(number, &key, 2);
                tells
            })
            .collect();

        assert_eq!(fresh, [true, true, true, false, false]);
    }

    #[test]
    fn what_is_remembered_of_keys_ends_with_those_that_tell_anything() {
        let mut fresh = Fresh::default();
        for number in 0..1_000 {
            fresh.settled(number.into(), &stand(Some(number), 1), 10);
        }

        assert_eq!((fresh.first.len(), fresh.of_keys.len()), (10, 10));
    }
}

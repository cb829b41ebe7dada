//! Which message may be sent next, so that at most one of each key is unconfirmed. Pure; used by adapters whose brokers let a
//! later message of a key pass one that was refused.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Messages that wait: those that may go, in order, and behind each key that is on its way its followers.
///
/// `K` names a key; a message without one waits for nobody. `T` is whatever stands for a message.
#[derive(Debug)]
pub struct OnePerKey<K, T> {
    ready: VecDeque<(Option<K>, T)>,
    /// Only keys that are on their way, or of which nothing more is sent.
    keys: HashMap<K, Key<T>>,
    waiting: usize,
}

#[derive(Debug)]
enum Key<T> {
    Busy(VecDeque<T>),
    /// One was not confirmed: nothing more is sent in this session.
    Ended,
}

impl<K: Hash + Eq + Clone, T> OnePerKey<K, T> {
    /// Nobody waits.
    #[must_use]
    pub fn new() -> Self {
        Self {
            ready: VecDeque::new(),
            keys: HashMap::new(),
            waiting: 0,
        }
    }

    /// Lines a message up; gives it back if nothing more of its key is sent.
    pub fn push(&mut self, key: Option<K>, message: T) -> Option<T> {
        let Some(key) = key else {
            self.ready.push_back((None, message));
            return None;
        };
        match self.keys.get_mut(&key) {
            None => {
                self.keys.insert(key.clone(), Key::Busy(VecDeque::new()));
                self.ready.push_back((Some(key), message));
                None
            }
            Some(Key::Busy(followers)) => {
                followers.push_back(message);
                self.waiting += 1;
                None
            }
            Some(Key::Ended) => Some(message),
        }
    }

    /// The next message that may go. Its key is on its way until [`confirmed`](Self::confirmed) or [`end`](Self::end).
    pub fn pop(&mut self) -> Option<(Option<K>, T)> {
        self.ready.pop_front()
    }

    /// The message of this key that was on its way is confirmed: the next one may go.
    pub fn confirmed(&mut self, key: K) {
        let Some(Key::Busy(followers)) = self.keys.get_mut(&key) else {
            return;
        };
        match followers.pop_front() {
            Some(next) => {
                self.waiting -= 1;
                self.ready.push_back((Some(key), next));
            }
            None => {
                self.keys.remove(&key);
            }
        }
    }

    /// The message of this key that was on its way is not confirmed: gives back its followers, none of which is ever sent.
    pub fn end(&mut self, key: K) -> Vec<T> {
        let followers = match self.keys.insert(key, Key::Ended) {
            Some(Key::Busy(followers)) => Vec::from(followers),
            Some(Key::Ended) | None => Vec::new(),
        };
        self.waiting -= followers.len();
        followers
    }

    /// How many messages wait, whether they may go or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ready.len() + self.waiting
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets every message.
    pub fn clear(&mut self) {
        self.ready.clear();
        self.keys.clear();
        self.waiting = 0;
    }
}

impl<K: Hash + Eq + Clone, T> Default for OnePerKey<K, T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_follower_waits_for_its_predecessor_and_other_keys_do_not() {
        let mut keys = OnePerKey::new();
        for (key, n) in [("a", 1), ("a", 2), ("b", 3)] {
            assert_eq!(keys.push(Some(key), n), None);
        }

        assert_eq!(keys.pop(), Some((Some("a"), 1)));
        assert_eq!(keys.pop(), Some((Some("b"), 3)));
        assert_eq!(keys.pop(), None);
        keys.confirmed("a");

        assert_eq!(keys.pop(), Some((Some("a"), 2)));
        assert_eq!(keys.len(), 0);
    }

    #[test]
    fn after_a_message_that_is_not_confirmed_nothing_more_of_its_key_goes() {
        let mut keys = OnePerKey::new();
        for n in 1..=3 {
            keys.push(Some("a"), n);
        }
        keys.pop();

        assert_eq!(keys.end("a"), vec![2, 3]);
        assert_eq!(keys.push(Some("a"), 4), Some(4));
        assert_eq!((keys.pop(), keys.len()), (None, 0));
    }

    #[test]
    fn a_key_that_is_idle_takes_no_memory() {
        let mut keys = OnePerKey::new();
        for n in 0..100 {
            keys.push(Some(n), n);
            keys.pop();
            keys.confirmed(n);
        }

        assert!(keys.keys.is_empty());
    }

    proptest! {
        #[test]
        fn whatever_is_confirmed_of_a_key_is_a_prefix_of_what_was_pushed(
            pushes in prop::collection::vec(prop::option::of(0..4_u8), 1..60),
            fates in prop::collection::vec(any::<u8>(), 60),
        ) {
            let mut keys = OnePerKey::new();
            let mut offered: HashMap<u8, Vec<usize>> = HashMap::new();
            let mut sent: HashMap<u8, Vec<usize>> = HashMap::new();
            let mut on_the_way: Vec<(Option<u8>, usize)> = Vec::new();
            for (n, (key, fate)) in pushes.into_iter().zip(fates).enumerate() {
                if let Some(key) = key {
                    offered.entry(key).or_default().push(n);
                }
                keys.push(key, n);
                while let Some((key, n)) = keys.pop() {
                    if let Some(key) = key {
                        prop_assert!(!on_the_way.iter().any(|(k, _)| *k == Some(key)));
                        sent.entry(key).or_default().push(n);
                    }
                    on_the_way.push((key, n));
                }
                if fate % 3 > 0 && !on_the_way.is_empty() {
                    let (key, _) = on_the_way.remove(usize::from(fate) % on_the_way.len());
                    match key {
                        Some(key) if fate % 16 == 1 => { keys.end(key); }
                        Some(key) => keys.confirmed(key),
                        None => {}
                    }
                }
            }
            for (key, sent) in sent {
                prop_assert!(offered[&key].starts_with(&sent));
            }
        }
    }
}

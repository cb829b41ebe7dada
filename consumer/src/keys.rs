//! Whose turn it is: keys in order, distinct keys side by side, up to the limits. Pure.

use std::collections::{HashMap, HashSet, VecDeque};

use onceward_core::{Key, Message, Topic};

/// Messages with one of these keep their order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct KeyId {
    topic: Topic,
    key: Key,
}

impl KeyId {
    pub(crate) fn of(message: &Message) -> Option<Self> {
        message.key.clone().map(|key| Self {
            topic: message.topic.clone(),
            key,
        })
    }
}

/// A delivery that waits or runs, by its number. Numbers grow in the order of arrival.
#[derive(Debug, Clone)]
struct Item {
    key: Option<KeyId>,
    class: usize,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waits,
    /// In a place of its own.
    Runs,
    /// In the place of another one of its batch.
    RunsAlong,
}

/// Whether a delivery may run along with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Take {
    Yes,
    No,
    /// Neither it nor any after it.
    Full,
}

/// The deliveries of one member, by key and by class. A class is what has a limit of its own: a handler.
#[derive(Debug)]
pub(crate) struct Keys {
    items: HashMap<u64, Item>,
    /// Each key's deliveries in order of arrival; the first one waits for its turn or runs.
    lines: HashMap<KeyId, VecDeque<u64>>,
    /// Whose turn it is but for the limits, by class, in order of becoming so.
    ready: Vec<VecDeque<u64>>,
    /// How many run, by class.
    running: Vec<usize>,
    /// How many may, by class.
    limits: Vec<usize>,
    limit: usize,
}

impl Keys {
    /// At most `limit` run at a time, and of each class at most what `limits` says.
    pub(crate) fn new(limit: usize, limits: Vec<usize>) -> Self {
        Self {
            items: HashMap::new(),
            lines: HashMap::new(),
            ready: limits.iter().map(|_| VecDeque::new()).collect(),
            running: vec![0; limits.len()],
            limits,
            limit,
        }
    }

    /// A delivery has arrived, behind all of its key that arrived before.
    pub(crate) fn arrive(&mut self, number: u64, key: Option<KeyId>, class: usize) {
        let first = match &key {
            None => true,
            Some(key) => {
                let line = self.lines.entry(key.clone()).or_default();
                line.push_back(number);
                line.len() == 1
            }
        };
        let item = Item {
            key,
            class,
            state: State::Waits,
        };
        self.items.insert(number, item);
        if first && let Some(ready) = self.ready.get_mut(class) {
            ready.push_back(number);
        }
    }

    /// Starts the one that has waited longest among those that may start.
    pub(crate) fn start(&mut self) -> Option<u64> {
        if self.running.iter().sum::<usize>() >= self.limit {
            return None;
        }
        let class = (0..self.ready.len())
            .filter(|class| self.running[*class] < self.limits[*class])
            .filter_map(|class| self.ready[class].front().map(|number| (*number, class)))
            .min()
            .map(|(_, class)| class)?;
        let number = self.ready[class].pop_front()?;
        self.running[class] += 1;
        if let Some(item) = self.items.get_mut(&number) {
            item.state = State::Runs;
        }
        Some(number)
    }

    /// Starts others along with those of a batch, in its place and as `takes` says: first what follows them in their keys
    /// without a gap, then those whose turn it is, each with what follows it.
    pub(crate) fn along(&mut self, batch: &[u64], mut takes: impl FnMut(u64) -> Take) -> Vec<u64> {
        let mut more = Vec::new();
        let Some(class) = self.class_of(batch) else {
            return more;
        };
        let items = batch.iter().filter_map(|number| self.items.get(number));
        let keys: HashSet<KeyId> = items.filter_map(|item| item.key.clone()).collect();
        let mut open = keys
            .iter()
            .all(|key| self.follow(key, class, &mut takes, &mut more));
        let mut passed_over = Vec::new();
        while open && let Some(head) = self.ready[class].pop_front() {
            match takes(head) {
                Take::Yes => open = self.lead_along(head, class, &mut takes, &mut more),
                Take::No => passed_over.push(head),
                Take::Full => {
                    passed_over.push(head);
                    open = false;
                }
            }
        }
        for head in passed_over.into_iter().rev() {
            self.ready[class].push_front(head);
        }
        more
    }

    fn class_of(&self, batch: &[u64]) -> Option<usize> {
        let class = self.items.get(batch.first()?)?.class;
        (class < self.ready.len()).then_some(class)
    }

    /// False: no more may be started.
    fn lead_along(
        &mut self,
        head: u64,
        class: usize,
        takes: &mut impl FnMut(u64) -> Take,
        more: &mut Vec<u64>,
    ) -> bool {
        more.push(head);
        let Some(item) = self.items.get_mut(&head) else {
            return true;
        };
        item.state = State::RunsAlong;
        match item.key.clone() {
            Some(key) => self.follow(&key, class, takes, more),
            None => true,
        }
    }

    /// Starts what follows in a key on those that run. False: no more may be started.
    fn follow(
        &mut self,
        key: &KeyId,
        class: usize,
        takes: &mut impl FnMut(u64) -> Take,
        more: &mut Vec<u64>,
    ) -> bool {
        let line = self.lines.get(key).into_iter().flatten();
        for number in line {
            let Some(item) = self.items.get_mut(number) else {
                return true;
            };
            if item.state != State::Waits {
                continue;
            }
            if item.class != class {
                return true;
            }
            match takes(*number) {
                Take::Yes => {
                    item.state = State::RunsAlong;
                    more.push(*number);
                }
                Take::No => return true,
                Take::Full => return false,
            }
        }
        true
    }

    /// Those have run and wait again, before all others.
    pub(crate) fn again(&mut self, mut numbers: Vec<u64>) {
        numbers.sort_unstable();
        for number in numbers.into_iter().rev() {
            let Some(item) = self.items.get_mut(&number) else {
                continue;
            };
            if item.state == State::Runs {
                self.running[item.class] -= 1;
            }
            item.state = State::Waits;
            let line = item.key.as_ref().and_then(|key| self.lines.get(key));
            if line.is_none_or(|line| line.front() == Some(&number)) {
                self.ready[item.class].push_front(number);
            }
        }
    }

    /// One has ended, settled or not: the next of its key may start.
    pub(crate) fn end(&mut self, number: u64) {
        self.remove(number);
    }

    /// Forgets those that wait, and gives them; what runs goes on.
    pub(crate) fn drop_waiting(&mut self, mut which: impl FnMut(u64) -> bool) -> Vec<u64> {
        let mut waiting: Vec<u64> = self
            .items
            .iter()
            .filter(|(_, item)| item.state == State::Waits)
            .map(|(number, _)| *number)
            .filter(|number| which(*number))
            .collect();
        waiting.sort_unstable();
        // The last ones first: else the next of the key would become ready only to be removed as well.
        for number in waiting.iter().rev() {
            self.remove(*number);
        }
        waiting
    }

    fn remove(&mut self, number: u64) {
        let Some(item) = self.items.remove(&number) else {
            return;
        };
        match item.state {
            State::Runs => self.running[item.class] -= 1,
            State::RunsAlong => {}
            State::Waits => {
                if let Some(ready) = self.ready.get_mut(item.class) {
                    ready.retain(|waiting| *waiting != number);
                }
            }
        }
        if let Some(key) = item.key {
            self.leave_line(&key, number);
        }
    }

    fn leave_line(&mut self, key: &KeyId, number: u64) {
        let Some(line) = self.lines.get_mut(key) else {
            return;
        };
        let was_first = line.front() == Some(&number);
        line.retain(|waiting| *waiting != number);
        match line.front() {
            None => {
                self.lines.remove(key);
            }
            Some(next) if was_first => {
                let waits = self.items.get(next);
                if let Some(item) = waits.filter(|item| item.state == State::Waits) {
                    self.ready[item.class].push_back(*next);
                }
            }
            Some(_) => {}
        }
    }

    /// How many run.
    pub(crate) fn running(&self) -> usize {
        self.running.iter().sum()
    }
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;

//! Whose turn it is: keys in order, distinct keys side by side, up to the limits. Pure.

use std::collections::{HashMap, HashSet, VecDeque};

use onceward_core::{Key, Message, Topic};

use crate::plan::PlaceKind;
use crate::plan::places::{PLACE_KINDS, Places, Running, has_place};

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
    kind: PlaceKind,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// For its turn.
    Waits,
    /// In a place of its own.
    Runs,
    /// In the place of another one of its batch.
    RunsAlong,
    /// It had its turn and could not use it. It has no turn until it is brought back.
    Aside,
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
    ready: Vec<Ready>,
    /// How many run, by class.
    running: Vec<usize>,
    /// How many may, by class.
    limits: Vec<usize>,
    /// How many run in all.
    all: Running,
    places: Places,
}

/// Whose turn it is in one class, by kind.
#[derive(Debug, Default)]
struct Ready {
    deliveries: VecDeque<u64>,
    due: VecDeque<u64>,
    probes: VecDeque<u64>,
}

impl Ready {
    fn of(&self, kind: PlaceKind) -> &VecDeque<u64> {
        match kind {
            PlaceKind::Delivery => &self.deliveries,
            PlaceKind::Due => &self.due,
            PlaceKind::Probe => &self.probes,
        }
    }

    fn of_mut(&mut self, kind: PlaceKind) -> &mut VecDeque<u64> {
        match kind {
            PlaceKind::Delivery => &mut self.deliveries,
            PlaceKind::Due => &mut self.due,
            PlaceKind::Probe => &mut self.probes,
        }
    }
}

impl Keys {
    /// So many run at a time, and of each class at most what `limits` says, whatever the kind.
    pub(crate) fn new(places: Places, limits: Vec<usize>) -> Self {
        Self {
            items: HashMap::new(),
            lines: HashMap::new(),
            ready: limits.iter().map(|_| Ready::default()).collect(),
            running: vec![0; limits.len()],
            limits,
            all: Running::default(),
            places,
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
        self.take_in(number, key, class, PlaceKind::Delivery);
        if first {
            self.make_ready(number);
        }
    }

    /// A line that is due has arrived. Its order is kept in the database.
    pub(crate) fn arrive_due(&mut self, number: u64, class: usize, kind: PlaceKind) {
        self.take_in(number, None, class, kind);
        self.make_ready(number);
    }

    fn take_in(&mut self, number: u64, key: Option<KeyId>, class: usize, kind: PlaceKind) {
        let item = Item {
            key,
            class,
            kind,
            state: State::Waits,
        };
        self.items.insert(number, item);
    }

    fn make_ready(&mut self, number: u64) {
        if let Some(item) = self.items.get(&number)
            && let Some(ready) = self.ready.get_mut(item.class)
        {
            ready.of_mut(item.kind).push_back(number);
        }
    }

    /// Starts the one that has waited longest among those that may start, a probe before all others.
    pub(crate) fn start(&mut self) -> Option<u64> {
        let waits = |kind| self.first_of(kind).next().is_some();
        let (_, number, class, kind) = PLACE_KINDS
            .into_iter()
            .filter(|kind| has_place(*kind, self.all, waits, self.places))
            .flat_map(|kind| self.first_of(kind))
            .min_by_key(|(later, number, ..)| (*later, *number))?;
        self.ready[class].of_mut(kind).pop_front();
        self.running[class] += 1;
        *self.all.of(kind) += 1;
        if let Some(item) = self.items.get_mut(&number) {
            item.state = State::Runs;
        }
        Some(number)
    }

    /// Who could start of a kind, in each class that has room; whether he gives way to probes.
    fn first_of(&self, kind: PlaceKind) -> impl Iterator<Item = (bool, u64, usize, PlaceKind)> {
        let classes = self.ready.iter().enumerate();
        classes.filter_map(move |(class, ready)| {
            let number = *ready.of(kind).front()?;
            let room = self.running[class] < self.limits[class];
            room.then_some((kind != PlaceKind::Probe, number, class, kind))
        })
    }

    /// One that runs cannot go on: it gives its place up, and keeps that in its key's line.
    pub(crate) fn set_aside(&mut self, number: u64) {
        if let Some(item) = self.items.get_mut(&number)
            && item.state == State::Runs
        {
            item.state = State::Aside;
            self.running[item.class] -= 1;
            *self.all.of(item.kind) -= 1;
        }
    }

    /// One that was set aside waits for its turn again.
    pub(crate) fn bring_back(&mut self, number: u64) {
        if let Some(item) = self.items.get_mut(&number)
            && item.state == State::Aside
        {
            item.state = State::Waits;
            self.make_ready(number);
        }
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
        while open && let Some(head) = self.ready[class].deliveries.pop_front() {
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
            self.ready[class].deliveries.push_front(head);
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
                *self.all.of(item.kind) -= 1;
            }
            item.state = State::Waits;
            let line = item.key.as_ref().and_then(|key| self.lines.get(key));
            if line.is_none_or(|line| line.front() == Some(&number)) {
                self.ready[item.class].of_mut(item.kind).push_front(number);
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
            .filter(|(_, item)| matches!(item.state, State::Waits | State::Aside))
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
            State::Runs => {
                self.running[item.class] -= 1;
                *self.all.of(item.kind) -= 1;
            }
            State::RunsAlong => {}
            State::Waits | State::Aside => {
                if let Some(ready) = self.ready.get_mut(item.class) {
                    let ready = ready.of_mut(item.kind);
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
                let next = *next;
                let waits = self.items.get(&next);
                if waits.is_some_and(|item| item.state == State::Waits) {
                    self.make_ready(next);
                }
            }
            Some(_) => {}
        }
    }

    /// How many run.
    pub(crate) fn running(&self) -> usize {
        self.all.all()
    }
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;

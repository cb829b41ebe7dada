//! Messages that may be sent now, by queue, and which of them share a call. Pure.

use std::collections::{HashMap, VecDeque};

use onceward_core::{OfferTicket, PublishError, Route};

use crate::attributes::MOST_BYTES;
use crate::connection::Queue;
use crate::headers::Entry;
use crate::queue::QueueName;

/// Most entries of one call.
const MOST_ENTRIES: usize = 10;

/// Order holds per queue and group.
pub(crate) type OrderKey = (Route, String);

/// A message that may be sent.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) sent: Sent,
    pub(crate) entry: Entry,
    pub(crate) group: Option<String>,
    pub(crate) dedupe: Option<String>,
}

/// What a message on its way is known by.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) ticket: OfferTicket,
    pub(crate) key: Option<OrderKey>,
}

/// What is known of a route's queue.
#[derive(Debug)]
enum Known {
    Nothing,
    Asking,
    Found(Queue),
}

#[derive(Debug)]
struct Lane {
    name: QueueName,
    known: Known,
    ready: VecDeque<Ready>,
}

/// The queues that the session has met.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    lanes: HashMap<Route, Lane>,
    /// Routes of which messages are ready, each once, in turn.
    turns: VecDeque<Route>,
    ready: usize,
}

impl Lanes {
    /// The queue of a route, read by `read` the first time.
    pub(crate) fn name(
        &mut self,
        route: &Route,
        read: impl FnOnce() -> Result<QueueName, PublishError>,
    ) -> Result<&QueueName, PublishError> {
        if !self.lanes.contains_key(route) {
            let lane = Lane {
                name: read()?,
                known: Known::Nothing,
                ready: VecDeque::new(),
            };
            self.lanes.insert(route.clone(), lane);
        }
        let lane = self.lanes.get(route).map(|lane| &lane.name);
        lane.ok_or_else(|| {
            PublishError::new(
                onceward_core::ErrorKind::Unavailable,
                "the queue is not known",
            )
        })
    }

    /// Lines a message up behind those of its queue.
    pub(crate) fn push(&mut self, route: &Route, ready: Ready) {
        if let Some(lane) = self.lanes.get_mut(route) {
            if lane.ready.is_empty() {
                self.turns.push_back(route.clone());
            }
            lane.ready.push_back(ready);
            self.ready += 1;
        }
    }

    /// A route of which messages wait and nothing is known. It is being asked about from now on.
    pub(crate) fn ask(&mut self) -> Option<(Route, QueueName)> {
        let lanes = &mut self.lanes;
        self.turns.iter().find_map(|route| {
            let lane = lanes.get_mut(route)?;
            if !matches!(lane.known, Known::Nothing) {
                return None;
            }
            lane.known = Known::Asking;
            Some((route.clone(), lane.name.clone()))
        })
    }

    /// What was found out about a route.
    pub(crate) fn found(&mut self, route: &Route, queue: Queue) {
        if let Some(lane) = self.lanes.get_mut(route) {
            lane.known = Known::Found(queue);
        }
    }

    /// The largest message that a route takes, if that is known.
    pub(crate) fn limit(&self, route: &Route) -> Option<u64> {
        let known = self.lanes.get(route).map(|lane| &lane.known);
        match known {
            Some(Known::Found(queue)) => Some(queue.attributes.limit),
            Some(Known::Nothing | Known::Asking) | None => None,
        }
    }

    /// Forgets what is known of a route, so that it is asked about again.
    pub(crate) fn forget(&mut self, route: &Route) {
        if let Some(lane) = self.lanes.get_mut(route) {
            lane.known = Known::Nothing;
        }
    }

    /// Takes back all messages that wait for a route.
    pub(crate) fn take_all(&mut self, route: &Route) -> Vec<Ready> {
        let taken = self
            .lanes
            .get_mut(route)
            .map(|lane| std::mem::take(&mut lane.ready));
        let taken = Vec::from(taken.unwrap_or_default());
        self.ready -= taken.len();
        self.turns.retain(|turn| turn != route);
        taken
    }

    /// The messages of the next call, and the URL of their queue.
    pub(crate) fn next_call(&mut self) -> Option<(Route, String, Vec<Ready>)> {
        let turn = self.turns.iter().position(|route| {
            let lane = self.lanes.get(route);
            lane.is_some_and(|lane| matches!(lane.known, Known::Found(_)))
        })?;
        let route = self.turns.remove(turn)?;
        let lane = self.lanes.get_mut(&route)?;
        let Known::Found(queue) = &lane.known else {
            return None;
        };
        let sizes = lane.ready.iter().map(|ready| ready.entry.size());
        let count = fit(sizes, queue.attributes.limit);
        let call: Vec<Ready> = lane.ready.drain(..count).collect();
        self.ready -= call.len();
        let url = queue.url.clone();
        if !lane.ready.is_empty() {
            self.turns.push_back(route.clone());
        }
        Some((route, url, call))
    }

    /// How many messages are ready.
    pub(crate) fn len(&self) -> usize {
        self.ready
    }

    /// Forgets every message.
    pub(crate) fn clear(&mut self) {
        self.lanes.clear();
        self.turns.clear();
        self.ready = 0;
    }
}

/// How many of the first messages go into one call.
///
/// One that is larger than its queue takes, as far as we know, goes alone: a refusal is then about it, and if the limit was
/// raised meanwhile it arrives.
fn fit(sizes: impl Iterator<Item = u64>, limit: u64) -> usize {
    let mut sum = 0;
    let mut count = 0;
    for size in sizes.take(MOST_ENTRIES) {
        let alone = size > limit;
        if count > 0 && (alone || sum + size > MOST_BYTES) {
            break;
        }
        sum += size;
        count += 1;
        if alone {
            break;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fits(sizes: &[u64], limit: u64) -> usize {
        fit(sizes.iter().copied(), limit)
    }

    #[test]
    fn a_call_holds_ten_entries_and_a_mebibyte_at_most() {
        assert_eq!(fits(&[1; 25], MOST_BYTES), 10);
        assert_eq!(fits(&[400_000; 5], MOST_BYTES), 2);
        assert_eq!(fits(&[MOST_BYTES, 1], MOST_BYTES), 1);
        assert_eq!(fits(&[], MOST_BYTES), 0);
    }

    #[test]
    fn a_message_above_the_limit_of_its_queue_goes_alone() {
        assert_eq!(fits(&[10, 10, 101, 10], 100), 2);
        assert_eq!(fits(&[101, 10, 10], 100), 1);
        assert_eq!(fits(&[2 * MOST_BYTES, 1], MOST_BYTES), 1);
    }

    proptest! {
        #[test]
        fn every_message_is_sent_sooner_or_later(
            sizes in prop::collection::vec(1..3_000_000_u64, 1..50), limit in 1..2_000_000_u64,
        ) {
            let mut left = &sizes[..];
            while !left.is_empty() {
                let count = fits(left, limit);

                prop_assert!((1..=MOST_ENTRIES).contains(&count));
                let sum: u64 = left[..count].iter().sum();
                prop_assert!(count == 1 || sum <= MOST_BYTES);
                left = &left[count..];
            }
        }
    }
}

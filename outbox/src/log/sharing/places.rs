//! Where the readers stand, and which of them waits for another one to read. Pure: the caller brings the clock.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::recent::Recent;
use super::rule::Ask;

/// What the messages that come next are to a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// It publishes some of them, or does not know yet.
    Own,
    /// It is behind, and what it read last was none of its own: it only passes over them.
    Passing,
}

/// What a reader asked last.
#[derive(Debug)]
struct Place {
    ask: Ask,
    interest: Interest,
    /// From where on, by the sum of its numbers, it lets others read, and until when.
    lets_read: (i64, Instant),
}

/// What each reader asked last.
#[derive(Debug, Default)]
pub(super) struct Places {
    places: BTreeMap<u64, Place>,
}

impl Places {
    /// Notes what a reader asks now. It lets others read until `courtesy` has passed; that begins anew with every `limit` messages that it has
    /// passed: so it gets on by that many in that time at the least, in however small parts the others read.
    pub(super) fn stand(
        &mut self,
        part: u64,
        ask: &Ask,
        interest: Interest,
        (now, courtesy): (Instant, Duration),
    ) {
        let at: i64 = ask.place().sum();
        let limits = ask.reads.iter().map(|read| read.limit);
        let far = i64::try_from(limits.max().unwrap_or(1)).unwrap_or(i64::MAX);
        let before = self.places.get(&part).map(|place| place.lets_read);
        let lets_read = match before {
            Some((from, until)) if (from..from.saturating_add(far)).contains(&at) => (from, until),
            Some(_) | None => (at, now + courtesy),
        };
        let place = Place {
            ask: ask.clone(),
            interest,
            lets_read,
        };
        self.places.insert(part, place);
    }

    pub(super) fn leave(&mut self, part: u64) {
        self.places.remove(&part);
    }

    /// Until when a reader that only passes over what comes lets another one read, that publishes it and stands where this one does, or
    /// comes there by what is kept; none if there is no such one, or no time left. Who publishes is the slower one: if it were left behind,
    /// each of the two would read all rows.
    pub(super) fn lets_read(&self, part: u64, recent: &Recent, now: Instant) -> Option<Instant> {
        let mine = self.places.get(&part)?;
        let (_, until) = mine.lets_read;
        if mine.interest == Interest::Own || until <= now {
            return None;
        }
        let publish =
            |(other, place): &(&u64, &Place)| **other != part && place.interest == Interest::Own;
        let mut others = self.places.iter().filter(publish);
        let comes = others.any(|(_, place)| recent.leads(&place.ask, &mine.ask));
        comes.then_some(until)
    }
}

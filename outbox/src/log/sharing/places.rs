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

/// For how long a reader lets others read.
#[derive(Debug, Clone, Copy)]
struct Budget {
    /// The number behind which it stood when this began.
    from: i64,
    until: Instant,
}

/// What a reader asked last.
#[derive(Debug)]
struct Place {
    ask: Ask,
    interest: Interest,
    budget: Budget,
}

/// What each reader asked last.
#[derive(Debug, Default)]
pub(super) struct Places {
    places: BTreeMap<u64, Place>,
}

impl Places {
    /// Notes what a reader asks now. It lets others read until `courtesy` has passed; that begins anew each time that it has passed as many
    /// numbers as it asks for messages: so it gets on by that many in that time, in however small parts the others read.
    pub(super) fn stand(
        &mut self,
        part: u64,
        ask: &Ask,
        interest: Interest,
        (now, courtesy): (Instant, Duration),
    ) {
        let at = ask.place().max().unwrap_or_default();
        let limits = ask.reads.iter().map(|read| read.limit);
        let far = i64::try_from(limits.max().unwrap_or(1)).unwrap_or(i64::MAX);
        let holds = |budget: &Budget| (budget.from..budget.from.saturating_add(far)).contains(&at);
        let before = self.places.get(&part).map(|place| place.budget);
        let place = Place {
            ask: ask.clone(),
            interest,
            budget: before.filter(holds).unwrap_or(Budget {
                from: at,
                until: now + courtesy,
            }),
        };
        self.places.insert(part, place);
    }

    pub(super) fn leave(&mut self, part: u64) {
        self.places.remove(&part);
    }

    /// Until when a reader that only passes over what comes lets another one read, that publishes it and stands where this one does, or
    /// comes there by what is kept; none if there is no such one whose answer it could take, or no time left. Who publishes is the slower
    /// one: if it were left behind, each of the two would read all rows.
    pub(super) fn lets_read(&self, part: u64, recent: &Recent, now: Instant) -> Option<Instant> {
        let mine = self.places.get(&part)?;
        if mine.interest == Interest::Own || mine.budget.until <= now {
            return None;
        }
        let publish =
            |(other, place): &(&u64, &Place)| **other != part && place.interest == Interest::Own;
        let mut others = self.places.iter().filter(publish);
        let comes = others.any(|(_, place)| {
            mine.ask.has_room_for(&place.ask) && recent.leads(&place.ask, &mine.ask)
        });
        comes.then_some(mine.budget.until)
    }
}

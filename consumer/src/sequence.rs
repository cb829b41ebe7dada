//! Decides by the producer's own numbers whether a message of a key was settled before. Pure: no clock, no I/O.

use std::fmt::Write as _;
use std::ops::Range;

use onceward_core::{Key, Message, Source};
use uuid::Uuid;

use crate::trouble::clean;

/// Most gaps that are kept of a key. Beyond that the lowest is closed.
const MOST_GAPS: usize = 100;

/// A message with a number of its producer's, and the row in which its key's numbers are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Numbered {
    pub(crate) line: Uuid,
    pub(crate) topic: String,
    pub(crate) key: String,
    pub(crate) number: i64,
    /// Its number in the log.
    pub(crate) seq: i64,
}

impl Numbered {
    /// None: it has no number, no key, or is not ours.
    pub(crate) fn of(message: &Message) -> Option<Self> {
        let key = message.key.as_ref().map(Key::as_str)?;
        let (number, seq) = (message.sequence()?, message.seq?);
        let source = message.source.as_ref().map_or("", Source::as_str);
        let topic = message.topic.as_str();
        let name = format!("{source}\0{topic}\0{key}");
        Some(Self {
            line: Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()),
            topic: clean(topic),
            key: clean(key),
            number,
            seq,
        })
    }
}

/// Which numbers of a key are settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Numbers {
    /// The highest one settled.
    pub(crate) high: i64,
    /// Those below it that have not come yet.
    pub(crate) gaps: Gaps,
    /// Up to here, what lies in no gap may have lain in one that is closed.
    pub(crate) closed: i64,
    /// The highest number in the log of all that was settled.
    pub(crate) seen: i64,
    /// A number was given twice. What lies above `seen`, which stays where it is, takes marks as well.
    pub(crate) reused: bool,
}

/// What a number says of its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Says {
    /// It is new, and these are the key's numbers with it. `mark`: unless its mark is there.
    New { numbers: Numbers, mark: bool },
    /// It was settled before.
    Settled,
    /// It is new, and another message was settled under its number. Its mark decides.
    Reused,
    /// It lay in a gap that is closed, or was settled before that.
    Unknown,
}

/// Judges a message by its number and its number in the log. `known`: of its key; none: it is the first of it.
pub(crate) fn judge(known: Option<&Numbers>, number: i64, seq: i64) -> Says {
    let Some(known) = known else {
        let numbers = Numbers {
            high: number,
            gaps: Gaps::below(number),
            closed: 0,
            seen: seq,
            reused: false,
        };
        // Before the first of a key the consumer may have gone by marks.
        return Says::New {
            numbers,
            mark: true,
        };
    };
    let mut numbers = known.clone();
    let mark = if number > known.high {
        numbers.gaps.open(known.high, number);
        numbers.high = number;
        known.reused
    } else if numbers.gaps.fill(number) {
        true
    } else if seq > known.seen {
        return Says::Reused;
    } else if number <= known.closed {
        return Says::Unknown;
    } else {
        return Says::Settled;
    };
    numbers.closed = numbers.gaps.close().unwrap_or(known.closed);
    if !known.reused {
        numbers.seen = known.seen.max(seq);
    }
    Says::New { numbers, mark }
}

/// Ranges of numbers, in order and apart from one another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Gaps(Vec<Range<i64>>);

impl Gaps {
    /// All numbers below one.
    fn below(number: i64) -> Self {
        let mut gaps = Self::default();
        gaps.open(0, number);
        gaps
    }

    /// Opens what lies between two numbers, behind all others.
    fn open(&mut self, low: i64, high: i64) {
        let between = low + 1..high;
        if !between.is_empty() {
            self.0.push(between);
        }
    }

    /// Takes a number out. False: it lies in no gap.
    fn fill(&mut self, number: i64) -> bool {
        let Some(place) = self.0.iter().position(|gap| gap.contains(&number)) else {
            return false;
        };
        let gap = self.0.remove(place);
        let rest = [gap.start..number, number + 1..gap.end];
        let rest = rest.into_iter().filter(|part| !part.is_empty());
        self.0.splice(place..place, rest);
        true
    }

    /// Closes the lowest ones if there are too many. Gives the last number of what it closed.
    fn close(&mut self) -> Option<i64> {
        let many = self.0.len().saturating_sub(MOST_GAPS);
        self.0.drain(..many).next_back().map(|gap| gap.end - 1)
    }

    /// As Postgres writes an `int8multirange`.
    pub(crate) fn text(&self) -> String {
        let mut text = String::from("{");
        for (n, gap) in self.0.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            // Writing to a text cannot fail.
            write!(text, "{comma}[{},{})", gap.start, gap.end).unwrap_or_default();
        }
        text + "}"
    }

    /// Reads what Postgres writes. None: it is no list of bounded ranges.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let inner = text.strip_prefix('{')?.strip_suffix('}')?;
        if inner.is_empty() {
            return Some(Self::default());
        }
        let inner = inner.strip_prefix('[')?.strip_suffix(')')?;
        let ranges = inner.split("),[").map(|range| {
            let (start, end) = range.split_once(',')?;
            Some(start.parse().ok()?..end.parse().ok()?)
        });
        ranges.collect::<Option<Vec<_>>>().map(Self)
    }
}

#[cfg(test)]
#[path = "sequence_tests.rs"]
mod tests;

//! Decides by the producer's own numbers whether a message of a key was settled before. Pure: no clock, no I/O.

use std::ops::Range;

use onceward_core::{Key, Message, Source};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::mark::Mark;
use crate::plan::DeadReason;
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
    /// When it was written to the log, as exact as Postgres keeps it.
    pub(crate) time: OffsetDateTime,
    /// What it would be marked by.
    pub(crate) mark: Uuid,
}

impl Numbered {
    /// None: it has no number, no key, or is not ours.
    pub(crate) fn of(message: &Message) -> Option<Self> {
        let key = message.key.as_ref().map(Key::as_str)?;
        let (number, seq, time) = (message.sequence()?, message.seq?, message.time?);
        let source = message.source.as_ref().map_or("", Source::as_str);
        let topic = message.topic.as_str();
        let name = format!("{source}\0{topic}\0{key}");
        Some(Self {
            line: Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()),
            topic: clean(topic),
            key: clean(key),
            number,
            seq,
            time: time.truncate_to_microsecond(),
            mark: Mark::id_of(message),
        })
    }
}

/// Which numbers of a key are settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Numbers {
    /// The highest one settled.
    pub(crate) high: i64,
    /// What its message would be marked by.
    pub(crate) mark: Uuid,
    /// Those below it that have not come yet.
    pub(crate) gaps: Gaps,
    /// Up to here, what lies in no gap may have lain in one that is closed.
    pub(crate) closed: i64,
    /// The highest number in the log of all that was settled, and the latest time: no copy has a higher or a later one.
    pub(crate) seen: i64,
    pub(crate) seen_at: OffsetDateTime,
    /// A number was given twice. What lies above `seen` or after `seen_at`, which stay where they are, takes marks as well.
    pub(crate) reused: bool,
}

/// The numbers of a key as they are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) numbers: Numbers,
    /// When the highest was settled. To fill a gap says nothing of what comes behind the highest.
    pub(crate) raised_at: OffsetDateTime,
}

/// What has to be new of a message besides its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Besides {
    Nothing,
    Mark,
}

/// What a number says of its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Judged {
    /// It is the first of its key, and these are its numbers. Before it the consumer may have gone by marks.
    First(Numbers),
    /// It is new, and these are the key's numbers with it.
    New { numbers: Numbers, besides: Besides },
    /// It was settled before.
    Settled,
    /// Another message was settled under its number, and these are the key's numbers that say so. Its mark decides.
    Reused(Numbers),
    /// It lay in a gap that is closed, or was settled before that.
    Unknown,
}

/// Judges a message by its number. `known`: of its key. `started`: since when this consumer goes by numbers for certain; what was
/// settled between the highest number of the row and that may have a mark.
pub(crate) fn judge(known: Option<Known>, one: &Numbered, started: OffsetDateTime) -> Judged {
    let Some(known) = known else {
        return Judged::First(Numbers::first(one));
    };
    let mut numbers = known.numbers;
    let besides = if one.number > numbers.high {
        numbers.gaps.open(numbers.high, one.number);
        (numbers.high, numbers.mark) = (one.number, one.mark);
        if numbers.reused || known.raised_at < started {
            Besides::Mark
        } else {
            Besides::Nothing
        }
    } else if numbers.gaps.fill(one.number) {
        Besides::Mark
    } else {
        return numbers.judge_taken(one);
    };
    numbers.closed = numbers.gaps.close().unwrap_or(numbers.closed);
    if !numbers.reused {
        numbers.seen = numbers.seen.max(one.seq);
        numbers.seen_at = numbers.seen_at.max(one.time);
    }
    Judged::New { numbers, besides }
}

impl Numbers {
    fn first(one: &Numbered) -> Self {
        Self {
            high: one.number,
            mark: one.mark,
            gaps: Gaps::below(one.number),
            closed: 0,
            seen: one.seq,
            seen_at: one.time,
            reused: false,
        }
    }

    /// Judges a message whose number is not above all others and lies in no gap.
    fn judge_taken(self, one: &Numbered) -> Judged {
        let copy = if one.number == self.high {
            one.mark == self.mark
        } else {
            // Where the log has gone back it gives its numbers again, and later times.
            one.seq <= self.seen && one.time <= self.seen_at
        };
        if one.number <= self.closed {
            Judged::Unknown
        } else if copy {
            Judged::Settled
        } else {
            Judged::Reused(Self {
                reused: true,
                ..self
            })
        }
    }
}

/// What has become of a number in a transaction. `M` says what it has written.
#[derive(Debug)]
pub(crate) enum Taken<M> {
    /// It is this transaction's.
    Ours { written: M, besides: Besides },
    /// As of [`Judged`].
    Settled,
    /// As of [`Judged`].
    Reused(Numbers),
    /// As of [`Judged`].
    Unknown,
}

/// Why a delivery is settled without a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It is ignored or has expired, and nothing is kept of it.
    Passing,
    /// It waits.
    Waits,
    Dead(DeadReason),
    /// It is dead, for its handler has ended the transaction, perhaps with its number.
    Ended,
}

/// Who decides whether a delivery is settled without a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decides {
    Mark,
    /// The number, and it is ours.
    Number,
    /// The number, and it was settled before.
    Settled,
}

/// Tells who decides. What waits or is dead has a mark besides its number: it is by that that it is retried and replayed.
pub(crate) fn decide<M>(taken: &Taken<M>, ending: Ending) -> Decides {
    match (taken, ending) {
        (Taken::Ours { besides, .. }, Ending::Passing) => match besides {
            Besides::Nothing => Decides::Number,
            Besides::Mark => Decides::Mark,
        },
        (Taken::Ours { .. } | Taken::Reused(_) | Taken::Unknown, _) => Decides::Mark,
        // The handler has committed its number by itself.
        (Taken::Settled, Ending::Ended) => Decides::Mark,
        (Taken::Settled, Ending::Dead(reason)) if is_of_numbers(reason) => {
            // Its number was looked at before, and whatever the key has come to meanwhile, this message was not settled under it.
            Decides::Mark
        }
        (Taken::Settled, Ending::Passing | Ending::Waits | Ending::Dead(_)) => Decides::Settled,
    }
}

fn is_of_numbers(reason: DeadReason) -> bool {
    match reason {
        DeadReason::SequenceReused | DeadReason::SequenceUnknown => true,
        DeadReason::Undecodable
        | DeadReason::Payload
        | DeadReason::NoHandler
        | DeadReason::Rejected
        | DeadReason::Attempts
        | DeadReason::TransactionEnded
        | DeadReason::IdConflict
        | DeadReason::Crashed
        | DeadReason::TooOld => false,
    }
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

    /// The first number of each.
    pub(crate) fn starts(&self) -> Vec<i64> {
        self.0.iter().map(|gap| gap.start).collect()
    }

    /// What lies behind each.
    pub(crate) fn ends(&self) -> Vec<i64> {
        self.0.iter().map(|gap| gap.end).collect()
    }

    /// The gaps with these starts and ends.
    pub(crate) fn between(starts: &[i64], ends: &[i64]) -> Self {
        let ranges = starts.iter().zip(ends);
        Self(ranges.map(|(start, end)| *start..*end).collect())
    }
}

#[cfg(test)]
#[path = "sequence_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "sequence_model_tests.rs"]
mod model;

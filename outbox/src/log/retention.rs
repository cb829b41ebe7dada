//! Decides which slots of the ring may be emptied, and why others may not. Pure.

use std::time::Duration;

use onceward_core::Lane;
use serde::Serialize;

/// How many slots are never free: the current one, the next, and the one that the oldest retained rows reach into.
const NEVER_FREE: u64 = 3;

/// The shape of the ring; it lies in the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Ring {
    /// How many slots there are.
    pub slots: i16,
    /// How long rows go into one slot.
    pub slot_length: Duration,
}

/// The retention is longer than the ring allows: no slot would ever become free.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a retention of {retention:?} is too long for a ring of {} slots of {:?}: at most {longest:?} leave a slot to empty", .ring.slots, .ring.slot_length)]
pub struct RetentionTooLong {
    /// What was asked for.
    pub retention: Duration,
    /// The longest retention that the ring allows.
    pub longest: Duration,
    /// The ring.
    pub ring: Ring,
}

impl Ring {
    /// The longest retention under which slots become free.
    #[must_use]
    pub fn longest_retention(&self) -> Duration {
        let slots = u64::from(self.slots.unsigned_abs()).saturating_sub(NEVER_FREE);
        self.slot_length
            .saturating_mul(u32::try_from(slots).unwrap_or(u32::MAX))
    }

    /// Whether slots become free again while messages are kept for `retention`.
    ///
    /// # Errors
    /// [`RetentionTooLong`]: choose a shorter one.
    pub fn check_retention(&self, retention: Duration) -> Result<(), RetentionTooLong> {
        let longest = self.longest_retention();
        if retention <= longest {
            return Ok(());
        }
        Err(RetentionTooLong {
            retention,
            longest,
            ring: *self,
        })
    }
}

/// Why a slot is not emptied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Reason {
    /// Rows are written to it now.
    Current,
    /// Rows are written to it next.
    Next,
    /// It holds nothing.
    Empty,
    /// Its newest row is younger than the retention.
    Young,
    /// No stream reads the log: nobody has said what may go.
    NoStreams,
    /// A stream has not read or not stored all of it.
    Unread {
        /// The stream.
        stream: String,
        /// The lane.
        lane: &'static str,
        /// The detour whose cursor it is; empty for the main one.
        detour: String,
    },
    /// A stream has no cursor for a lane of it.
    NoCursor {
        /// The stream.
        stream: String,
        /// The lane.
        lane: &'static str,
    },
    /// A topic in it is read by no stream, and nobody said that it may go.
    Unrouted {
        /// The topic.
        topic: String,
    },
    /// Somebody works on it: a producer's transaction, a dump, a vacuum. It is tried again.
    Busy,
}

/// What is known of a slot and of one stream's cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CursorFacts {
    pub(crate) stream: String,
    pub(crate) lane: Lane,
    /// None: the stream has no cursor for this lane.
    pub(crate) detour: Option<String>,
    /// The slot holds a row of this lane that the stored cursor has not passed.
    pub(crate) unread: bool,
    /// The slot holds a row of this lane.
    pub(crate) rows: bool,
}

/// What is known of a slot, all at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlotFacts {
    pub(crate) slot: i16,
    pub(crate) current: i16,
    pub(crate) ring: Ring,
    /// The age of its newest row; none if it holds nothing.
    pub(crate) newest: Option<Duration>,
    /// For each stream and lane: its cursors, or that it has none.
    pub(crate) cursors: Vec<CursorFacts>,
    /// Topics noted in it that no stored pattern matches.
    pub(crate) unrouted: Vec<String>,
    /// Some stream says that topics without a reader may go.
    pub(crate) discard_unrouted: bool,
}

/// Every reason against emptying the slot now; none: it may go.
pub(crate) fn judge(facts: &SlotFacts, retention: Duration) -> Vec<Reason> {
    let Some(newest) = facts.newest else {
        return vec![Reason::Empty];
    };
    let mut reasons = Vec::new();
    if facts.slot == facts.current {
        reasons.push(Reason::Current);
    }
    if facts.slot == (facts.current + 1) % facts.ring.slots.max(1) {
        reasons.push(Reason::Next);
    }
    if newest < retention {
        reasons.push(Reason::Young);
    }
    if facts.cursors.is_empty() {
        reasons.push(Reason::NoStreams);
    }
    reasons.extend(facts.cursors.iter().filter_map(against));
    if !facts.discard_unrouted {
        let topics = facts.unrouted.iter().cloned();
        reasons.extend(topics.map(|topic| Reason::Unrouted { topic }));
    }
    reasons
}

fn against(cursor: &CursorFacts) -> Option<Reason> {
    let lane = cursor.lane.name();
    let stream = cursor.stream.clone();
    match &cursor.detour {
        None => cursor.rows.then_some(Reason::NoCursor { stream, lane }),
        Some(detour) => cursor.unread.then(|| Reason::Unread {
            stream,
            lane,
            detour: detour.clone(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn ring() -> Ring {
        Ring {
            slots: 12,
            slot_length: DAY,
        }
    }

    fn read(stream: &str, lane: Lane) -> CursorFacts {
        CursorFacts {
            stream: stream.to_owned(),
            lane,
            detour: Some(String::new()),
            unread: false,
            rows: true,
        }
    }

    fn old() -> SlotFacts {
        SlotFacts {
            slot: 2,
            current: 7,
            ring: ring(),
            newest: Some(4 * DAY),
            cursors: vec![read("events", Lane::Standard)],
            unrouted: Vec::new(),
            discard_unrouted: false,
        }
    }

    fn reasons(facts: &SlotFacts) -> Vec<Reason> {
        judge(facts, 3 * DAY)
    }

    #[test]
    fn an_old_slot_that_everybody_has_read_may_go() {
        assert_eq!(reasons(&old()), []);
    }

    #[test]
    fn the_current_and_the_next_slot_stay_also_around_the_end_of_the_ring() {
        let at = |slot, current| {
            reasons(&SlotFacts {
                slot,
                current,
                ..old()
            })
        };

        assert_eq!(at(7, 7), [Reason::Current]);
        assert_eq!(at(8, 7), [Reason::Next]);
        assert_eq!(at(0, 11), [Reason::Next]);
        assert_eq!(at(11, 0), []);
    }

    #[test]
    fn an_empty_slot_has_nothing_to_empty() {
        let facts = SlotFacts {
            newest: None,
            ..old()
        };

        assert_eq!(reasons(&facts), [Reason::Empty]);
    }

    #[test]
    fn young_rows_stay() {
        let facts = SlotFacts {
            newest: Some(2 * DAY),
            ..old()
        };

        assert_eq!(reasons(&facts), [Reason::Young]);
    }

    #[test]
    fn what_one_stream_has_not_read_stays_although_another_has() {
        let mut facts = old();
        facts.cursors.push(CursorFacts {
            unread: true,
            ..read("slow", Lane::Bulk)
        });

        assert_eq!(
            reasons(&facts),
            [Reason::Unread {
                stream: "slow".to_owned(),
                lane: "bulk",
                detour: String::new()
            }]
        );
    }

    #[test]
    fn a_lane_without_a_cursor_keeps_a_slot_only_if_it_has_rows_there() {
        let without = |rows| {
            let mut facts = old();
            facts.cursors.push(CursorFacts {
                detour: None,
                rows,
                ..read("new", Lane::Critical)
            });
            reasons(&facts).len()
        };

        assert_eq!(without(true), 1);
        assert_eq!(without(false), 0);
    }

    #[test]
    fn a_log_without_streams_is_not_emptied() {
        let facts = SlotFacts {
            cursors: Vec::new(),
            ..old()
        };

        assert_eq!(reasons(&facts), [Reason::NoStreams]);
    }

    #[test]
    fn topics_that_nobody_reads_stay_until_somebody_says_discard() {
        let kept = SlotFacts {
            unrouted: vec!["lost".to_owned()],
            ..old()
        };
        let discarded = SlotFacts {
            discard_unrouted: true,
            ..kept.clone()
        };

        assert_eq!(reasons(&kept).len(), 1);
        assert_eq!(reasons(&discarded), []);
    }

    #[test]
    fn a_retention_that_the_ring_cannot_hold_is_refused() {
        assert_eq!(ring().longest_retention(), 9 * DAY);
        assert!(ring().check_retention(9 * DAY).is_ok());

        let error = ring().check_retention(10 * DAY).unwrap_err();

        assert_eq!(error.longest, 9 * DAY);
    }
}

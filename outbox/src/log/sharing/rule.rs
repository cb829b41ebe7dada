//! Decides which reader may take the answer that another one got. Pure: no clock, no I/O.

use std::sync::Arc;

use onceward_core::Schema;

use crate::log::cursor::{Cursor, Sequenced, Step};
use crate::log::durability::PublishAfter;
use crate::log::identity::Server;
use crate::log::read::{CursorRead, Read};
use crate::log::row::LogRow;

/// What a reader asks, and of whom.
///
/// An answer depends on what was asked, on the moment and on the server; not on who asked. So a stream that takes the answer of another
/// one's read is like a stream that read at that moment and was slow to go on. Three things make sure that it could have been that one:
///
/// - *The same run of the server.* Database, schema, system, timeline and the time of the server's start are the same: no answer outlives
///   a failover, a promotion or a restart, or goes to a copy that runs beside.
/// - *Nothing that a crash takes back.* A server may recover from a crash without a new start. Rows that were waited for until they were
///   durable are there behind it, and their numbers and transaction ids are not given again. So only an answer with rows goes to others,
///   and none under [`PublishAfter::Visible`].
/// - *The same promise.* `publish_after` is the same: what was waited for is what this reader waits for.
///
/// The lease has no part in it: whoever lost it is told when it stores, however it came to what it publishes.
#[derive(Debug, Clone)]
pub(in crate::log) struct Ask {
    pub(in crate::log) server: Server,
    pub(in crate::log) schema: Schema,
    pub(in crate::log) publish_after: PublishAfter,
    pub(in crate::log) reads: Vec<CursorRead>,
}

/// What came of an ask.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) ask: Ask,
    pub(super) read: Arc<Read>,
    /// What the rows of each step weigh.
    weights: Vec<usize>,
}

impl Answer {
    pub(super) fn new(ask: Ask, read: Read) -> Self {
        let weights = read.steps.iter().map(weight).collect();
        Self {
            ask,
            read: Arc::new(read),
            weights,
        }
    }

    /// Whether there is anything in it. What is not empty was waited for until it could be published.
    pub(super) fn is_empty(&self) -> bool {
        self.read.steps.iter().all(|step| step.rows.is_empty())
    }

    /// Whether `later` was asked for behind the last rows of this one, by the like of those who asked for this one.
    pub(super) fn stands_before(&self, later: &Self) -> bool {
        self.ask.is_alike(&later.ask) && self.end().eq(later.ask.place())
    }

    /// The numbers that whoever takes it stands behind.
    pub(super) fn end(&self) -> impl Iterator<Item = i64> {
        self.read.steps.iter().map(|step| step.after.last)
    }

    pub(super) fn weight(&self) -> usize {
        self.weights.iter().sum()
    }
}

fn weight(step: &Step<LogRow>) -> usize {
    step.rows.iter().map(|row| row.message.weight()).sum()
}

impl Ask {
    /// Whether anybody else may have an answer to this.
    pub(super) fn may_be_shared(&self) -> bool {
        match self.publish_after {
            PublishAfter::Visible => false,
            PublishAfter::Flushed | PublishAfter::Replicated(_) => true,
        }
    }

    /// Whether the answer to `asked`, which is being read, may turn out to be one to this.
    pub(super) fn may_await(&self, asked: &Self) -> bool {
        let mut pairs = self.reads.iter().zip(&asked.reads);
        self.is_alike(asked)
            && pairs.all(|(mine, asked)| {
                has_room(mine, asked) && stands_within(&mine.cursor, &asked.cursor)
            })
    }

    /// Whether this reader may take the answer.
    pub(super) fn may_take(&self, answer: &Answer) -> bool {
        let asked = &answer.ask;
        let steps = answer.read.steps.iter().zip(&answer.weights);
        let mut all = self.reads.iter().zip(&asked.reads).zip(steps);
        !answer.is_empty()
            && self.is_alike(asked)
            && all.all(|((mine, asked), (step, weight))| {
                let fits = step.rows.len() <= mine.limit && *weight <= mine.bytes;
                (has_room(mine, asked) || fits) && leads_on(&asked.cursor, step, &mine.cursor)
            })
    }

    /// Whether whatever `other` asks for may be taken, as far as there is room.
    pub(super) fn has_room_for(&self, other: &Self) -> bool {
        let mut pairs = self.reads.iter().zip(&other.reads);
        pairs.all(|(mine, asked)| has_room(mine, asked))
    }

    /// The numbers that whoever asks stands behind.
    pub(super) fn place(&self) -> impl Iterator<Item = i64> {
        self.reads.iter().map(|read| read.cursor.last)
    }

    /// Whether both ask the same server for the same lanes under the same promise.
    pub(super) fn is_alike(&self, other: &Self) -> bool {
        let lanes = self.reads.iter().map(|read| read.lane);
        self.may_be_shared()
            && self.server == other.server
            && self.schema == other.schema
            && self.publish_after == other.publish_after
            && lanes.eq(other.reads.iter().map(|read| read.lane))
    }
}

/// Whether what was asked is no more than what there is room for here.
fn has_room(mine: &CursorRead, asked: &CursorRead) -> bool {
    asked.limit <= mine.limit && asked.bytes <= mine.bytes
}

/// Whether `mine` has passed what `asked` has, and nothing beyond its last row.
///
/// Streams that stand behind the same row need not have read it at the same moment: an idle stream moves its snapshot with each read.
fn stands_within(mine: &Cursor, asked: &Cursor) -> bool {
    let is_no_page = mine.paging.is_none() && asked.paging.is_none();
    let is_level = (mine.last, mine.floor) == (asked.last, asked.floor);
    // Up to the floor nothing is ever late, whatever the snapshot sees.
    let may_be_late = mine.last > mine.floor;
    mine == asked
        || (is_no_page && is_level && (!may_be_late || mine.snapshot.sees_all_of(&asked.snapshot)))
}

/// Whether what a read brought for `asked` is what a read at that moment would have brought for `mine`, and leaves both at one place.
///
/// Behind the same last row, the new rows are the same. The late rows are not, if one of the two saw more than the other. What `mine`
/// saw besides is no reason to read again as long as the answer has no late rows at all: those of `mine` would be among them. And the
/// answer must have seen all that `mine` saw, or what was delivered for it would become late behind the answer, and come twice.
pub(in crate::log) fn leads_on<R: Sequenced>(
    asked: &Cursor,
    step: &Step<R>,
    mine: &Cursor,
) -> bool {
    let no_late = step.rows.first().is_none_or(|row| row.seq() > asked.last);
    let no_page = step.after.paging.is_none();
    let sees_all = step.after.snapshot.sees_all_of(&mine.snapshot);
    mine == asked || (stands_within(mine, asked) && no_late && no_page && sees_all)
}

//! How an attempt at a batch begins: whose key is held, then the marks of all others that are new.

use std::collections::{HashMap, HashSet};

use onceward_core::Origin;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{BatchOrder, Entry, Lot};
use crate::batch::order_of_marks;
use crate::faults::{Bug, planted};
use crate::line::line_of;
use crate::mark::{Mark, slot_of};
use crate::transaction::mark::{Marked, Row};
use crate::transaction::{ANSWER, Database, within};

/// A batch whose marks are written.
pub(super) struct Opened {
    pub(super) lots: Vec<Lot>,
    /// Those inserted.
    pub(super) marks: Vec<Uuid>,
    /// The first of them, for all.
    pub(super) first: Option<(Mark, Marked)>,
}

type MarksRow = (Vec<Uuid>, Option<String>, i32, OffsetDateTime);

impl Database {
    /// Opens a batch without those that have to be looked at alone. None: a key has been held meanwhile, and it is to be
    /// opened anew.
    ///
    /// Held keys are looked at before the marks, and once more behind them, as for one message. No line is locked: whoever
    /// leaves one would have to wait for the handler.
    pub(super) async fn open_batch(
        &self,
        connection: &mut PgConnection,
        order: &BatchOrder<'_>,
    ) -> Result<Option<Opened>, sqlx::Error> {
        let mut aside = self.too_old(connection, order).await?;
        let held = self.with_held_keys(connection, order, &aside).await?;
        aside.extend(held);
        let (marks, xid, pid, at) = self.insert_marks(connection, order, &aside).await?;
        // With marks there is a transaction that wrote them.
        let first = marks.first().zip(xid).map(|(first, xid)| {
            let (id, digest, row) = (*first, None, Row::Mark);
            (Mark { id, digest }, Marked { row, xid, pid, at })
        });
        if !self
            .with_held_keys(connection, order, &aside)
            .await?
            .is_empty()
        {
            return Ok(None);
        }
        let ours: HashSet<Uuid> = marks.iter().copied().collect();
        let others = order.entries.iter().map(|entry| entry.mark.id);
        let there = others.filter(|mark| !ours.contains(mark) && !aside.contains(mark));
        let digests = self.digests(connection, there.collect()).await?;
        let lot = |entry: &Entry<'_>| {
            let mark = entry.mark.id;
            let stored = digests.get(&mark).and_then(Option::as_deref);
            if ours.contains(&mark) {
                Lot::Ours
            } else if aside.contains(&mark) || entry.mark.conflicts_with(stored) {
                Lot::Alone
            } else {
                Lot::Duplicate
            }
        };
        Ok(Some(Opened {
            lots: order.entries.iter().map(lot).collect(),
            marks,
            first,
        }))
    }

    /// The marks of those that nobody can tell from what was settled. Looked at before the marks: if somebody settles one of
    /// the others meanwhile, its mark is new, and there.
    async fn too_old(
        &self,
        connection: &mut PgConnection,
        order: &BatchOrder<'_>,
    ) -> Result<HashSet<Uuid>, sqlx::Error> {
        let doubtful: Vec<&Entry<'_>> = order
            .entries
            .iter()
            .filter(|entry| entry.in_doubt)
            .collect();
        if doubtful.is_empty() {
            return Ok(HashSet::new());
        }
        let origins: Vec<&Origin> = doubtful.iter().map(|entry| entry.origin).collect();
        let passed = self.passed(connection, &origins).await?;
        let old = doubtful.iter().zip(passed).filter(|(_, passed)| *passed);
        Ok(old.map(|(entry, _)| entry.mark.id).collect())
    }

    async fn insert_marks(
        &self,
        connection: &mut PgConnection,
        order: &BatchOrder<'_>,
        aside: &HashSet<Uuid>,
    ) -> Result<MarksRow, sqlx::Error> {
        let new: Vec<&Entry<'_>> = order
            .entries
            .iter()
            .filter(|entry| !aside.contains(&entry.mark.id))
            .collect();
        let marks: Vec<Uuid> = new.iter().map(|entry| entry.mark.id).collect();
        let places = if planted(Bug::MarksInOrderOfArrival) {
            (0..marks.len()).collect()
        } else {
            order_of_marks(&marks)
        };
        let in_order = || places.iter().filter_map(|place| new.get(*place));
        let marks: Vec<Uuid> = in_order().map(|entry| entry.mark.id).collect();
        let slots: Vec<i16> = marks.iter().copied().map(slot_of).collect();
        let digests: Vec<Option<&[u8]>> = in_order()
            .map(|entry| entry.mark.digest.as_ref().map(|digest| &digest[..]))
            .collect();
        let insert = sqlx::query_as(self.statements.marks.sql())
            .bind(self.consumer.as_str())
            .bind(slots)
            .bind(marks)
            .bind(digests)
            .fetch_one(connection);
        within(order.deadline + ANSWER, insert).await
    }

    /// The digests beside marks that are there.
    async fn digests(
        &self,
        connection: &mut PgConnection,
        marks: Vec<Uuid>,
    ) -> Result<HashMap<Uuid, Option<Vec<u8>>>, sqlx::Error> {
        if marks.is_empty() {
            return Ok(HashMap::new());
        }
        let slots: Vec<i16> = marks.iter().copied().map(slot_of).collect();
        let ask = sqlx::query_as(self.statements.digests.sql())
            .bind(self.consumer.as_str())
            .bind(slots)
            .bind(marks)
            .fetch_all(connection);
        let rows: Vec<(Uuid, Option<Vec<u8>>)> = within(ANSWER, ask).await?;
        Ok(rows.into_iter().collect())
    }

    /// The marks of those, not aside, whose key is held. Nobody holds one of their keys for an earlier message after this
    /// member has seen that one settled.
    async fn with_held_keys(
        &self,
        connection: &mut PgConnection,
        order: &BatchOrder<'_>,
        aside: &HashSet<Uuid>,
    ) -> Result<Vec<Uuid>, sqlx::Error> {
        let keyed = order
            .entries
            .iter()
            .filter(|entry| entry.message.key.is_some() && !aside.contains(&entry.mark.id));
        let (marks, lines): (Vec<Uuid>, Vec<Uuid>) = keyed
            .map(|entry| (entry.mark.id, line_of(entry.message, entry.mark.id)))
            .unzip();
        if lines.is_empty() || planted(Bug::KeysInMemory) {
            return Ok(Vec::new());
        }
        let ask = sqlx::query_scalar(self.statements.held_lines.sql())
            .bind(self.consumer.as_str())
            .bind(&lines)
            .fetch_all(connection);
        let held: HashSet<Uuid> = within(ANSWER, ask).await?.into_iter().collect();
        let with = marks.into_iter().zip(lines);
        Ok(with
            .filter(|(_, line)| held.contains(line))
            .map(|(mark, _)| mark)
            .collect())
    }
}

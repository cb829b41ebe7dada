//! How an attempt at a batch begins: the marks of all that is new, and whose key is held.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use onceward_core::Origin;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{BatchOrder, Entry, Lot};
use crate::batch::order_of_marks;
use crate::faults::{Fault, planted};
use crate::history::History;
use crate::line::line_of;
use crate::stored::Stored;
use crate::transaction::mark::{Marked, Says};
use crate::transaction::{ANSWER, Database, Waiting, within};

/// A batch whose marks are written.
pub(super) struct Opened {
    pub(super) lots: Vec<Lot>,
    /// Of those inserted, lined up ones included: slot and id.
    pub(super) slots: Vec<i16>,
    pub(super) marks: Vec<Uuid>,
    /// One of those inserted.
    pub(super) marked: Option<Marked>,
}

type MarksRow = (Uuid, i16, String, i32, Option<OffsetDateTime>);

impl Database {
    /// The marks first, then, as a statement of its own, the held keys: as for one message.
    pub(super) async fn open_batch(
        &self,
        connection: &mut PgConnection,
        order: &BatchOrder<'_>,
    ) -> Result<Opened, sqlx::Error> {
        let old = self.too_old(connection, order).await?;
        let inserted = self.insert_marks(connection, order, &old).await?;
        let marked = inserted.first().map(|(_, slot, xid, pid, started)| Marked {
            slot: *slot,
            xid: xid.clone(),
            pid: *pid,
            backend_start: *started,
        });
        let (marks, slots): (Vec<Uuid>, Vec<i16>) = inserted
            .iter()
            .map(|(mark, slot, ..)| (*mark, *slot))
            .unzip();
        let ours: HashSet<Uuid> = marks.iter().copied().collect();
        let is_ours = |entry: &&Entry<'_>| ours.contains(&entry.mark.id);
        let is_old = |entry: &&Entry<'_>| old.contains(&entry.mark.id);
        let there = order
            .entries
            .iter()
            .filter(|entry| !is_ours(entry) && !is_old(entry));
        let digests = self
            .digests(connection, there.map(|entry| entry.mark.id).collect())
            .await?;
        let keyed = order.entries.iter().filter(is_ours);
        let keyed = keyed.filter(|entry| entry.message.key.is_some());
        let lines = keyed.map(|entry| line_of(entry.message, entry.mark.id));
        let held = self
            .held_lines(connection, lines.collect(), order.deadline)
            .await?;
        let mut lots = Vec::with_capacity(order.entries.len());
        for entry in order.entries {
            let stored = digests.get(&entry.mark.id).and_then(Option::as_deref);
            let conflicts = !is_ours(&entry) && entry.mark.conflicts_with(stored);
            lots.push(if conflicts || is_old(&entry) {
                Lot::Alone
            } else if !is_ours(&entry) {
                Lot::Duplicate
            } else if held.contains(&line_of(entry.message, entry.mark.id)) {
                Lot::LinedUp
            } else {
                Lot::Ours
            });
        }
        let opened = Opened {
            lots,
            slots,
            marks,
            marked,
        };
        self.line_up_held(connection, order, &opened).await?;
        Ok(opened)
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
        old: &HashSet<Uuid>,
    ) -> Result<Vec<MarksRow>, sqlx::Error> {
        let new: Vec<&Entry<'_>> = order
            .entries
            .iter()
            .filter(|entry| !old.contains(&entry.mark.id))
            .collect();
        let marks: Vec<Uuid> = new.iter().map(|entry| entry.mark.id).collect();
        let places = if planted(Fault::MarksInOrderOfArrival) {
            (0..marks.len()).collect()
        } else {
            order_of_marks(&marks)
        };
        let in_order = || places.iter().filter_map(|place| new.get(*place));
        let marks: Vec<Uuid> = in_order().map(|entry| entry.mark.id).collect();
        let digests: Vec<Option<&[u8]>> = in_order()
            .map(|entry| entry.mark.digest.as_ref().map(|digest| &digest[..]))
            .collect();
        let insert = sqlx::query_as(self.statements.marks.sql())
            .bind(self.consumer.as_str())
            .bind(marks)
            .bind(digests)
            .fetch_all(connection);
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
        let ask = sqlx::query_as(self.statements.digests.sql())
            .bind(self.consumer.as_str())
            .bind(marks)
            .fetch_all(connection);
        let rows: Vec<(Uuid, Option<Vec<u8>>)> = within(ANSWER, ask).await?;
        Ok(rows.into_iter().collect())
    }

    /// Which of these lines are held. Nobody can end one of them before this transaction.
    async fn held_lines(
        &self,
        connection: &mut PgConnection,
        lines: HashSet<Uuid>,
        deadline: Duration,
    ) -> Result<HashSet<Uuid>, sqlx::Error> {
        if lines.is_empty() || planted(Fault::KeysInMemory) {
            return Ok(HashSet::new());
        }
        let ask = sqlx::query_scalar(self.statements.held_lines.sql())
            .bind(self.consumer.as_str())
            .bind(lines.into_iter().collect::<Vec<Uuid>>())
            .fetch_all(connection);
        let held: Vec<Uuid> = within(deadline + ANSWER, ask).await?;
        Ok(held.into_iter().collect())
    }

    /// Defers those whose key is held behind those of their key that wait, without a handler.
    async fn line_up_held(
        &self,
        connection: &mut PgConnection,
        order: &BatchOrder<'_>,
        opened: &Opened,
    ) -> Result<(), sqlx::Error> {
        for (entry, lot) in order.entries.iter().zip(&opened.lots) {
            let slot = opened
                .slot_of(entry.mark.id)
                .filter(|_| *lot == Lot::LinedUp);
            let (Some(slot), Some(marked)) = (slot, &opened.marked) else {
                continue;
            };
            let marked = Marked {
                slot,
                ..marked.clone()
            };
            self.change_mark(connection, entry.mark, &marked, Says::Deferred)
                .await?;
            let waiting = Waiting {
                mark: entry.mark,
                line: line_of(entry.message, entry.mark.id),
                content: &Stored::of_message(entry.message, entry.origin),
                attempts: 0,
                history: &History::default(),
                error: "",
                delay: Duration::ZERO,
            };
            self.add(connection, &waiting).await?;
        }
        Ok(())
    }
}

impl Opened {
    fn slot_of(&self, mark: Uuid) -> Option<i16> {
        let place = self.marks.iter().position(|one| *one == mark)?;
        self.slots.get(place).copied()
    }
}

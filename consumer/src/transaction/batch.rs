//! One attempt at several messages: all marks, handler, proof, commit.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use onceward_core::{Message, Origin};
use sqlx::PgConnection;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::attempt::ended_by_handler;
use super::ended::{Ended, after_commit, handle_batch, without_mark};
use super::mark::{Marked, Says};
use super::{ANSWER, COMMIT, Database, ROLL_BACK, Ran, Waiting, within};
use crate::alarm::Alarm;
use crate::batch::{AnyBatch, order_of_marks};
use crate::faults::{Failpoint, Fault, pass, planted};
use crate::handler::HandlerError;
use crate::history::History;
use crate::line::line_of;
use crate::mark::Mark;
use crate::plan::Run;
use crate::session::Session;
use crate::stored::Stored;
use crate::trouble::{Trouble, chain, classify};

/// How long a batch waits for a lock: one message that somebody else works on must not hold up the others for long.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is to be run.
pub(crate) struct BatchOrder<'a> {
    pub(crate) handler: &'a dyn AnyBatch,
    /// Those of a key in their order; no mark twice.
    pub(crate) entries: &'a [Entry<'a>],
    pub(crate) deadline: Duration,
    /// As of an [`Order`](super::Order).
    pub(crate) kill: &'a CancellationToken,
    pub(crate) alarm: &'a Alarm,
}

/// A message of a batch.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub(crate) message: &'a Arc<Message>,
    pub(crate) mark: &'a Mark,
    pub(crate) origin: &'a Origin,
}

/// What a batch means for one of its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lot {
    /// The mark is ours, and the handler gets it.
    Ours,
    /// The mark is ours; its key is held, and it waits behind those of its key.
    LinedUp,
    /// The mark was there.
    Duplicate,
    /// The mark was there, and is that of another message.
    Conflict,
}

/// What an attempt at a batch came to, with its error for people.
#[derive(Debug)]
pub(crate) struct BatchRan {
    pub(crate) run: Run,
    pub(crate) error: String,
    /// The transaction that the handler ended by itself.
    pub(crate) ended: Option<String>,
    /// Of each message, as far as the attempt came. They hold only if the transaction was committed, by us or by the handler.
    pub(crate) lots: Vec<Lot>,
}

impl BatchRan {
    pub(crate) fn new(run: Run, error: impl Into<String>) -> Self {
        Ran::new(run, error).into()
    }
}

impl From<Ran> for BatchRan {
    fn from(ran: Ran) -> Self {
        Self {
            run: ran.run,
            error: ran.error,
            ended: ran.ended,
            lots: Vec::new(),
        }
    }
}

/// A batch whose marks are written.
struct Opened {
    lots: Vec<Lot>,
    /// Of those inserted, lined up ones included: slot and id.
    slots: Vec<i16>,
    marks: Vec<Uuid>,
    /// One of those inserted.
    marked: Option<Marked>,
}

type MarksRow = (Uuid, i16, String, i32, Option<OffsetDateTime>);

impl Database {
    /// Runs the handler once for all that is new of the batch, in the transaction of its marks.
    pub(crate) async fn attempt_batch(&self, order: &BatchOrder<'_>) -> BatchRan {
        let begun = self.begin_with(order.deadline, PATIENCE).await;
        let mut session = match begun {
            Ok(session) => session,
            Err(error) => return BatchRan::new(Run::Outage, chain(&error)),
        };
        pass(Failpoint::BeforeMark);
        let opened = match self.open_batch(session.connection(), order).await {
            Ok(opened) => opened,
            Err(error) => {
                session.roll_back(ROLL_BACK).await;
                return BatchRan::new(without_mark(classify(&error)), chain(&error));
            }
        };
        let ran = match &opened.marked {
            Some(marked) => self.run_batch(order, session, &opened, marked).await,
            None => {
                session.roll_back(ROLL_BACK).await;
                Ran::new(Run::Handled, "")
            }
        };
        BatchRan {
            lots: opened.lots,
            ..ran.into()
        }
    }

    /// The marks first, then, as a statement of its own, the held keys: as for one message.
    async fn open_batch(
        &self,
        connection: &mut PgConnection,
        order: &BatchOrder<'_>,
    ) -> Result<Opened, sqlx::Error> {
        let inserted = self.insert_marks(connection, order).await?;
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
        let there = order.entries.iter().filter(|entry| !is_ours(entry));
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
            lots.push(if !is_ours(&entry) && entry.mark.conflicts_with(stored) {
                Lot::Conflict
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

    async fn insert_marks(
        &self,
        connection: &mut PgConnection,
        order: &BatchOrder<'_>,
    ) -> Result<Vec<MarksRow>, sqlx::Error> {
        let marks: Vec<Uuid> = order.entries.iter().map(|entry| entry.mark.id).collect();
        let places = if planted(Fault::MarksInOrderOfArrival) {
            (0..marks.len()).collect()
        } else {
            order_of_marks(&marks)
        };
        let in_order = || places.iter().filter_map(|place| order.entries.get(*place));
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

    /// Runs the handler for those whose turn it is, and commits.
    async fn run_batch(
        &self,
        order: &BatchOrder<'_>,
        session: Session,
        opened: &Opened,
        marked: &Marked,
    ) -> Ran {
        let deadline = Instant::now() + order.deadline;
        let ours = order.entries.iter().zip(&opened.lots);
        let ours = ours.filter(|(_, lot)| **lot == Lot::Ours);
        let (messages, marks): (Vec<Arc<Message>>, Vec<Uuid>) = ours
            .map(|(entry, _)| (entry.message.clone(), entry.mark.id))
            .unzip();
        let (session, ended) = if messages.is_empty() {
            (session, Ended::Done)
        } else {
            let content = (messages.into(), marks.into());
            handle_batch(order, content, session, deadline).await
        };
        pass(Failpoint::AfterHandler);
        let (session, ended) = match ended {
            Ended::Done => match self.finish_batch(order, session, opened, marked).await {
                Ok(ran) => return ran,
                Err((session, error)) => (session, Ended::Failed(error)),
            },
            Ended::Failed(_) | Ended::Panicked(_) | Ended::Deadline | Ended::Killed => {
                (session, ended)
            }
        };
        let ended = ended.in_time(deadline);
        // If the handler has committed, it has committed all marks alike.
        let mark = Mark {
            id: opened.marks.first().copied().unwrap_or_default(),
            digest: None,
        };
        self.undo((&mark, marked), session, ended, order.deadline)
            .await
    }

    /// Proves all marks and commits. An error is to be undone.
    async fn finish_batch(
        &self,
        order: &BatchOrder<'_>,
        mut session: Session,
        opened: &Opened,
        marked: &Marked,
    ) -> Result<Ran, (Session, HandlerError)> {
        if session.has_savepoint() {
            let error = HandlerError::from("the handler has left a savepoint open");
            return Err((session, error));
        }
        let proven = self
            .prove_all(session.connection(), opened, order.deadline)
            .await;
        match proven {
            Ok(true) => {}
            Ok(false) => {
                session.roll_back(ROLL_BACK).await;
                return Ok(ended_by_handler(marked));
            }
            Err(error) if classify(&error) == Trouble::Aborted => {
                let error = HandlerError::from("a statement failed and the handler went on");
                return Err((session, error));
            }
            Err(error) => return Err((session, HandlerError::from(error))),
        }
        pass(Failpoint::BeforeCommit);
        Ok(match within(COMMIT, session.commit()).await {
            Ok(()) => Ran::new(Run::Handled, ""),
            Err(error) => Ran::new(after_commit(classify(&error)), chain(&error)),
        })
    }

    async fn prove_all(
        &self,
        connection: &mut PgConnection,
        opened: &Opened,
        deadline: Duration,
    ) -> Result<bool, sqlx::Error> {
        if planted(Fault::CommitWithoutProof) {
            return Ok(true);
        }
        let ask = sqlx::query_as(self.statements.proofs.sql())
            .bind(self.consumer.as_str())
            .bind(&opened.slots)
            .bind(&opened.marks)
            .fetch_one(connection);
        let (count, _): (i64, String) = within(deadline + ANSWER, ask).await?;
        Ok(usize::try_from(count) == Ok(opened.marks.len()))
    }
}

impl Opened {
    fn slot_of(&self, mark: Uuid) -> Option<i16> {
        let place = self.marks.iter().position(|one| *one == mark)?;
        self.slots.get(place).copied()
    }
}

//! One attempt: mark, handler, proof, commit.

use std::sync::Arc;
use std::time::{Duration, Instant};

use onceward_core::{Message, Origin};
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::ended::{Ended, SAVEPOINT, after_commit, handle, unproven, without_mark};
use super::guard::Guard;
use super::line::Follower;
use super::mark::{Marked, Proof, Says};
use super::opened::{Opened, PAUSED, Refused};
use super::undo::{Undo, ended_by_handler};
use super::{COMMIT, Claimed, Database, ROLL_BACK, Waiting, within};
use crate::alarm::Alarm;
use crate::faults::{Bug, Failpoint, pass, planted};
use crate::handler::{AnyHandler, HandlerError};
use crate::history::History;
use crate::joining::waits_already;
use crate::line::line_of;
use crate::mark::Mark;
use crate::plan::{Run, Until};
use crate::sequence::{Besides, Taken};
use crate::session::Session;
use crate::stored::Stored;
use crate::trouble::{chain, classify};

/// What is to be run.
pub(crate) struct Order<'a> {
    pub(crate) handler: &'a dyn AnyHandler,
    pub(crate) message: &'a Arc<Message>,
    pub(crate) mark: &'a Mark,
    /// Counted from 1.
    pub(crate) attempt: u32,
    pub(crate) deadline: Duration,
    /// Ends the handler as its deadline would, without an attempt.
    pub(crate) kill: &'a CancellationToken,
    /// Rings when the handler does not end at its deadline.
    pub(crate) alarm: &'a Alarm,
    /// Keeps its start, if it may kill its process.
    pub(crate) guard: Option<Guard<'a>>,
}

/// How a delivery lines up, should its key be held.
pub(crate) struct Place<'a> {
    /// None: it has no key, and waits behind nobody.
    pub(crate) line: Option<Uuid>,
    /// Whether its mark may have been forgotten.
    pub(crate) in_doubt: bool,
    /// Its type, if that is paused: then it lines up until that is resumed, and is not handled.
    pub(crate) waits_for: Option<&'a str>,
    pub(crate) origin: &'a Origin,
    pub(crate) history: &'a History,
}

/// Why a delivery lines up.
struct Behind<'a> {
    line: Uuid,
    until: Until<'a>,
    error: &'a str,
}

/// What an attempt came to, with its error for people.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) run: Run,
    pub(crate) error: String,
    /// The transaction that the handler ended by itself.
    pub(crate) ended: Option<String>,
    /// Who follows in the line, if this one has left it.
    pub(crate) next: Option<Follower>,
}

impl Ran {
    pub(crate) fn new(run: Run, error: impl Into<String>) -> Self {
        Self {
            run,
            error: error.into(),
            ended: None,
            next: None,
        }
    }
}

impl Database {
    /// Runs the handler once, in the transaction of the mark.
    pub(crate) async fn attempt(&self, order: &Order<'_>, place: &Place<'_>) -> Ran {
        #[cfg(feature = "faults")]
        if planted(Bug::DedupeOutside) {
            return self.attempt_with_dedupe_outside(order).await;
        }
        let guarded = order.guard.is_some();
        let mut session = match self.begin_attempt(order.deadline, guarded).await {
            Ok(session) => session,
            Err(error) => return Ran::new(Run::Outage, chain(&error)),
        };
        pass(Failpoint::BeforeMark);
        match self.open(&mut session, order, place).await {
            Ok(Opened::Free(marked)) => match place.waits_for {
                None => self.run(order, session, &marked, None).await,
                Some(kind) => {
                    let behind = Behind {
                        line: line_of(order.message, order.mark.id),
                        until: Until::Resumed { kind, tried: false },
                        error: PAUSED,
                    };
                    self.line_up(order, place, behind, session, &marked).await
                }
            },
            Ok(Opened::Held(marked, line)) => {
                let behind = Behind {
                    line,
                    until: Until::After(Duration::ZERO),
                    error: "",
                };
                self.line_up(order, place, behind, session, &marked).await
            }
            Ok(Opened::Not(refused)) => {
                session.roll_back(ROLL_BACK).await;
                refused.ran()
            }
            Err(error) => {
                session.roll_back(ROLL_BACK).await;
                Ran::new(without_mark(classify(&error)), chain(&error))
            }
        }
    }

    /// The mark first: whoever inserts it decides. Only then whether its key is held: a look before it
    /// has waited for the mark would miss who lined up meanwhile.
    async fn open(
        &self,
        session: &mut Session,
        order: &Order<'_>,
        place: &Place<'_>,
    ) -> Result<Opened, sqlx::Error> {
        let connection = session.connection();
        let line = place.line.filter(|_| !planted(Bug::KeysInMemory));
        if let Some(asked) = self.numbered(order.message) {
            let taken = self.take_number(connection, &asked, order.deadline);
            match taken.await? {
                Taken::Ours {
                    written,
                    besides: Besides::Nothing,
                } => {
                    let is_held = match line {
                        Some(line) => self.is_held(connection, line, order.deadline).await?,
                        None => false,
                    };
                    let behind = line.filter(|_| is_held);
                    return self.opened(connection, place, written, behind).await;
                }
                Taken::Ours {
                    besides: Besides::Mark,
                    ..
                } => {}
                Taken::Settled => return Ok(Opened::Not(Refused::Settled)),
                Taken::Reused(_) => return Ok(Opened::Not(Refused::Reused)),
                Taken::Unknown => return Ok(Opened::Not(Refused::Unknown)),
            }
        }
        let marked = self
            .insert_mark_of_line(connection, order.mark, line, Says::Handled, order.deadline)
            .await?;
        let Some((marked, is_held)) = marked else {
            let conflict = self.is_conflict(connection, order.mark).await?;
            return Ok(Opened::Not(if conflict {
                Refused::Conflict
            } else {
                Refused::Settled
            }));
        };
        let behind = line.filter(|_| is_held);
        self.opened(connection, place, marked, behind).await
    }

    /// `behind`: the line where earlier messages of its key wait.
    async fn opened(
        &self,
        connection: &mut PgConnection,
        place: &Place<'_>,
        marked: Marked,
        behind: Option<Uuid>,
    ) -> Result<Opened, sqlx::Error> {
        // A number may be new to its key, and the message have been settled by its mark before the consumer went by numbers.
        if place.in_doubt && self.passed(connection, &[place.origin]).await? == [true] {
            return Ok(Opened::Not(Refused::TooOld));
        }
        Ok(match behind {
            Some(line) => Opened::Held(marked, line),
            None => Opened::Free(marked),
        })
    }

    /// Defers a delivery without a handler: behind those of its key that wait, or until its type is resumed.
    async fn line_up(
        &self,
        order: &Order<'_>,
        place: &Place<'_>,
        behind: Behind<'_>,
        mut session: Session,
        marked: &Marked,
    ) -> Ran {
        let content = Stored::of_message(order.message, place.origin);
        let waiting = Waiting {
            mark: order.mark,
            line: behind.line,
            content: &content,
            // It waits for others; that is no attempt.
            attempts: order.attempt - 1,
            history: place.history,
            error: behind.error,
            until: behind.until,
        };
        let connection = session.connection();
        let written = async {
            let ours = self
                .mark_deferred(connection, order.mark, marked, order.deadline)
                .await?;
            if ours {
                self.add(connection, &waiting).await?;
            }
            Ok(ours)
        };
        match written.await {
            Ok(true) => {}
            Ok(false) => {
                session.roll_back(ROLL_BACK).await;
                return Ran::new(Run::Duplicate, "");
            }
            Err(error) => {
                session.roll_back(ROLL_BACK).await;
                let run = if waits_already(&error) {
                    Run::Duplicate
                } else {
                    without_mark(classify(&error))
                };
                return Ran::new(run, chain(&error));
            }
        }
        pass(Failpoint::BeforeCommit);
        match within(COMMIT, session.commit()).await {
            Ok(()) => Ran::new(Run::LinedUp, ""),
            Err(error) => Ran::new(without_mark(classify(&error)), chain(&error)),
        }
    }

    /// Runs the handler, whose mark is written. `claimed`: the message comes from its line, and leaves it.
    pub(super) async fn run(
        &self,
        order: &Order<'_>,
        session: Session,
        marked: &Marked,
        claimed: Option<&Claimed>,
    ) -> Ran {
        if let Err(ran) = Self::may_start(order).await {
            session.roll_back(ROLL_BACK).await;
            return ran;
        }
        let deadline = Instant::now() + order.deadline;
        let (session, ended) = handle(order, session, deadline).await;
        pass(Failpoint::AfterHandler);
        let (session, ended) = match ended {
            Ended::Done => match self.finish(order, session, marked, claimed).await {
                Ok(ran) => return ran,
                Err((session, error)) => (session, Ended::Failed(error)),
            },
            Ended::Failed(_) | Ended::Panicked(_) | Ended::Deadline | Ended::Killed => {
                (session, ended)
            }
        };
        // While the transaction is open: once it is not, another member may find the start, and take us for dead. Beside it the
        // database is asked at once, as whether it can be reached now tells an outage from a deadline.
        let ended = ended.in_time(deadline);
        let (reached, ()) = tokio::join!(self.reach(&ended, marked), Self::has_ended(order));
        let undo = Undo {
            mark: order.mark,
            marked,
            ended,
            reached,
            deadline: order.deadline,
        };
        self.undo(session, undo).await
    }

    /// Proves the mark and commits. An error is to be undone.
    async fn finish(
        &self,
        order: &Order<'_>,
        mut session: Session,
        marked: &Marked,
        claimed: Option<&Claimed>,
    ) -> Result<Ran, (Session, HandlerError)> {
        if session.has_savepoint() {
            return Err((session, HandlerError::from(SAVEPOINT)));
        }
        let next = match self.check(order, &mut session, marked, claimed).await {
            Ok(Some(next)) => next,
            Ok(None) => {
                Self::has_ended(order).await;
                session.roll_back(ROLL_BACK).await;
                return Ok(ended_by_handler(marked));
            }
            Err(error) => return Err((session, unproven(error))),
        };
        pass(Failpoint::BeforeCommit);
        Ok(match within(COMMIT, session.commit()).await {
            Ok(()) => Ran {
                next,
                ..Ran::new(Run::Handled, "")
            },
            Err(error) => {
                Self::has_ended(order).await;
                Ran::new(after_commit(classify(&error)), chain(&error))
            }
        })
    }

    /// Takes a claimed message out of its line, between two proofs of the mark: after a transaction that the handler
    /// has ended, its row would be gone by itself. None: the mark is not ours; else who follows in the line.
    async fn check(
        &self,
        order: &Order<'_>,
        session: &mut Session,
        marked: &Marked,
        claimed: Option<&Claimed>,
    ) -> Result<Option<Option<Follower>>, sqlx::Error> {
        if planted(Bug::CommitWithoutProof) && claimed.is_none() {
            return Ok(Some(None));
        }
        if order.guard.is_some() {
            self.forget_starts(session.connection(), &[order.mark.id])
                .await?;
        }
        let mut next = None;
        if let Some(claimed) = claimed {
            if !self.is_ours(order, session, marked).await? {
                return Ok(None);
            }
            let goes_on = claimed.due.goes_on();
            next = self
                .leave_line(session.connection(), claimed, goes_on)
                .await?;
        }
        let ours = self.is_ours(order, session, marked).await?;
        Ok(ours.then_some(next))
    }

    async fn is_ours(
        &self,
        order: &Order<'_>,
        session: &mut Session,
        marked: &Marked,
    ) -> Result<bool, sqlx::Error> {
        if planted(Bug::CommitWithoutProof) {
            return Ok(true);
        }
        let proof = self
            .prove(session.connection(), marked, order.deadline)
            .await?;
        Ok(proof == Proof::Ours)
    }
}

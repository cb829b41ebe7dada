//! Messages that wait: which lines are due, and what is done with the first of one.

use std::sync::Arc;
use std::time::Duration;

use onceward_core::Message;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use super::ended::without_mark;
use super::line::duration;
use super::mark::Says;
use super::settle::DEADLINE;
use super::{ANSWER, COMMIT, Database, Order, ROLL_BACK, Ran, conclude, within};
use crate::dead_letter::Letter;
use crate::faults::{Failpoint, pass};
use crate::history::{Attempt, History};
use crate::joining::seconds;
use crate::mark::Mark;
use crate::plan::{LEASE, Run, Settling, Until};
use crate::session::Session;
use crate::stored::Stored;
use crate::trouble::{chain, classify, clean};

/// How many more messages of a line are worked on before it is looked for again.
const IN_A_ROW: u32 = 16;

/// A line whose first message is due, which is ours for a while. That keeps others from looking at it in vain; whoever claims the
/// message has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DueLine {
    pub(crate) line: Uuid,
    /// The type of that message, as far as anybody knows before it is claimed.
    pub(crate) kind: String,
    /// How many messages of the line were worked on since it was looked for.
    pub(crate) in_a_row: u32,
}

/// What is due.
#[derive(Debug)]
pub(crate) struct Due {
    pub(crate) lines: Vec<DueLine>,
    /// When more will be; none: nothing waits. Zero: there is more already, for which there was no room or which somebody else has locked.
    pub(crate) next: Option<Duration>,
}

/// The first message of a line, while this transaction holds it.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(crate) id: i64,
    /// The line whose first one it is.
    pub(crate) due: DueLine,
    pub(crate) mark: Mark,
    pub(crate) content: Stored,
    pub(crate) message: Arc<Message>,
    /// So far.
    pub(crate) attempts: u32,
    /// Of them, those that no longer count against the limit.
    pub(crate) forgiven: u32,
    pub(crate) history: History,
    /// The dead letter that was replayed.
    pub(crate) dead_letter: Option<i64>,
}

#[derive(FromRow)]
struct Row {
    id: i64,
    message_id: Uuid,
    digest: Option<Vec<u8>>,
    #[sqlx(flatten)]
    content: Stored,
    attempts: i32,
    forgiven: i32,
    history: Json<Vec<Attempt>>,
    dead_letter: Option<i64>,
}

/// What is to become of a claimed message without its handler.
pub(crate) enum Verdict<'a> {
    Dead {
        letter: Letter<'a>,
        /// The transaction in which the handler has committed the mark by itself.
        ended: Option<&'a str>,
    },
    Ignored,
    Expired,
    /// It waits again, at the head of its line, after an attempt that counts.
    PutOff {
        delay: Duration,
        attempts: u32,
        history: &'a History,
        error: &'a str,
    },
    /// It waits for its type, at the head of its line, as it was.
    WaitForType {
        kind: &'a str,
        /// As of [`Until::Resumed`].
        tried: bool,
    },
}

impl Database {
    /// Takes lines that are due, at most `limit`, for [`LEASE`]; with the database's time.
    pub(crate) async fn due(&self, limit: usize) -> Result<(OffsetDateTime, Due), sqlx::Error> {
        let mut session = self.begin_brief().await?;
        let connection = session.connection();
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let look = async {
            let taken = sqlx::query_as::<_, (Uuid, Option<String>)>(self.statements.due.sql());
            let taken = taken
                .bind(self.consumer.as_str())
                .bind(limit)
                .bind(LEASE.as_secs_f64())
                .fetch_all(&mut *connection)
                .await?;
            let lines = taken
                .into_iter()
                .filter_map(|(line, kind)| Some(DueLine::found(line, kind?)));
            let (now, next) = sqlx::query_as(self.statements.next_due.sql())
                .bind(self.consumer.as_str())
                .fetch_one(&mut *connection)
                .await?;
            let due = Due {
                lines: lines.collect(),
                next: Option::map(next, duration),
            };
            Ok((now, due))
        };
        let looked = within(ANSWER, look).await;
        conclude(session, looked).await
    }

    /// Moves the end of the lease of a line that is ours: zero lets others have it at once.
    pub(crate) async fn lease(&self, line: Uuid, lasts: Duration) -> Result<(), sqlx::Error> {
        let mut session = self.begin_brief().await?;
        let lease = sqlx::query(self.statements.lease_line.sql())
            .bind(self.consumer.as_str())
            .bind(line)
            .bind(lasts.as_secs_f64())
            .bind(LEASE.as_secs_f64())
            .execute(session.connection());
        let leased = within(ANSWER, lease).await;
        conclude(session, leased).await.map(drop)
    }

    /// Begins a transaction that holds the first message of a line. None: it is not due any more, or somebody works on it.
    pub(crate) async fn claim(
        &self,
        due: &DueLine,
        deadline: Duration,
    ) -> Result<Option<(Session, Claimed)>, sqlx::Error> {
        let mut session = self.begin_attempt(deadline, true).await?;
        let ask = sqlx::query_as::<_, Row>(self.statements.claim.sql())
            .bind(self.consumer.as_str())
            .bind(due.line)
            .fetch_optional(session.connection());
        match within(ANSWER, ask).await {
            Ok(Some(row)) => Ok(Some((session, Claimed::new(due, row)))),
            Ok(None) => {
                session.roll_back(ROLL_BACK).await;
                Ok(None)
            }
            Err(error) => {
                session.roll_back(ROLL_BACK).await;
                Err(error)
            }
        }
    }

    /// Runs the handler of a claimed message once, in the transaction that has claimed it.
    pub(crate) async fn retry(
        &self,
        order: &Order<'_>,
        mut session: Session,
        claimed: &Claimed,
    ) -> Ran {
        pass(Failpoint::BeforeMark);
        let taken = self
            .take_up(
                session.connection(),
                order.mark,
                Says::Handled,
                order.deadline,
            )
            .await;
        match taken {
            Ok(Some(marked)) => self.run(order, session, &marked, Some(claimed)).await,
            Ok(None) => self.drop_finished(session, claimed).await,
            Err(error) => {
                session.roll_back(ROLL_BACK).await;
                Ran::new(without_mark(classify(&error)), chain(&error))
            }
        }
    }

    /// Somebody else has finished it: it only has to leave its line.
    async fn drop_finished(&self, mut session: Session, claimed: &Claimed) -> Ran {
        let goes_on = claimed.due.goes_on();
        let left = self
            .leave_line(session.connection(), claimed, goes_on)
            .await;
        let next = match left {
            Ok(next) => next,
            Err(error) => {
                session.roll_back(ROLL_BACK).await;
                return Ran::new(without_mark(classify(&error)), chain(&error));
            }
        };
        match within(COMMIT, session.commit()).await {
            Ok(()) => Ran {
                next,
                ..Ran::new(Run::Duplicate, "")
            },
            Err(error) => Ran::new(without_mark(classify(&error)), chain(&error)),
        }
    }

    /// Writes what is to become of a message that was claimed before, in a transaction of its own. Tells besides when
    /// the first of its line is due; none: the line has ended.
    pub(crate) async fn settle_claimed(
        &self,
        claimed: &Claimed,
        verdict: &Verdict<'_>,
    ) -> Result<(Settling, Option<Duration>), sqlx::Error> {
        let mut session = self.begin(DEADLINE).await?;
        match self.write_claimed(&mut session, claimed, verdict).await {
            Ok((Settling::Elsewhere, next)) => {
                session.roll_back(ROLL_BACK).await;
                Ok((Settling::Elsewhere, next))
            }
            Ok(written) => {
                pass(Failpoint::BeforeCommit);
                within(COMMIT, session.commit()).await?;
                Ok(written)
            }
            Err(error) => {
                session.roll_back(ROLL_BACK).await;
                Err(error)
            }
        }
    }

    async fn write_claimed(
        &self,
        session: &mut Session,
        claimed: &Claimed,
        verdict: &Verdict<'_>,
    ) -> Result<(Settling, Option<Duration>), sqlx::Error> {
        let connection = session.connection();
        let attempts = i32::try_from(claimed.attempts).unwrap_or(i32::MAX);
        let lock = sqlx::query(self.statements.lock.sql())
            .bind(claimed.id)
            .bind(attempts)
            .fetch_optional(&mut *connection);
        if within(ANSWER, lock).await?.is_none() {
            return Ok((Settling::Elsewhere, None));
        }
        let (says, ended) = match verdict {
            Verdict::Dead { ended, .. } => (Says::Dead, *ended),
            Verdict::Ignored => (Says::Ignored, None),
            Verdict::Expired => (Says::Expired, None),
            Verdict::PutOff { .. } | Verdict::WaitForType { .. } => {
                let delay = self.put_off(connection, claimed, verdict).await?;
                return Ok((Settling::Written, Some(delay)));
            }
        };
        let mark = &claimed.mark;
        let taken = self.take_up(connection, mark, says, DEADLINE).await?;
        let ours = match (taken, ended) {
            (Some(_), _) => true,
            (None, Some(xid)) => self.take_over(connection, mark, xid, says).await?,
            (None, None) => false,
        };
        if let (true, Verdict::Dead { letter, .. }) = (ours, verdict) {
            self.write_letter(connection, mark, letter, claimed.dead_letter)
                .await?;
        }
        let next = self.leave_line(connection, claimed, false).await?;
        let next = next.map(|follower| follower.due);
        let settling = if ours {
            Settling::Written
        } else {
            Settling::Duplicate
        };
        Ok((settling, next))
    }

    /// Says until when a message waits that stays at the head of its line.
    async fn put_off(
        &self,
        connection: &mut PgConnection,
        claimed: &Claimed,
        verdict: &Verdict<'_>,
    ) -> Result<Duration, sqlx::Error> {
        let until = match verdict {
            Verdict::PutOff {
                delay,
                attempts,
                history,
                error,
            } => {
                let put_off = sqlx::query(self.statements.put_off.sql())
                    .bind(claimed.id)
                    .bind(seconds(*delay))
                    .bind(i32::try_from(*attempts).unwrap_or(i32::MAX))
                    .bind(Json(history.attempts()))
                    .bind(clean(error))
                    .execute(&mut *connection);
                within(DEADLINE + ANSWER, put_off).await?;
                Until::After(*delay)
            }
            Verdict::WaitForType { kind, tried } => Until::Resumed {
                kind,
                tried: *tried,
            },
            // They leave the line.
            Verdict::Dead { .. } | Verdict::Ignored | Verdict::Expired => {
                Until::After(Duration::ZERO)
            }
        };
        let wait = self.wait_of_line(connection, until).await?;
        let due = seconds(wait.delay);
        self.move_line(connection, claimed.due.line, due, wait.waits_for)
            .await?;
        Ok(wait.delay)
    }
}

impl DueLine {
    /// As a look has found it.
    pub(crate) fn found(line: Uuid, kind: String) -> Self {
        Self {
            line,
            kind,
            in_a_row: 0,
        }
    }

    /// Whether its next message is worked on at once. Not for ever: others are due too, which nobody looks for meanwhile.
    pub(crate) fn goes_on(&self) -> bool {
        self.in_a_row < IN_A_ROW
    }

    /// The same line, whose next message is due already.
    pub(crate) fn again(&self, kind: String) -> Self {
        Self {
            line: self.line,
            kind,
            in_a_row: self.in_a_row + 1,
        }
    }
}

impl Claimed {
    fn new(due: &DueLine, row: Row) -> Self {
        let digest = row.digest.and_then(|digest| digest.try_into().ok());
        Self {
            id: row.id,
            due: due.clone(),
            mark: Mark {
                id: row.message_id,
                digest,
            },
            message: Arc::new(row.content.message(row.message_id)),
            content: row.content,
            attempts: u32::try_from(row.attempts).unwrap_or(0),
            forgiven: u32::try_from(row.forgiven).unwrap_or(0),
            history: History::from(row.history.0),
            dead_letter: row.dead_letter,
        }
    }
}

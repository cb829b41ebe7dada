//! The producer's numbers in the place of the mark: taking one, which decides, and its proof.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use onceward_core::Message;
use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;
use tracing::warn;
use uuid::Uuid;

use super::mark::{Marked, Says};
use super::settle::DEADLINE;
use super::{ANSWER, Database, SettleAs, ToSettle, within};
use crate::faults::{Fault, planted};
use crate::mark::Mark;
use crate::plan::DeadReason;
use crate::sequence::{self, Gaps, Numbered, Numbers, judge};

/// How often a key's row is looked for again that somebody has made, and then somebody else deleted.
const LOOKS: u32 = 3;

/// A consumer that dedupes by sequence.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sequences {
    /// Whether a sequence that is no number was told of.
    told: Arc<OnceLock<()>>,
}

/// What has become of a number.
pub(super) enum Taken {
    /// It is this transaction's. `mark`: unless its message's mark is there.
    Ours { marked: Marked, mark: bool },
    /// Its message was settled before.
    Settled,
    /// As of [`sequence::Says`]; here with the numbers of the key.
    Reused(Numbers),
    /// As of [`sequence::Says`].
    Unknown,
}

/// Who decides whether a delivery is settled without a handler.
pub(super) enum Decides {
    Mark,
    /// The number, and it is ours.
    Number,
    /// The number, and it was settled before.
    Settled,
}

#[derive(FromRow)]
struct Row {
    high: i64,
    gaps: String,
    closed: i64,
    seen: i64,
    reused: bool,
}

type Writer = (String, i32, Option<OffsetDateTime>);

impl Database {
    /// The number of a message, if it is to be deduped by that.
    pub(super) fn numbered(&self, message: &Message) -> Option<Numbered> {
        let sequences = self.sequences.as_ref()?;
        if message.says_sequence() && message.sequence().is_none() && sequences.told.set(()).is_ok()
        {
            warn!(id = %message.id, topic = %message.topic, "the sequence of a message is no number from 1 on; it and others like it are deduped by their marks");
        }
        Numbered::of(message)
    }

    /// Takes a number, unless its message was settled before. Waits for whoever takes one of the same key.
    pub(super) async fn take_number(
        &self,
        connection: &mut PgConnection,
        numbered: &Numbered,
        deadline: Duration,
    ) -> Result<Taken, sqlx::Error> {
        let next = sqlx::query_as(self.statements.next_number.sql())
            .bind(self.consumer.as_str())
            .bind(numbered.line)
            .bind(numbered.number)
            .bind(numbered.seq)
            .fetch_optional(&mut *connection);
        if let Some(writer) = within(deadline + ANSWER, next).await? {
            let marked = by_number(numbered.line, writer);
            return Ok(Taken::Ours {
                marked,
                mark: false,
            });
        }
        for _ in 0..LOOKS {
            let known = self.lock_numbers(connection, numbered.line, deadline);
            let known = known.await?;
            let (numbers, mark) = match judge(known.as_ref(), numbered.number, numbered.seq) {
                sequence::Says::New { numbers, mark } => (numbers, mark),
                sequence::Says::Settled => return Ok(Taken::Settled),
                sequence::Says::Unknown => return Ok(Taken::Unknown),
                sequence::Says::Reused => match known {
                    Some(known) => return Ok(Taken::Reused(known)),
                    None => return Ok(Taken::Unknown),
                },
            };
            let there = known.is_some();
            let written = self.write_numbers(connection, numbered, (&numbers, there), deadline);
            if let Some(writer) = written.await? {
                let marked = by_number(numbered.line, writer);
                return Ok(Taken::Ours { marked, mark });
            }
        }
        Err(sqlx::Error::RowNotFound)
    }

    async fn lock_numbers(
        &self,
        connection: &mut PgConnection,
        line: Uuid,
        deadline: Duration,
    ) -> Result<Option<Numbers>, sqlx::Error> {
        let lock = sqlx::query_as::<_, Row>(self.statements.lock_numbers.sql())
            .bind(self.consumer.as_str())
            .bind(line)
            .fetch_optional(connection);
        let Some(row) = within(deadline + ANSWER, lock).await? else {
            return Ok(None);
        };
        let gaps = Gaps::parse(&row.gaps).ok_or_else(|| {
            let text = format!("the gaps {:?} are no list of ranges", row.gaps);
            sqlx::Error::Decode(text.into())
        })?;
        let gaps = if planted(Fault::GapsForgotten) {
            Gaps::default()
        } else {
            gaps
        };
        Ok(Some(Numbers {
            high: row.high,
            gaps,
            closed: row.closed,
            seen: row.seen,
            reused: row.reused,
        }))
    }

    /// None: somebody else has made the row.
    async fn write_numbers(
        &self,
        connection: &mut PgConnection,
        numbered: &Numbered,
        (numbers, there): (&Numbers, bool),
        deadline: Duration,
    ) -> Result<Option<Writer>, sqlx::Error> {
        let statement = if there {
            &self.statements.set_numbers
        } else {
            &self.statements.first_number
        };
        let write = sqlx::query_as(statement.sql())
            .bind(self.consumer.as_str())
            .bind(numbered.line)
            .bind(numbers.high)
            .bind(numbers.gaps.text())
            .bind(numbers.closed)
            .bind(numbers.seen)
            .bind(numbers.reused);
        let write = if there {
            write
        } else {
            write.bind(&numbered.topic).bind(&numbered.key)
        };
        within(deadline + ANSWER, write.fetch_optional(connection)).await
    }

    /// Takes the number of a delivery that is settled without a handler. What waits or is given up on has a mark besides: it is
    /// by that that it is retried and replayed.
    pub(super) async fn settle_number(
        &self,
        connection: &mut PgConnection,
        settle: &ToSettle<'_>,
    ) -> Result<Decides, sqlx::Error> {
        let Some(numbered) = settle.message.and_then(|message| self.numbered(message)) else {
            return Ok(Decides::Mark);
        };
        let (with_mark, reason) = match &settle.what {
            SettleAs::Ignored | SettleAs::Expired => (false, None),
            SettleAs::Dead(letter) => (true, Some(letter.reason)),
            SettleAs::Deferred(_) => (true, None),
        };
        let taken = self.take_number(connection, &numbered, DEADLINE).await?;
        let by_mark = match taken {
            Taken::Ours { mark, .. } => mark || with_mark,
            // It is new, whatever the key has come to meanwhile; or the handler has committed its number by itself.
            Taken::Settled if settle.ended.is_some() || reason.is_some_and(is_of_numbers) => true,
            Taken::Settled => return Ok(Decides::Settled),
            Taken::Reused(known) => {
                let numbers = Numbers {
                    reused: true,
                    ..known
                };
                self.write_numbers(connection, &numbered, (&numbers, true), DEADLINE)
                    .await?;
                true
            }
            Taken::Unknown => true,
        };
        Ok(if by_mark {
            Decides::Mark
        } else {
            Decides::Number
        })
    }

    /// Says by its mark that a delivery waits whose number or mark this transaction has taken. False: its mark is there.
    pub(super) async fn mark_deferred(
        &self,
        connection: &mut PgConnection,
        mark: &Mark,
        marked: &Marked,
        deadline: Duration,
    ) -> Result<bool, sqlx::Error> {
        if marked.line.is_some() {
            let marked = self.insert_mark(connection, mark, Says::Deferred, deadline);
            return Ok(marked.await?.is_some());
        }
        self.change_mark(connection, mark, marked, Says::Deferred)
            .await?;
        Ok(true)
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
        | DeadReason::TooOld => false,
    }
}

fn by_number(line: Uuid, (xid, pid, backend_start): Writer) -> Marked {
    Marked {
        slot: 0,
        line: Some(line),
        xid,
        pid,
        backend_start,
    }
}

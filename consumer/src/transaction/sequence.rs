//! The producer's numbers in the place of the mark: taking one, which decides.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use onceward_core::Message;
use sqlx::postgres::PgArguments;
use sqlx::query::QueryAs;
use sqlx::{FromRow, PgConnection, Postgres};
use time::OffsetDateTime;
use tracing::warn;
use uuid::Uuid;

use super::mark::{Marked, Row, Says};
use super::settle::DEADLINE;
use super::{ANSWER, Database, SettleAs, ToSettle, within};
use crate::faults::{Bug, planted};
use crate::mark::Mark;
use crate::sequence::{
    Besides, Decides, Ending, Gaps, Judged, Known, Numbered, Numbers, Taken, decide, judge,
};

/// A consumer that dedupes by sequence.
#[derive(Debug, Clone)]
pub(crate) struct Sequences {
    /// When it started, by the database's clock.
    started: OffsetDateTime,
    /// Whether a sequence that is no number was told of.
    told: Arc<OnceLock<()>>,
}

impl Sequences {
    /// `started`: now, by the database's clock.
    pub(crate) fn new(started: OffsetDateTime) -> Self {
        Self {
            started,
            told: Arc::default(),
        }
    }
}

/// A number that is to be taken.
pub(super) struct Asked {
    one: Numbered,
    started: OffsetDateTime,
}

#[derive(FromRow)]
struct KeyRow {
    high: i64,
    high_mark: Uuid,
    starts: Vec<i64>,
    ends: Vec<i64>,
    closed: i64,
    seen: i64,
    seen_at: OffsetDateTime,
    reused: bool,
    raised_at: OffsetDateTime,
}

type Writer = (String, i32, OffsetDateTime);

impl Database {
    /// The number of a message, if it is to be deduped by that.
    pub(super) fn numbered(&self, message: &Message) -> Option<Asked> {
        let sequences = self.sequences.as_ref()?;
        let bad = message.says_sequence() && message.sequence().is_none();
        if bad && message.seq.is_some() && sequences.told.set(()).is_ok() {
            warn!(id = %message.id, topic = %message.topic, "the sequence of a message is no number from 1 on; it and others like it are deduped by their marks");
        }
        Some(Asked {
            one: Numbered::of(message)?,
            started: sequences.started,
        })
    }

    /// Takes a number, unless its message was settled before. Waits for whoever takes one of the same key.
    pub(super) async fn take_number(
        &self,
        connection: &mut PgConnection,
        asked: &Asked,
        deadline: Duration,
    ) -> Result<Taken<Marked>, sqlx::Error> {
        let Asked { one, started } = asked;
        let next = sqlx::query_as(self.statements.next_number.sql())
            .bind(self.consumer.as_str())
            .bind(one.line)
            .bind(one.number)
            .bind(one.mark)
            .bind(one.seq)
            .bind(one.time)
            .bind(started)
            .fetch_optional(&mut *connection);
        if let Some(writer) = within(deadline + ANSWER, next).await? {
            return Ok(ours(one, writer, Besides::Nothing));
        }
        loop {
            let known = self.lock_numbers(connection, one.line, deadline).await?;
            let (written, besides) = match judge(known, one, *started) {
                Judged::First(numbers) => {
                    let first = self.first_numbers(connection, one, &numbers, deadline);
                    (first.await?, Besides::Mark)
                }
                Judged::New { numbers, besides } => {
                    let set = self.set_numbers(connection, one, &numbers, deadline);
                    (set.await?, besides)
                }
                Judged::Settled => return Ok(Taken::Settled),
                Judged::Reused(numbers) => return Ok(Taken::Reused(numbers)),
                Judged::Unknown => return Ok(Taken::Unknown),
            };
            // None: somebody else has just made the row, and the numbers are others.
            if let Some(writer) = written {
                return Ok(ours(one, writer, besides));
            }
        }
    }

    async fn lock_numbers(
        &self,
        connection: &mut PgConnection,
        line: Uuid,
        deadline: Duration,
    ) -> Result<Option<Known>, sqlx::Error> {
        let lock = sqlx::query_as::<_, KeyRow>(self.statements.lock_numbers.sql())
            .bind(self.consumer.as_str())
            .bind(line)
            .fetch_optional(connection);
        let row = within(deadline + ANSWER, lock).await?;
        Ok(row.map(|row| {
            let gaps = if planted(Bug::GapsForgotten) {
                Gaps::default()
            } else {
                Gaps::between(&row.starts, &row.ends)
            };
            Known {
                numbers: Numbers {
                    high: row.high,
                    mark: row.high_mark,
                    gaps,
                    closed: row.closed,
                    seen: row.seen,
                    seen_at: row.seen_at,
                    reused: row.reused,
                },
                raised_at: row.raised_at,
            }
        }))
    }

    /// None: somebody else has made the row.
    async fn first_numbers(
        &self,
        connection: &mut PgConnection,
        one: &Numbered,
        numbers: &Numbers,
        deadline: Duration,
    ) -> Result<Option<Writer>, sqlx::Error> {
        let first = sqlx::query_as(self.statements.first_number.sql());
        let first = self.bind(first, one, numbers);
        let first = first.bind(&one.topic).bind(&one.key);
        within(deadline + ANSWER, first.fetch_optional(connection)).await
    }

    async fn set_numbers(
        &self,
        connection: &mut PgConnection,
        one: &Numbered,
        numbers: &Numbers,
        deadline: Duration,
    ) -> Result<Option<Writer>, sqlx::Error> {
        let set = sqlx::query_as(self.statements.set_numbers.sql());
        let set = self.bind(set, one, numbers);
        within(deadline + ANSWER, set.fetch_optional(connection)).await
    }

    fn bind<'q>(
        &'q self,
        write: QueryAs<'q, Postgres, Writer, PgArguments>,
        one: &Numbered,
        numbers: &Numbers,
    ) -> QueryAs<'q, Postgres, Writer, PgArguments> {
        write
            .bind(self.consumer.as_str())
            .bind(one.line)
            .bind(numbers.high)
            .bind(numbers.mark)
            .bind(numbers.gaps.starts())
            .bind(numbers.gaps.ends())
            .bind(numbers.closed)
            .bind(numbers.seen)
            .bind(numbers.seen_at)
            .bind(numbers.reused)
    }

    /// Takes the number of a delivery that is settled without a handler.
    pub(super) async fn settle_number(
        &self,
        connection: &mut PgConnection,
        settle: &ToSettle<'_>,
    ) -> Result<Decides, sqlx::Error> {
        let numbered = settle.message.and_then(|message| self.numbered(message));
        let Some(asked) = numbered else {
            return Ok(Decides::Mark);
        };
        let taken = self.take_number(connection, &asked, DEADLINE).await?;
        if let Taken::Reused(numbers) = &taken {
            self.set_numbers(connection, &asked.one, numbers, DEADLINE)
                .await?;
        }
        Ok(decide(&taken, ending(settle)))
    }

    /// Says by its mark that a delivery waits whose number or mark this transaction has taken. False: its mark is there.
    pub(super) async fn mark_deferred(
        &self,
        connection: &mut PgConnection,
        mark: &Mark,
        marked: &Marked,
        deadline: Duration,
    ) -> Result<bool, sqlx::Error> {
        match marked.row {
            Row::Numbers { .. } => {
                let marked = self.insert_mark(connection, mark, Says::Deferred, deadline);
                Ok(marked.await?.is_some())
            }
            Row::Mark => {
                self.change_mark(connection, mark, Says::Deferred).await?;
                Ok(true)
            }
        }
    }
}

fn ending(settle: &ToSettle<'_>) -> Ending {
    match &settle.what {
        SettleAs::Ignored | SettleAs::Expired => Ending::Passing,
        SettleAs::Deferred(_) => Ending::Waits,
        SettleAs::Dead(_) if settle.ended.is_some() => Ending::Ended,
        SettleAs::Dead(letter) => Ending::Dead(letter.reason),
    }
}

fn ours(one: &Numbered, (xid, pid, at): Writer, besides: Besides) -> Taken<Marked> {
    let written = Marked {
        row: Row::Numbers { line: one.line },
        xid,
        pid,
        at,
    };
    Taken::Ours { written, besides }
}

//! Answers what the keeper is asked, many at a time.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use sqlx::{Connection as _, PgConnection, Postgres, Row as _, Transaction};
use tokio::sync::oneshot;
use tracing::{debug, warn};
use uuid::Uuid;

use super::link::ANSWER;
use super::{Ask, Keep, Link, Wish};
use crate::commits::Commits;
use crate::faults::{Bug, planted};
use crate::plan::guard::{Start, Unfinished};
use crate::sql::{Statements, Waits};
use crate::trouble::chain;
use crate::within::within;

/// How long a statement may take on the server, and half of it for a lock: there too it must end, or the next connection would be one
/// more that waits.
const BRIEF: Duration = Duration::from_secs(4);

/// How many ends are remembered that could not be written. Of those that are forgotten the message runs alone once.
const MOST: usize = 10_000;

/// A start that is asked for, and who waits for the answer.
type Asker = (Wish, oneshot::Sender<Result<Start, String>>);

#[derive(Debug)]
pub(super) struct Desk {
    keep: Keep,
    connection: Option<PgConnection>,
    /// Whose end is to be written.
    ended: BTreeSet<Uuid>,
    /// Who waits until all of them are.
    flushes: Vec<oneshot::Sender<()>>,
}

/// What is left to do of what was asked, in its order.
#[derive(Debug, Default)]
struct Orders {
    starts: Vec<Asker>,
    ended: Vec<Uuid>,
    dones: Vec<oneshot::Sender<()>>,
    flushes: Vec<oneshot::Sender<()>>,
}

impl Orders {
    /// Ends are written before starts: one that has ended since it asked to start must not be started, and one that starts anew has
    /// ended before.
    fn of(batch: Vec<Ask>) -> Self {
        let mut orders = Self::default();
        for ask in batch {
            match ask {
                Ask::Start(wish, answer) => orders.starts.push((wish, answer)),
                Ask::End(mark, done) => {
                    // Who asked has not waited for the answer.
                    orders.starts.retain(|(wish, _)| wish.mark != mark);
                    orders.ended.push(mark);
                    orders.dones.push(done);
                }
                Ask::Flush(done) => orders.flushes.push(done),
            }
        }
        orders
    }
}

impl Desk {
    pub(super) fn new(keep: Keep) -> Self {
        Self {
            keep,
            connection: None,
            ended: BTreeSet::new(),
            flushes: Vec::new(),
        }
    }

    /// Whether an end could not be written yet.
    pub(super) fn owes(&self) -> bool {
        !self.ended.is_empty()
    }

    pub(super) async fn answer(&mut self, batch: Vec<Ask>) {
        let Orders {
            starts,
            ended,
            dones,
            flushes,
        } = Orders::of(batch);
        self.flushes.extend(flushes);
        self.ended.extend(ended);
        while self.ended.len() > MOST {
            self.ended.pop_first();
        }
        let marks: BTreeSet<Uuid> = starts.iter().map(|(wish, _)| wish.mark).collect();
        let noted = self.note(marks.into_iter().collect()).await;
        if let Err(error) = &noted {
            warn!(error = %chain(error), "starts and ends of handlers could not be written; will retry");
            // It may be dead without knowing it.
            self.connection = None;
        }
        for done in dones {
            // Nobody waits any more when it took too long.
            done.send(()).ok();
        }
        if noted.is_ok() {
            for flushed in self.flushes.drain(..) {
                flushed.send(()).ok();
            }
        }
        match noted {
            Ok(noted) => self.tell(starts, &noted).await,
            Err(error) => {
                for (_, asker) in starts {
                    drop(asker.send(Err(chain(&error))));
                }
            }
        }
    }

    /// Writes what has ended, and then what starts. Gives those that may, beside others.
    async fn note(&mut self, started: Vec<Uuid>) -> Result<HashSet<Uuid>, sqlx::Error> {
        if self.ended.is_empty() && started.is_empty() {
            return Ok(HashSet::new());
        }
        let ended: Vec<Uuid> = self.ended.iter().copied().collect();
        let keep = &self.keep;
        let who = (&keep.consumer, keep.member);
        let note = keep.statements.note_starts(who, &ended, &started, BRIEF);
        let connection = connection(&mut self.connection, &keep.link).await?;
        let rows = within(ANSWER, sqlx::raw_sql(note).fetch_all(connection)).await?;
        self.ended.clear();
        rows.iter().map(|row| row.try_get(0)).collect()
    }

    /// Tells each how it may start. `noted`: those that may, beside others.
    async fn tell(&mut self, starts: Vec<Asker>, noted: &HashSet<Uuid>) {
        let (beside, others): (Vec<Asker>, Vec<Asker>) = starts
            .into_iter()
            .partition(|(wish, _)| noted.contains(&wish.mark));
        for (_, asker) in beside {
            drop(asker.send(Ok(Start::Beside)));
        }
        if others.is_empty() {
            return;
        }
        let wishes: Vec<Wish> = others.iter().map(|(wish, _)| *wish).collect();
        let found = self.unfinished(&wishes).await;
        if found.is_err() {
            self.connection = None;
        }
        for (wish, asker) in others {
            let answer = match &found {
                // What has no row any more is too old to matter; the next look finds none.
                Ok(found) => Ok(found.get(&wish.mark).copied().unwrap_or(Start::NotBeside)),
                Err(error) => Err(chain(error)),
            };
            drop(asker.send(answer));
        }
    }

    /// How handlers may start of which another life has left a start.
    async fn unfinished(&mut self, wishes: &[Wish]) -> Result<HashMap<Uuid, Start>, sqlx::Error> {
        let keep = &self.keep;
        let mut begun = begin(&mut self.connection, &keep.link).await?;
        let marks: Vec<Uuid> = wishes.iter().map(|wish| wish.mark).collect();
        let look = sqlx::query_as::<_, (Uuid, bool, i16)>(keep.statements.unfinished.sql())
            .bind(keep.consumer.as_str())
            .bind(marks)
            .bind(keep.member)
            .fetch_all(&mut *begun);
        let found = within(ANSWER, look).await?;
        let mut starts = HashMap::new();
        for (mark, alone, crashes) in found {
            let counted = planted(Bug::NeighboursCounted);
            let wish_alone = wishes.iter().any(|wish| wish.mark == mark && wish.alone);
            let found = Unfinished {
                alone: alone || counted,
                crashes,
            };
            let start = found.judge(wish_alone || counted);
            if let Start::Alone(crashes) = start {
                debug!(%mark, crashes, "a message was in work when a process died; it is handled alone");
                let take_over = sqlx::query(keep.statements.start_alone.sql())
                    .bind(keep.consumer.as_str())
                    .bind(mark)
                    .bind(keep.member)
                    .bind(crashes)
                    .execute(&mut *begun);
                within(ANSWER, take_over).await?;
            }
            starts.insert(mark, start);
        }
        within(ANSWER, begun.commit()).await?;
        Ok(starts)
    }
}

async fn connection<'c>(
    slot: &'c mut Option<PgConnection>,
    link: &Link,
) -> Result<&'c mut PgConnection, sqlx::Error> {
    let connection = match slot.take() {
        Some(connection) => connection,
        None => link.connect().await?,
    };
    Ok(slot.insert(connection))
}

/// Begins a transaction, which does not wait for the disk.
async fn begin<'c>(
    slot: &'c mut Option<PgConnection>,
    link: &Link,
) -> Result<Transaction<'c, Postgres>, sqlx::Error> {
    let connection = connection(slot, link).await?;
    let statement = Statements::begin(BRIEF, Duration::MAX, Waits::ForHandler, Commits::Visible);
    within(ANSWER, connection.begin_with(statement)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(mark: u128) -> Ask {
        let mark = Uuid::from_u128(mark);
        Ask::Start(Wish { mark, alone: false }, oneshot::channel().0)
    }

    fn end(mark: u128) -> Ask {
        Ask::End(Uuid::from_u128(mark), oneshot::channel().0)
    }

    /// Which of what was asked starts, and which has ended.
    fn orders(batch: Vec<Ask>) -> (Vec<u128>, Vec<u128>) {
        let orders = Orders::of(batch);
        let starts = orders.starts.iter().map(|(wish, _)| wish.mark.as_u128());
        let ended = orders.ended.iter().map(Uuid::as_u128);
        (starts.collect(), ended.collect())
    }

    #[test]
    fn a_start_that_has_ended_before_it_was_written_is_not_written() {
        assert_eq!(orders(vec![start(1), start(2), end(1)]), (vec![2], vec![1]));
    }

    #[test]
    fn one_that_starts_anew_has_ended_first() {
        assert_eq!(orders(vec![end(1), start(1)]), (vec![1], vec![1]));
        let (starts, ended) = orders(vec![start(1), end(1), start(1)]);
        assert_eq!((starts, ended), (vec![1], vec![1]));
    }
}

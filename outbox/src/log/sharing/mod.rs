//! Lets the streams of one relay that stand at the same place share a read, instead of reading the same rows for each of them.

mod places;
mod recent;
pub(in crate::log) mod rule;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{timeout, timeout_at};

use super::durability::PublishAfter;
use super::error::LogError;
use super::read::{CursorRead, LogReader, Read};
pub use places::Interest;
use places::Places;
use recent::Recent;
use rule::Answer;
pub(super) use rule::Ask;

/// How long a reader waits for the answer to another one's ask, before it reads itself. Less than a read may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a reader that publishes nothing of what comes waits for one that does, to take that one's answer, for each chunk that it passes.
/// One that publishes fewer than 50,000 messages a second (chunks of 2,500 in 50 ms) is overtaken: who waited longer would hold up what comes
/// behind.
const COURTESY: Duration = Duration::from_millis(50);

/// The same in its first [`SETTLING`]: one that publishes opens its sessions then, and may have begun a moment later.
const FIRST_COURTESY: Duration = Duration::from_millis(200);

/// How long the readers of a relay take until all have begun.
const SETTLING: Duration = Duration::from_secs(2);

type Awaited = Option<Arc<Answer>>;

/// The reads of several readers of one log.
#[derive(Debug, Clone, Default)]
pub struct SharedReads {
    /// Not a task's own: any reader may come first or stay longest.
    table: Arc<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// Parts taken and not dropped.
    parts: AtomicUsize,
    /// Locked for as long as it takes to look, never while one waits.
    board: Mutex<Board>,
    /// Tells those that let another one read that some read has ended, or that some part has.
    ended: watch::Sender<()>,
}

/// What is being read and what was.
#[derive(Debug, Default)]
struct Board {
    flights: Vec<Flight>,
    /// How many flights there have been.
    count: u64,
    recent: Recent,
    places: Places,
    /// How many parts there have been.
    parts: u64,
}

/// A read that has not ended.
#[derive(Debug)]
struct Flight {
    number: u64,
    ask: Ask,
    /// Closed without an answer when whoever reads fails or is dropped.
    answer: watch::Receiver<Awaited>,
}

/// A reader's part in the reads of several; it ends by being dropped.
#[derive(Debug)]
pub struct Part {
    table: Arc<Table>,
    number: u64,
    since: Instant,
}

/// What a read brought.
#[derive(Debug)]
pub enum Brought {
    /// To this reader alone.
    Own(Read),
    /// To others too, or they may still come for it.
    Shared(Arc<Read>),
    /// To others, who have read on since: what they read behind it is kept too, and there for the asking as far as this reader may take it.
    Passed(Arc<Read>),
}

impl AsRef<Read> for Brought {
    fn as_ref(&self) -> &Read {
        match self {
            Self::Own(read) => read,
            Self::Shared(read) | Self::Passed(read) => read,
        }
    }
}

impl SharedReads {
    /// A part for one reader. As long as there is no other, it reads as if there were none.
    #[must_use]
    pub fn take_part(&self) -> Part {
        self.table.parts.fetch_add(1, Ordering::Relaxed);
        let mut board = self.table.board();
        board.parts += 1;
        Part {
            table: Arc::clone(&self.table),
            number: board.parts,
            since: Instant::now(),
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let mut board = self.table.board();
        board.places.leave(self.number);
        // Whoever is left alone takes no answers.
        if self.table.parts.fetch_sub(1, Ordering::Relaxed) <= 2 {
            board.recent = Recent::default();
        }
        drop(board);
        self.table.ended.send_replace(());
    }
}

impl Part {
    /// Whether nobody else takes part now, so that nothing is shared.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.table.parts.load(Ordering::Relaxed) < 2
    }

    /// As [`LogReader::read`], if no other reader's answer will do.
    ///
    /// Whoever asks what is being read waits for that read; whoever asks what was read just now takes its answer; else it reads, and others
    /// wait. Whoever waits in vain, because that read failed, was dropped or brought no answer for it, reads itself: it waits once, and
    /// for a second at most. An empty answer is nobody else's: something may have been committed since, and whoever has looked knows of it.
    /// One that is [only passing](Interest::Passing) also waits for one that publishes to read for both: for 50 ms (200 ms in the first two seconds
    /// of its part), and for as long again each time that it has passed as many numbers as it asks for messages.
    ///
    /// # Errors
    /// As those of [`LogReader::read`]; what others fail with is not among them.
    ///
    /// # Cancel safety
    /// As that of [`LogReader::read`]. Those that wait for this read do it themselves then.
    pub async fn read(
        &self,
        reader: &mut LogReader,
        reads: &[CursorRead],
        publish_after: &PublishAfter,
        interest: Interest,
    ) -> Result<Brought, LogError> {
        if self.is_alone() {
            return reader.read(reads, publish_after).await.map(Brought::Own);
        }
        let ask = reader.ask(reads, publish_after);
        if !ask.may_be_shared() {
            return reader.read(reads, publish_after).await.map(Brought::Own);
        }
        let times = (Instant::now(), courtesy(self.since.elapsed()));
        self.table.stand(self.number, &ask, interest, times);
        let mut may_wait = true;
        loop {
            match self.table.turn(self.number, &ask, may_wait) {
                Turn::Take(brought) => return Ok(brought),
                Turn::Await(answer) => {
                    may_wait = false;
                    let within = PATIENCE.min(reader.within());
                    let answer = ended(answer, within).await;
                    if let Some(answer) = answer.filter(|answer| ask.may_take(answer)) {
                        return Ok(Brought::Shared(Arc::clone(&answer.read)));
                    }
                }
                Turn::LetRead(mut ended, until) => {
                    // Whether a read has ended or the time is over, the next turn tells.
                    timeout_at(until.into(), ended.changed()).await.ok();
                }
                Turn::Read(flying) => {
                    let read = reader.read(reads, publish_after).await?;
                    return Ok(Brought::Shared(flying.end(ask, read)));
                }
            }
        }
    }
}

/// What a reader does.
enum Turn {
    /// It takes this answer.
    Take(Brought),
    /// It waits for this one.
    Await(watch::Receiver<Awaited>),
    /// It lets another one read until then, and looks again when a read has ended.
    LetRead(watch::Receiver<()>, Instant),
    /// It reads.
    Read(Flying),
}

/// A read that others may wait for, until this is dropped.
struct Flying {
    table: Arc<Table>,
    number: u64,
    answer: watch::Sender<Awaited>,
}

impl Table {
    fn turn(self: &Arc<Self>, part: u64, ask: &Ask, may_wait: bool) -> Turn {
        let now = Instant::now();
        let mut board = self.board();
        if let Some((answer, has_next)) = board.recent.find(ask, now) {
            let read = Arc::clone(&answer.read);
            return Turn::Take(match has_next {
                true => Brought::Passed(read),
                false => Brought::Shared(read),
            });
        }
        let mut flights = board.flights.iter();
        if may_wait && let Some(flight) = flights.find(|other| ask.may_await(&other.ask)) {
            return Turn::Await(flight.answer.clone());
        }
        let Board { places, recent, .. } = &*board;
        if let Some(until) = places.lets_read(part, recent, now) {
            return Turn::LetRead(self.ended.subscribe(), until);
        }
        board.count += 1;
        let number = board.count;
        let (answer, receiver) = watch::channel(None);
        board.flights.push(Flight {
            number,
            ask: ask.clone(),
            answer: receiver,
        });
        Turn::Read(Flying {
            table: Arc::clone(self),
            number,
            answer,
        })
    }

    fn stand(&self, part: u64, ask: &Ask, interest: Interest, times: (Instant, Duration)) {
        self.board().places.stand(part, ask, interest, times);
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        // Whoever panicked while it had the lock has left nothing half done.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Board {
    fn leave(&mut self, number: u64) {
        self.flights.retain(|flight| flight.number != number);
    }
}

impl Flying {
    /// Gives the answer to those that wait, and to those that come soon.
    fn end(self, ask: Ask, read: Read) -> Arc<Read> {
        let answer = Arc::new(Answer::new(ask, read));
        let read = Arc::clone(&answer.read);
        let mut board = self.table.board();
        // Both at once: whoever comes between would read the same again.
        board.leave(self.number);
        board.recent.keep(&answer, Instant::now());
        drop(board);
        self.answer.send_replace(Some(answer));
        read
    }
}

impl Drop for Flying {
    fn drop(&mut self) {
        self.table.board().leave(self.number);
        self.table.ended.send_replace(());
    }
}

fn courtesy(age: Duration) -> Duration {
    if age < SETTLING {
        FIRST_COURTESY
    } else {
        COURTESY
    }
}

/// The answer, once the read has ended; none if it failed, or takes too long.
async fn ended(mut answer: watch::Receiver<Awaited>, within: Duration) -> Option<Arc<Answer>> {
    let ended = timeout(within, answer.wait_for(Option::is_some)).await;
    ended.ok()?.ok()?.clone()
}

//! Ending: nothing new is started, what runs gets its grace, what is settled is acked.

use std::time::{Duration, Instant};

use onceward_core::Backlog;
use tokio::task::JoinError;
use tracing::{info, warn};

use super::Member;
use super::reader::Ask;
use crate::ConsumerError;

/// How long handlers have to roll back at the end of the grace.
const ROLL_BACK: Duration = Duration::from_secs(4);

/// How long the subscriber has to leave.
const CLOSE: Duration = Duration::from_secs(5);

/// How far a stop has come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stopping {
    /// When handlers are cancelled.
    grace: Instant,
    cancelled: bool,
}

impl Stopping {
    /// When to look next.
    pub(super) fn next(&self) -> Instant {
        if self.cancelled {
            self.grace + ROLL_BACK
        } else {
            self.grace
        }
    }
}

impl<T: Clone + Send + Sync + 'static> Member<T> {
    pub(super) fn begin_to_stop(&mut self) {
        // Else it would take lines for tries that nobody makes.
        self.pauses = None;
        self.stopping = Some(Stopping {
            grace: Instant::now() + self.limits.grace,
            cancelled: false,
        });
        self.start_batches();
        let waiting = self.keys.drop_waiting(|_| true);
        self.give_back(&waiting);
        self.flights.leave(|_| true);
        self.waiting.leave();
        let (running, grace) = (self.keys.running(), self.limits.grace);
        info!(running, ?grace, "the consumer stops");
    }

    /// Stops when the broker says that nothing is left, and nothing is due that has waited, if the consumer is to run only
    /// so long. A member that owns
    /// nothing yet has not heard of what there is.
    pub(super) fn stop_if_idle(&mut self, backlog: Option<&[Backlog]>) {
        let nothing =
            backlog.is_some_and(|all| !all.is_empty() && all.iter().all(|one| one.count == 0));
        let idle = self.flights.is_empty() && self.waiting.is_idle();
        if self.until_idle && self.stopping.is_none() && nothing && idle {
            self.begin_to_stop();
        }
    }

    /// Looks whether the grace is over.
    pub(super) fn on_stopping(&mut self, now: Instant) {
        let Some(stopping) = &mut self.stopping else {
            return;
        };
        if now < stopping.next() {
            return;
        }
        let running = self.keys.running();
        if !stopping.cancelled {
            warn!(running, "the grace is over; handlers are cancelled");
            stopping.cancelled = true;
            self.shop.kill.cancel();
        } else {
            // Their connections close, and the server rolls back.
            warn!(running, "handlers did not end; they are left");
            self.workers.abort_all();
            self.flights.clear();
            self.waiting.clear();
        }
    }

    /// Whether the consumer stops and all that it still had to do is done.
    pub(super) fn is_done(&self) -> bool {
        self.stopping.is_some() && self.flights.is_empty() && self.waiting.is_empty()
    }

    /// A task beside the loop may end only once it was told to.
    pub(super) fn on_io_ended(&self, ended: Result<(), JoinError>) -> Result<(), ConsumerError> {
        match ended {
            Ok(()) if self.stopping.is_some() => Ok(()),
            ended => Err(ConsumerError::task(ended.err())),
        }
    }

    /// Ends what runs, when nothing more can come of it.
    pub(super) async fn quit(mut self) {
        self.shop.kill.cancel();
        let ended = async { while self.workers.join_next().await.is_some() {} };
        if tokio::time::timeout(ROLL_BACK, ended).await.is_err() {
            warn!("handlers did not end; they are left");
        }
    }

    /// Lets the last errands be run, and leaves.
    pub(super) async fn close(mut self) {
        self.ask(Ask::Close(CLOSE));
        // What is on its way now may be older; the last one is written after it.
        self.positions.written(None);
        self.record_positions();
        // Without a sender the acks end after their last errand, and the looks after the one that is on its way.
        drop(self.errands);
        drop(self.looks);
        drop(self.pauses);
        drop(self.records);
        let ended = async { while self.io.join_next().await.is_some() {} };
        if tokio::time::timeout(CLOSE * 2, ended).await.is_err() {
            warn!("the subscriber did not close in time");
        }
    }
}

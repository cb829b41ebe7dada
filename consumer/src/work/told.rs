//! What is counted and logged of work. Never a payload.

use std::time::Instant;

use onceward_core::Message;
use time::OffsetDateTime;
use tracing::{debug, error, info, warn};

use super::{Job, Past, Workshop};
use crate::handler::Verdict;
use crate::plan::{Next, Outcome, Run, Tally};
use crate::transaction::{Ran, SettleAs};

impl Workshop {
    /// Counts a run that has just ended.
    pub(super) fn count(&self, past: &mut Past, ran: &Ran, began: (OffsetDateTime, Instant)) {
        self.meters.ran(began.1.elapsed());
        if past.add(ran, began) {
            self.meters.failed();
        }
    }
}

pub(super) fn log_run(message: &Message, ran: &Ran, tally: Tally, next: Next) {
    let id = &message.id;
    match ran.run {
        // It may be a copy of what was settled under its mark: that is told once it is settled.
        Run::SequenceReused | Run::SequenceUnknown => {
            debug!(%id, run = ?ran.run, "not told by its sequence; its mark decides");
        }
        Run::Handled | Run::LinedUp | Run::Duplicate | Run::Expired => {
            debug!(%id, run = ?ran.run, "settled")
        }
        // The error may tell of the payload: it stands in the dead letter, not here.
        Run::Failed(Verdict::Payload) => {
            warn!(%id, kind = %message.kind, "the payload is not what the handler expects");
        }
        Run::IdConflict => {
            warn!(%id, kind = %message.kind, "another message with this id was settled before");
        }
        Run::Unfinished => {
            warn!(%id, kind = %message.kind, "a message was in work when a process died; it is handled alone");
        }
        Run::Crashed => {
            error!(%id, kind = %message.kind, error = %ran.error, "a message is given up on");
        }
        Run::TooOld => {
            warn!(%id, kind = %message.kind, "too old to tell whether it was settled before");
        }
        Run::Failed(_) | Run::Ended => {
            warn!(%id, kind = %message.kind, attempt = tally.attempts, ?next, error = %ran.error, "the handler failed");
        }
        Run::Conflict | Run::Elsewhere | Run::Outage | Run::Stopped => {
            info!(%id, run = ?ran.run, ?next, error = %ran.error, "not settled yet");
        }
    }
}

pub(super) fn log_end(job: &Job, what: &SettleAs<'_>, settled: Outcome) {
    let reason = match what {
        SettleAs::Dead(letter) => Some(letter.reason.code()),
        SettleAs::Ignored | SettleAs::Expired | SettleAs::Deferred(_) => None,
    };
    match settled {
        Outcome::Dead => {
            let sequence = job.message().and_then(Message::sequence);
            warn!(mark = %job.mark.id, partition = %job.origin.partition, position = job.origin.position, sequence, reason, "dead letter");
        }
        Outcome::Handled
        | Outcome::Deferred
        | Outcome::Duplicate
        | Outcome::Expired
        | Outcome::Ignored => {
            debug!(mark = %job.mark.id, ?settled, "settled without a handler");
        }
    }
}

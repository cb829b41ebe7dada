//! Decides what becomes of a delivery after each run. Pure: no clock, no I/O.

pub(crate) mod failing;
pub(crate) mod guard;
pub(crate) mod places;

use std::time::Duration;

use onceward_core::{Backoff, SubscribeErrorKind};

use crate::HandlerSettings;
use crate::handler::Verdict;
pub(crate) use failing::{LEASE, LineWait, Tells, Until};
pub(crate) use places::PlaceKind;

/// How often a conflict with another transaction is repeated for free.
const FREE_REPEATS: u32 = 10;

/// Between repeats after conflicts.
const REPEAT: Backoff = Backoff {
    base: Duration::from_millis(5),
    max: Duration::from_millis(500),
};

/// Between looks at a mark that somebody else is inserting; each look waits for the lock besides.
const ELSEWHERE: Backoff = Backoff {
    base: Duration::from_millis(50),
    max: Duration::from_secs(2),
};

/// After outages: of the database, of the broker, and of whatever keeps a dead letter from being written.
pub(crate) const OUTAGE: Backoff = Backoff {
    base: Duration::from_millis(100),
    max: Duration::from_secs(30),
};

/// How a delivery was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Handled,
    /// It waits in the database.
    Deferred,
    Duplicate,
    Dead,
    /// It was of no use any more.
    Expired,
    Ignored,
}

impl Outcome {
    /// The name in metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Handled => "handled",
            Self::Deferred => "deferred",
            Self::Duplicate => "duplicate",
            Self::Dead => "dead",
            Self::Expired => "expired",
            Self::Ignored => "ignored",
        }
    }
}

/// Why a delivery was given up on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeadReason {
    /// It could not be read as a message.
    Undecodable,
    /// Its payload is not what the handler expects.
    Payload,
    /// Its type has no handler.
    NoHandler,
    /// The handler rejected it.
    Rejected,
    /// All attempts failed.
    Attempts,
    /// The handler ended the transaction by itself: another attempt might have its effects twice.
    TransactionEnded,
    /// Another message with its id was settled before.
    IdConflict,
    /// Each time its handler ran alone, the process died.
    Crashed,
    /// It is older than its mark would be, and the consumer has been there before.
    TooOld,
    /// Another message of its key was settled with its sequence.
    SequenceReused,
    /// Its key had too many gaps to tell whether it was settled.
    SequenceUnknown,
}

impl DeadReason {
    /// Every one of them.
    pub(crate) const ALL: [Self; 11] = [
        Self::Undecodable,
        Self::Payload,
        Self::NoHandler,
        Self::Rejected,
        Self::Attempts,
        Self::TransactionEnded,
        Self::IdConflict,
        Self::Crashed,
        Self::TooOld,
        Self::SequenceReused,
        Self::SequenceUnknown,
    ];

    /// The code in `dead_letters`.
    pub(crate) const fn code(self) -> &'static str {
        match self {
            Self::Undecodable => "undecodable",
            Self::Payload => "payload",
            Self::NoHandler => "no_handler",
            Self::Rejected => "rejected",
            Self::Attempts => "attempts",
            Self::TransactionEnded => "transaction_ended",
            Self::IdConflict => "id_conflict",
            Self::Crashed => "crashed",
            Self::TooOld => "too_old",
            Self::SequenceReused => "sequence_reused",
            Self::SequenceUnknown => "sequence_unknown",
        }
    }

    /// Whether its handler has run: then its start may be known.
    pub(crate) const fn was_handled(self) -> bool {
        match self {
            Self::Payload
            | Self::Rejected
            | Self::Attempts
            | Self::TransactionEnded
            | Self::Crashed => true,
            Self::Undecodable
            | Self::NoHandler
            | Self::IdConflict
            | Self::TooOld
            | Self::SequenceReused
            | Self::SequenceUnknown => false,
        }
    }
}

/// What an attempt came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Run {
    /// Mark and effects are committed.
    Handled,
    /// Its key is held: mark and message are committed, and it waits behind those of its key.
    LinedUp,
    /// The mark was there.
    Duplicate,
    /// The mark was there, with the digest of another message.
    IdConflict,
    /// There was no mark, and it may have been forgotten.
    TooOld,
    /// Another message of its key was settled with its sequence.
    SequenceReused,
    /// Its sequence may have been settled.
    SequenceUnknown,
    /// The handler failed and everything is rolled back.
    Failed(Verdict),
    /// A serialization failure or a deadlock; everything is rolled back.
    Conflict,
    /// Somebody else is inserting the mark.
    Elsewhere,
    /// The database is out of reach, or the answer to COMMIT was lost.
    Outage,
    /// The handler committed or rolled back by itself.
    Ended,
    /// It was not run: another life has started it and not ended it, and there is something beside it.
    Unfinished,
    /// It was not run: it has killed its process too often.
    Crashed,
    /// It was not run: it is of no use any more.
    Expired,
    /// The consumer stops.
    Stopped,
}

/// What the attempts at one delivery have come to so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Attempts that count.
    pub(crate) attempts: u32,
    /// Of them, those before the last replay: they do not count against the limit.
    pub(crate) forgiven: u32,
    /// Conflicts since the last attempt that counts.
    pub(crate) conflicts: u32,
    /// Looks at somebody else's mark, in a row.
    pub(crate) elsewhere: u32,
    /// Outages in a row.
    pub(crate) outages: u32,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// It is settled: ack.
    Settled(Outcome),
    /// Run the handler again after this long; the key waits.
    Again(Duration),
    /// Run the handler again, with nothing beside it.
    Alone,
    /// Let it wait in the database for this long.
    Defer(Duration),
    /// Let it wait in the database until its type, which is paused, is handled again.
    WaitForType,
    /// Wait until the database answers, at least this long; then again.
    Pause(Duration),
    /// Settle it without its handler, as of no use any more.
    Expire,
    /// Give up on it, in the transaction of the mark.
    GiveUp(DeadReason),
    /// Leave it: it comes again.
    Leave,
}

impl Tally {
    /// Counts a run.
    pub(crate) fn count(self, run: Run) -> Self {
        let rest = Self {
            elsewhere: 0,
            outages: 0,
            ..self
        };
        match run {
            Run::Failed(_) | Run::Ended => rest.attempt(),
            Run::Conflict if self.conflicts >= FREE_REPEATS => rest.attempt(),
            Run::Conflict => Self {
                conflicts: self.conflicts + 1,
                ..rest
            },
            Run::Elsewhere => Self {
                elsewhere: self.elsewhere.saturating_add(1),
                ..rest
            },
            Run::Outage => Self {
                outages: self.outages.saturating_add(1),
                ..rest
            },
            Run::Handled
            | Run::LinedUp
            | Run::Duplicate
            | Run::IdConflict
            | Run::Unfinished
            | Run::Crashed
            | Run::TooOld
            | Run::SequenceReused
            | Run::SequenceUnknown
            | Run::Expired
            | Run::Stopped => rest,
        }
    }

    fn attempt(self) -> Self {
        Self {
            attempts: self.attempts.saturating_add(1),
            conflicts: 0,
            ..self
        }
    }

    /// Whether no attempt is left.
    fn is_used_up(self, settings: &HandlerSettings) -> bool {
        self.attempts.saturating_sub(self.forgiven) >= settings.attempts
    }
}

/// Where a message was when its turn came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Came {
    FromBroker,
    /// Out of its line in the database, where its attempts are counted.
    FromRetries,
}

impl Came {
    /// In memory if it is short, and the delivery is held meanwhile.
    fn wait(self, delay: Duration, settings: &HandlerSettings) -> Next {
        match self {
            Self::FromBroker if delay <= settings.defer_after => Next::Again(delay),
            Self::FromBroker | Self::FromRetries => Next::Defer(delay),
        }
    }
}

/// What to do after a run that `tally` has counted. `chance` lies in `0.0..1.0`.
pub(crate) fn after_run(
    run: Run,
    tally: Tally,
    settings: &HandlerSettings,
    came: Came,
    chance: f64,
) -> Next {
    let backoff = || settings.backoff.delay(tally.attempts, chance);
    match run {
        Run::Handled => Next::Settled(Outcome::Handled),
        Run::LinedUp => Next::Settled(Outcome::Deferred),
        Run::Duplicate => Next::Settled(Outcome::Duplicate),
        Run::Stopped => Next::Leave,
        Run::Ended => Next::GiveUp(DeadReason::TransactionEnded),
        Run::IdConflict => Next::GiveUp(DeadReason::IdConflict),
        Run::Unfinished => Next::Alone,
        Run::Crashed => Next::GiveUp(DeadReason::Crashed),
        Run::TooOld => Next::GiveUp(DeadReason::TooOld),
        Run::SequenceReused => Next::GiveUp(DeadReason::SequenceReused),
        Run::SequenceUnknown => Next::GiveUp(DeadReason::SequenceUnknown),
        Run::Expired => Next::Expire,
        Run::Failed(Verdict::Reject) => Next::GiveUp(DeadReason::Rejected),
        Run::Failed(Verdict::Payload) => Next::GiveUp(DeadReason::Payload),
        Run::Failed(_) if tally.is_used_up(settings) => Next::GiveUp(DeadReason::Attempts),
        Run::Failed(Verdict::RetryAfter(delay)) => came.wait(delay, settings),
        Run::Failed(Verdict::Retry) => came.wait(backoff(), settings),
        Run::Conflict if tally.conflicts > 0 => Next::Again(REPEAT.delay(tally.conflicts, chance)),
        // The free repeats are used up: this one was an attempt.
        Run::Conflict if tally.is_used_up(settings) => Next::GiveUp(DeadReason::Attempts),
        Run::Conflict => came.wait(backoff(), settings),
        Run::Elsewhere => Next::Again(ELSEWHERE.delay(tally.elsewhere, chance)),
        Run::Outage => Next::Pause(OUTAGE.delay(tally.outages, chance)),
    }
}

/// What settling without a handler came to: a dead letter, or a message that is ignored or deferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settling {
    /// Mark and letter are committed.
    Written,
    /// The mark was there.
    Duplicate,
    /// The mark was there, with the digest of another message.
    IdConflict,
    /// Somebody else has taken it out of its line meanwhile.
    Elsewhere,
    /// The database is out of reach, or the answer to COMMIT was lost.
    Outage,
    /// Somebody is inserting the mark, or anything else that waiting may mend.
    Failed,
}

/// What to do after settling without a handler. `failures` counts those in a row.
pub(crate) fn after_settling(
    settling: Settling,
    outcome: Outcome,
    failures: u32,
    chance: f64,
) -> Next {
    match settling {
        Settling::Written => Next::Settled(outcome),
        Settling::Duplicate => Next::Settled(Outcome::Duplicate),
        Settling::IdConflict => Next::GiveUp(DeadReason::IdConflict),
        Settling::Elsewhere => Next::Leave,
        Settling::Outage => Next::Pause(OUTAGE.delay(failures, chance)),
        Settling::Failed => Next::Again(OUTAGE.delay(failures, chance)),
    }
}

/// What to do after the subscriber failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Read again after this long.
    Again(Duration),
    /// End: to go on would lose messages or order.
    Refuse,
}

/// What to do after the subscriber failed `failures` times in a row.
pub(crate) fn after_reading(kind: SubscribeErrorKind, failures: u32, chance: f64) -> Reading {
    match kind {
        SubscribeErrorKind::Misconfigured => Reading::Refuse,
        SubscribeErrorKind::Unavailable
        | SubscribeErrorKind::Unauthorized
        | SubscribeErrorKind::Expired => Reading::Again(OUTAGE.delay(failures, chance)),
    }
}

/// How many deliveries to read next, of a memory that holds `held` messages and bytes. The largest message seen stands
/// for the next ones, so that a batch does not exceed the bytes by more than one message that is larger still.
pub(crate) fn room(
    held: (usize, usize),
    limit: (usize, usize),
    largest: usize,
    batch: usize,
) -> usize {
    let messages = limit.0.saturating_sub(held.0);
    let bytes = limit.1.saturating_sub(held.1);
    if bytes == 0 {
        return 0;
    }
    let fit = (bytes / largest.max(1)).max(1);
    messages.min(fit).min(batch)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;

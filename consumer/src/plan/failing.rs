//! Decides whether a type fails, what its messages wait for, and what a try of one of them tells. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use uuid::Uuid;

use super::{DeadReason, Next, Run};
use crate::handler::Verdict;

/// For how long whoever finds a due line has it to himself before he has claimed its first message. Short: the lines of a member that dies
/// wait for it, and their keys with them. No shorter than the time between two looks: a line whose handler runs on is found, leased
/// and claimed in vain by others each time that its lease ends.
pub(crate) const LEASE: Duration = Duration::from_secs(1);

/// How long a line waits for its type at least before somebody looks whether that is still paused. Whoever resumes the type makes it
/// due; this is for a row that was deleted by hand.
const LONG_PAUSE: Duration = Duration::from_secs(4 * 3_600);

/// Over how much more time such looks are spread.
const SPREAD: Duration = Duration::from_secs(3_600);

/// For how long a turn to try a message keeps others from their turn, should nobody say that it goes on: a member that dies
/// meanwhile must not delay the next one for long.
pub(crate) const TURN: Duration = Duration::from_secs(10);

/// How much longer a try may take than its handler and what is around it: after that the handler blocks its thread.
const OVERDUE: Duration = Duration::from_secs(5);

/// The longest type that is paused: beyond it an index would refuse it.
const LONGEST_TYPE: usize = 255;

/// Until when a message waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until<'a> {
    /// So long.
    After(Duration),
    /// Until its type, which is paused, is handled again.
    Resumed {
        kind: &'a str,
        /// Whether it was tried for all of its type: others are to be tried before it is again.
        tried: bool,
    },
}

/// How long a line waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LineWait<'a> {
    pub(crate) delay: Duration,
    /// The paused type that it waits for.
    pub(crate) waits_for: Option<&'a str>,
}

impl<'a> Until<'a> {
    /// How long the message itself waits. One that waits for its type has no time of its own: its line has.
    pub(crate) fn of_message(self) -> Duration {
        match self {
            Self::After(delay) => delay,
            Self::Resumed { .. } => Duration::ZERO,
        }
    }

    /// How long its line waits, if it is the first. `paused`: its type still is. `chance` lies in `0.0..1.0`. There is always a time.
    pub(crate) fn of_line(self, paused: bool, chance: f64) -> LineWait<'a> {
        match self {
            Self::Resumed { kind, tried } if paused => LineWait {
                delay: LONG_PAUSE + SPREAD.mul_f64(if tried { 1.0 } else { chance }),
                waits_for: Some(kind),
            },
            Self::After(_) | Self::Resumed { .. } => LineWait {
                delay: self.of_message(),
                waits_for: None,
            },
        }
    }
}

/// What a run tells of its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tells {
    /// Its handler works.
    Works,
    /// It fails.
    Fails,
    /// Nothing: the message had no part in it, or was not handled.
    Nothing,
}

/// What a run tells of its type. A rejection is the handler's own decision about one message: so it works. One that asks to wait
/// knows what it waits for, and every message of a type may have to.
pub(crate) fn tells(run: Run) -> Tells {
    match run {
        Run::Handled | Run::Failed(Verdict::Reject) => Tells::Works,
        Run::Failed(Verdict::Retry | Verdict::Payload) => Tells::Fails,
        Run::Failed(Verdict::RetryAfter(_))
        | Run::LinedUp
        | Run::Duplicate
        | Run::IdConflict
        | Run::TooOld
        | Run::SequenceReused
        | Run::SequenceUnknown
        | Run::Conflict
        | Run::Elsewhere
        | Run::Outage
        | Run::Ended
        | Run::Unfinished
        | Run::Crashed
        | Run::Expired
        | Run::Stopped => Tells::Nothing,
    }
}

/// What is to be done with a message that was tried for all of its type. A failure is that of its type, and no attempt. One that asks
/// to wait, waits as it asks.
pub(crate) fn after_probe(run: Run, next: Next) -> Next {
    match (run, next) {
        (Run::Failed(Verdict::RetryAfter(_)), Next::Defer(_)) => next,
        (_, Next::Defer(_)) => Next::WaitForType,
        (_, next) => while_paused(next),
    }
}

/// What is to be done with a message whose type is paused by now: it is not given up on for what all of its type fail with.
pub(crate) fn while_paused(next: Next) -> Next {
    match next {
        Next::WaitForType | Next::GiveUp(DeadReason::Attempts | DeadReason::Payload) => {
            Next::WaitForType
        }
        Next::GiveUp(
            DeadReason::Undecodable
            | DeadReason::NoHandler
            | DeadReason::Rejected
            | DeadReason::TransactionEnded
            | DeadReason::IdConflict
            | DeadReason::TooOld
            | DeadReason::SequenceReused
            | DeadReason::SequenceUnknown
            | DeadReason::Crashed,
        )
        | Next::Settled(_)
        | Next::Defer(_)
        | Next::Again(_)
        | Next::Alone
        | Next::Pause(_)
        | Next::Expire
        | Next::Leave => next,
    }
}

/// Whether a turn goes on whose handler has this deadline.
pub(crate) fn goes_on(since: Duration, deadline: Duration) -> bool {
    since < deadline * 2 + OVERDUE
}

/// Whether a type can be paused: the database must be able to tell it from others.
pub(crate) fn can_be_paused(kind: &str) -> bool {
    kind.len() <= LONGEST_TYPE && !kind.contains('\0')
}

/// What became of the last distinct messages of a type, since the first that failed.
#[derive(Debug, Default)]
pub(crate) struct RecentRuns {
    last: VecDeque<(Uuid, bool)>,
    /// How many of them, the first ones, are from before a pause.
    before: usize,
}

/// How many messages have failed, and how many were handled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    failed: usize,
    handled: usize,
}

impl Counts {
    fn of<'a>(last: impl Iterator<Item = &'a (Uuid, bool)>) -> Self {
        last.fold(Self::default(), |counts, (_, failed)| Self {
            failed: counts.failed + usize::from(*failed),
            handled: counts.handled + usize::from(!failed),
        })
    }

    /// Whether at least so many have failed, and twice as many as were handled. Were it only more than were handled, a type of which each
    /// third fails would be paused by chance.
    fn most_failed(self, at_least: usize) -> bool {
        self.failed >= at_least && self.failed >= self.handled * 2
    }
}

impl RecentRuns {
    /// A run of a message has ended. True: now the type fails. Most of the last messages have, and at least half of `recent`; since a
    /// pause most as well, but fewer will do.
    pub(crate) fn add(&mut self, mark: Uuid, failed: bool, recent: usize) -> bool {
        if let Some(place) = self.last.iter().position(|(known, _)| *known == mark) {
            self.last.remove(place);
            self.before -= usize::from(place < self.before);
        }
        self.last.push_back((mark, failed));
        while self.last.len() > recent {
            self.last.pop_front();
            self.before = self.before.saturating_sub(1);
        }
        let most = Counts::of(self.last.iter()).most_failed(recent.div_ceil(2));
        failed && most && (self.before == 0 || self.fails_again(recent))
    }

    /// Whether most have failed since the pause, whose end tells that one was handled besides.
    fn fails_again(&self, recent: usize) -> bool {
        let mut since = Counts::of(self.last.iter().skip(self.before));
        since.handled += 1;
        since.most_failed(recent / 5)
    }

    /// The type is paused. What is known of it counts on, so that it need not fail as often to be paused again; but only with what comes
    /// then: the end of the pause tells that it was handled.
    pub(crate) fn pause(&mut self) {
        self.before = self.last.len();
    }

    /// Whether there is nothing to remember: no message has failed.
    pub(crate) fn is_clean(&self) -> bool {
        Counts::of(self.last.iter()).failed == 0
    }
}

#[cfg(test)]
#[path = "failing_tests.rs"]
mod tests;

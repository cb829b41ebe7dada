//! When the loop has to look by itself. Pure: the loop brings the clock.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use onceward_core::{Partition, Release};

use super::stop::Stopping;

/// How often overdue handlers are looked for, and how often the broker is asked for its backlog.
const TICK: Duration = Duration::from_secs(1);
const TICKS_PER_BACKLOG: u32 = 5;

/// Between two requests for more time for one delivery, at least.
const LEAST_PAUSE: Duration = Duration::from_millis(250);

/// A partition that is to be given back.
#[derive(Debug)]
pub(super) struct Revocation {
    pub(super) partition: Partition,
    pub(super) until: Instant,
    /// Dropping it gives the partition back.
    pub(super) release: Release,
}

#[derive(Debug)]
pub(super) struct Timers {
    tick: Instant,
    ticks: u32,
    /// No reading before; none: at any time.
    read: Option<Instant>,
    /// Some are of deliveries that are gone by then.
    extensions: BTreeSet<(Instant, u64)>,
    revocations: Vec<Revocation>,
}

/// What a tick is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tick {
    None,
    Overdue,
    OverdueAndBacklog,
}

impl Timers {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            tick: now,
            ticks: 0,
            read: None,
            extensions: BTreeSet::new(),
            revocations: Vec::new(),
        }
    }

    /// When to look next.
    pub(super) fn next(&self, stopping: Option<&Stopping>) -> Instant {
        let extension = self.extensions.first().map(|(at, _)| *at);
        let revocation = self.revocations.iter().map(|one| one.until).min();
        let stop = stopping.map(Stopping::next);
        [extension, revocation, self.read, stop]
            .into_iter()
            .flatten()
            .fold(self.tick, Instant::min)
    }

    pub(super) fn tick(&mut self, now: Instant) -> Tick {
        if now < self.tick {
            return Tick::None;
        }
        self.tick = now + TICK;
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks % TICKS_PER_BACKLOG == 1 {
            Tick::OverdueAndBacklog
        } else {
            Tick::Overdue
        }
    }

    pub(super) fn read_after(&mut self, at: Instant) {
        self.read = Some(at);
    }

    /// Forgets a time that has passed: it is no reason to look again and again.
    pub(super) fn read_if_due(&mut self, now: Instant) {
        self.read = self.read.filter(|at| *at > now);
    }

    pub(super) fn may_read(&self) -> bool {
        self.read.is_none()
    }

    pub(super) fn extend_at(&mut self, number: u64, at: Instant) {
        self.extensions.insert((at, number));
    }

    /// Those whose time has come. They are forgotten.
    pub(super) fn due_extensions(&mut self, now: Instant) -> Vec<u64> {
        let mut due = Vec::new();
        while let Some((at, number)) = self.extensions.first().copied() {
            if at > now {
                break;
            }
            self.extensions.pop_first();
            due.push(number);
        }
        due
    }

    pub(super) fn revoke(&mut self, revocation: Revocation) {
        self.revocations.push(revocation);
    }

    /// Revocations whose partition is finished or whose time has come. They are forgotten.
    pub(super) fn due_revocations(
        &mut self,
        now: Instant,
        is_finished: impl Fn(&Partition) -> bool,
    ) -> Vec<Revocation> {
        let (due, rest) = std::mem::take(&mut self.revocations)
            .into_iter()
            .partition(|one| one.until <= now || is_finished(&one.partition));
        self.revocations = rest;
        due
    }
}

/// When to ask for more time: after a third of it. Never at once, as little is left near the end of what a broker allows.
pub(super) fn extension(now: Instant, deadline: Instant) -> Instant {
    now + (deadline.saturating_duration_since(now) / 3).max(LEAST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(now: Instant, millis: u64) -> Instant {
        now + Duration::from_millis(millis)
    }

    #[test]
    fn nothing_that_has_passed_is_a_reason_to_look_again() {
        let now = Instant::now();
        let mut timers = Timers::new(now);
        timers.read_after(after(now, 10));
        timers.extend_at(1, after(now, 20));
        timers.revoke(Revocation {
            partition: Partition::new("p"),
            until: after(now, 30),
            release: Release::new(|| {}),
        });

        assert!(!timers.may_read());
        let later = after(now, 100);
        timers.read_if_due(later);
        assert_eq!(timers.due_extensions(later), [1]);
        assert_eq!(timers.due_revocations(later, |_| false).len(), 1);
        assert_eq!(timers.tick(later), Tick::OverdueAndBacklog);

        assert!(timers.may_read());
        assert!(timers.next(None) > later);
    }

    #[test]
    fn a_finished_partition_is_given_back_before_its_time() {
        let now = Instant::now();
        let mut timers = Timers::new(now);
        timers.revoke(Revocation {
            partition: Partition::new("p"),
            until: after(now, 1_000),
            release: Release::new(|| {}),
        });

        assert!(timers.due_revocations(now, |_| false).is_empty());
        assert_eq!(timers.due_revocations(now, |_| true).len(), 1);
    }
}

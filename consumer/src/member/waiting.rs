//! Due lines of the database in this member, and when to look for more. Pure: the loop brings the clock.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::alarm::Alarm;
use crate::plan::places::{room_for_due, takes_class};
use crate::transaction::{Due, DueLine};
use crate::trial::Trial;
use crate::work::DueJob;

/// Other members and commands add messages that this one is not told of.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Between looks that find only lines for which there is no room: others may be due behind them. Each time twice as long, up to a
/// regular look: a look takes the lines that it finds, which costs the database a write for each.
const LOOK_PAST: Duration = Duration::from_millis(100);

/// After a look that passed over a line which somebody else has locked: mostly for as long as a message joins it.
const LOCKED: Duration = Duration::from_millis(50);

/// How many lines are in hand at most.
const MOST: usize = 1_000;

/// How long to wait after so many looks in vain.
fn look_past(in_vain: u32) -> Duration {
    (LOOK_PAST * 2_u32.pow(in_vain.clamp(1, 8) - 1)).min(LOOK_EVERY)
}

/// Lines from the look that found them until they are worked on.
#[derive(Debug)]
pub(super) struct Waiting {
    lines: HashMap<u64, Line>,
    known: HashSet<Uuid>,
    /// How many lines of each class are in hand, and how many of it may run.
    in_hand: Vec<usize>,
    limits: Vec<usize>,
    /// How many may run in all.
    limit: usize,
    /// How many were asked for.
    asked: usize,
    /// How many looks in a row have found only lines for which there is no room.
    in_vain: u32,
    /// When to look; none: a look is on its way.
    look: Option<Instant>,
    /// When something becomes due that was heard of while a look was on its way.
    heard: Option<Instant>,
    /// Whether the last look found nothing that is due before the next regular one, and nothing was heard of since that is.
    idle: bool,
}

#[derive(Debug)]
struct Line {
    uuid: Uuid,
    /// Until its turn comes.
    due: Option<DueLine>,
    class: usize,
    leave: CancellationToken,
    alarm: Alarm,
    /// It is tried for all of its type.
    trial: Option<Trial>,
}

impl Waiting {
    pub(super) fn new(limits: Vec<usize>, limit: usize, now: Instant) -> Self {
        Self {
            lines: HashMap::new(),
            known: HashSet::new(),
            in_hand: vec![0; limits.len()],
            limits,
            limit,
            asked: 0,
            in_vain: 0,
            look: Some(now),
            heard: None,
            idle: false,
        }
    }

    /// When to look; none: a look is on its way, or there is no room.
    pub(super) fn next(&self) -> Option<Instant> {
        self.look.filter(|_| self.room() > 0)
    }

    fn room(&self) -> usize {
        room_for_due(&self.in_hand, &self.limits, self.limit, MOST)
    }

    /// How many lines to look for. None: not now.
    pub(super) fn wants(&mut self, now: Instant) -> Option<usize> {
        let at = self.next()?;
        if at > now {
            return None;
        }
        self.look = None;
        self.heard = None;
        // What there is room for may be far behind what there is none for.
        self.asked = if self.in_vain > 0 { MOST } else { self.room() };
        Some(self.asked)
    }

    /// The end of a look. Gives the lines to take, with their classes; none: the look failed. Lines for which there is no room
    /// are passed over: they are due again once their lease ends.
    pub(super) fn told(
        &mut self,
        due: Option<Due>,
        now: Instant,
        class_of: impl Fn(&str) -> usize,
    ) -> Vec<(DueLine, usize)> {
        let Some(due) = due else {
            self.look = Some(now + LOOK_EVERY);
            return Vec::new();
        };
        let found = due.lines.len();
        let mut in_hand = self.in_hand.clone();
        let classes = in_hand.len();
        let taken: Vec<_> = due
            .lines
            .into_iter()
            .filter(|line| !self.knows(line))
            .filter_map(|line| {
                let class = class_of(&line.kind);
                let count = in_hand.get_mut(class)?;
                let takes = takes_class(*count, classes, MOST);
                *count += usize::from(takes);
                takes.then_some((line, class))
            })
            .collect();
        let in_vain = found > 0 && found >= self.asked && taken.is_empty();
        self.in_vain = if in_vain { self.in_vain + 1 } else { 0 };
        let next = match due.next {
            // There may be more.
            _ if in_vain => now + look_past(self.in_vain),
            _ if found > 0 && found >= self.asked => now,
            Some(Duration::ZERO) => now + LOCKED,
            Some(next) => now + next.min(LOOK_EVERY),
            None => now + LOOK_EVERY,
        };
        let heard = self.heard.take();
        // What is due soon may be due already, and taken in vain.
        let soon = due.next.is_some_and(|next| next < LOOK_EVERY);
        self.idle = found == 0 && !soon && heard.is_none();
        self.look = Some(heard.map_or(next, |at| at.min(next)));
        taken
    }

    /// Whether the line is in hand.
    pub(super) fn knows(&self, line: &DueLine) -> bool {
        self.known.contains(&line.line)
    }

    /// Something becomes due after this long. What is a regular look or more away is found by one of those.
    pub(super) fn look_after(&mut self, due: Duration, now: Instant) {
        if due >= LOOK_EVERY {
            return;
        }
        self.idle = false;
        let at = now + due;
        let next = if self.look.is_some() {
            &mut self.look
        } else {
            &mut self.heard
        };
        *next = Some(next.map_or(at, |before| before.min(at)));
    }

    /// A delivery has lined up behind what waits. It may be due, and that line in nobody's hand: nothing is idle before another look.
    pub(super) fn joined(&mut self) {
        self.idle = false;
    }

    pub(super) fn arrive(&mut self, number: u64, due: DueLine, class: usize, trial: Option<Trial>) {
        self.known.insert(due.line);
        if let Some(count) = self.in_hand.get_mut(class) {
            *count += 1;
        }
        let line = Line {
            uuid: due.line,
            due: Some(due),
            class,
            leave: CancellationToken::new(),
            alarm: Alarm::new(),
            trial,
        };
        self.lines.insert(number, line);
    }

    /// Its turn has come. None: the number is none of ours.
    pub(super) fn start(&mut self, number: u64) -> Option<DueJob> {
        let line = self.lines.get_mut(&number)?;
        Some(DueJob {
            number,
            due: line.due.take()?,
            trial: line.trial.take(),
            leave: line.leave.clone(),
            alarm: line.alarm.clone(),
        })
    }

    /// It is worked on no more. False: the number is none of ours.
    pub(super) fn end(&mut self, number: u64) -> bool {
        match self.lines.remove(&number) {
            Some(line) => {
                if let Some(count) = self.in_hand.get_mut(line.class) {
                    *count = count.saturating_sub(1);
                }
                self.known.remove(&line.uuid)
            }
            None => false,
        }
    }

    /// Those whose attempt did not end at its deadline, each once per attempt.
    pub(super) fn overdue(&self) -> impl Iterator<Item = u64> {
        let overdue = self.lines.iter().filter(|(_, line)| line.alarm.rings());
        overdue.map(|(number, _)| *number)
    }

    /// Ends the waits of all.
    pub(super) fn leave(&self) {
        for line in self.lines.values() {
            line.leave.cancel();
        }
    }

    pub(super) fn clear(&mut self) {
        self.lines.clear();
        self.known.clear();
        self.in_hand.fill(0);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Whether nothing is due or soon will be, as far as anybody looked.
    pub(super) fn is_idle(&self) -> bool {
        self.idle && self.lines.is_empty()
    }
}

#[cfg(test)]
#[path = "waiting_tests.rs"]
mod tests;

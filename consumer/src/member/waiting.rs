//! Due lines of the database in this member, and when to look for more. Pure: the loop brings the clock.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::alarm::Alarm;
use crate::transaction::{Due, DueLine};
use crate::work::Errand;

/// Other members and commands add messages that this one is not told of.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Lines from the look that found them until they are worked on.
#[derive(Debug)]
pub(super) struct Waiting {
    lines: HashMap<u64, Line>,
    known: HashSet<Uuid>,
    /// How many at a time.
    limit: usize,
    /// When to look; none: a look is on its way.
    look: Option<Instant>,
    /// When something becomes due that was heard of while a look was on its way.
    heard: Option<Instant>,
    /// Whether the last look found nothing that is due before the next regular one, and nothing was heard of since.
    idle: bool,
}

#[derive(Debug)]
struct Line {
    uuid: Uuid,
    /// Until its turn comes.
    due: Option<DueLine>,
    leave: CancellationToken,
    alarm: Alarm,
}

impl Waiting {
    pub(super) fn new(limit: usize, now: Instant) -> Self {
        Self {
            lines: HashMap::new(),
            known: HashSet::new(),
            limit,
            look: Some(now),
            heard: None,
            idle: false,
        }
    }

    /// When to look; none: a look is on its way, or there is no room.
    pub(super) fn next(&self) -> Option<Instant> {
        self.look.filter(|_| self.lines.len() < self.limit)
    }

    /// How many lines to look for, those included that are known. None: not now.
    pub(super) fn wants(&mut self, now: Instant) -> Option<usize> {
        let at = self.next()?;
        if at > now {
            return None;
        }
        self.look = None;
        self.heard = None;
        Some(self.limit)
    }

    /// The end of a look. Gives the lines that are new; none: the look failed.
    pub(super) fn told(&mut self, due: Option<Due>, now: Instant) -> Vec<DueLine> {
        let Some(due) = due else {
            self.look = Some(now + LOOK_EVERY);
            return Vec::new();
        };
        let regular = now + LOOK_EVERY;
        let next = now + due.next.unwrap_or(LOOK_EVERY).min(LOOK_EVERY);
        let next = self.heard.take().map_or(next, |at| at.min(next));
        self.look = Some(next);
        self.idle = due.lines.is_empty() && next == regular;
        let lines = due.lines.into_iter();
        lines
            .filter(|line| !self.known.contains(&line.line))
            .collect()
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

    pub(super) fn arrive(&mut self, number: u64, due: DueLine) {
        self.known.insert(due.line);
        let line = Line {
            uuid: due.line,
            due: Some(due),
            leave: CancellationToken::new(),
            alarm: Alarm::new(),
        };
        self.lines.insert(number, line);
    }

    /// Its turn has come. None: the number is none of ours.
    pub(super) fn start(&mut self, number: u64) -> Option<Errand> {
        let line = self.lines.get_mut(&number)?;
        Some(Errand {
            number,
            due: line.due.take()?,
            leave: line.leave.clone(),
            alarm: line.alarm.clone(),
        })
    }

    /// It is worked on no more. False: the number is none of ours.
    pub(super) fn end(&mut self, number: u64) -> bool {
        match self.lines.remove(&number) {
            Some(line) => self.known.remove(&line.uuid),
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
mod tests {
    use super::*;

    fn line(n: u128) -> DueLine {
        DueLine {
            line: Uuid::from_u128(n),
            kind: "t".to_owned(),
        }
    }

    fn found(lines: &[u128], next: Option<u64>) -> Option<Due> {
        Some(Due {
            lines: lines.iter().map(|n| line(*n)).collect(),
            next: next.map(Duration::from_millis),
        })
    }

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_line_is_worked_on_once_at_a_time() {
        let now = Instant::now();
        let mut waiting = Waiting::new(4, now);
        assert_eq!(waiting.wants(now), Some(4));
        assert_eq!(waiting.wants(now), None, "a look is on its way");

        for due in waiting.told(found(&[1, 2], None), now) {
            waiting.arrive(u64::try_from(due.line.as_u128()).unwrap(), due);
        }
        let again = waiting.told(found(&[1, 2, 3], None), now);

        assert_eq!(again, [line(3)]);
        assert!(waiting.start(1).is_some());
        assert!(waiting.start(1).is_none());
        assert!(waiting.end(1));
        assert!(!waiting.end(1));
        assert_eq!(waiting.told(found(&[1, 2, 3], None), now).len(), 2);
    }

    #[test]
    fn the_next_look_is_when_something_becomes_due_and_at_least_every_second() {
        let now = Instant::now();
        let mut waiting = Waiting::new(4, now);

        for (next, at) in [(Some(300), 300), (Some(5_000), 1_000), (None, 1_000)] {
            waiting.wants(now);
            waiting.told(found(&[], next), now);

            assert_eq!(waiting.next(), Some(now + millis(at)));
            waiting.look_after(millis(0), now);
        }
    }

    #[test]
    fn what_is_heard_of_during_a_look_is_not_forgotten() {
        let now = Instant::now();
        let mut waiting = Waiting::new(4, now);
        waiting.wants(now);

        waiting.look_after(millis(50), now);
        waiting.told(found(&[], None), now);

        assert_eq!(waiting.next(), Some(now + millis(50)));
    }

    #[test]
    fn nothing_is_looked_for_while_there_is_no_room() {
        let now = Instant::now();
        let mut waiting = Waiting::new(1, now);
        waiting.wants(now);
        for due in waiting.told(found(&[1], Some(0)), now) {
            waiting.arrive(1, due);
        }

        assert_eq!(waiting.next(), None);
        waiting.end(1);
        assert!(waiting.next().is_some());
    }

    #[test]
    fn it_is_idle_once_a_look_finds_nothing_and_nothing_is_heard_of() {
        let now = Instant::now();
        let mut waiting = Waiting::new(1, now);
        assert!(!waiting.is_idle());

        waiting.wants(now);
        waiting.told(found(&[], Some(60_000)), now);
        assert!(waiting.is_idle(), "a minute away is not soon");

        waiting.wants(now + LOOK_EVERY);
        waiting.told(found(&[], Some(30)), now);
        assert!(!waiting.is_idle(), "30 ms away is soon");

        waiting.wants(now + LOOK_EVERY);
        waiting.told(found(&[], None), now);
        assert!(waiting.is_idle());

        waiting.look_after(LOOK_EVERY, now);
        assert!(waiting.is_idle(), "the regular look finds it");

        waiting.look_after(millis(0), now);
        assert!(!waiting.is_idle());
    }
}

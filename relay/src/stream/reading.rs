//! The stream's reading of the log: what is asked for, and where each row goes.

use std::borrow::Borrow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use onceward::{Brought, Cursor, CursorRead, LogReader, LogRow, Quiet, Snapshot, Unrouted};
use onceward_core::{Lane, Message, Outgoing, Route};

use super::holder::Holder;
use super::jobs::{self, Done};
use super::routing::Way;
use crate::destination::Destination;
use crate::detours;
use crate::faults::{Failpoint, pass};
use crate::window::Line;

/// What the runtime's timers count in: they make no shorter wait.
const TIMER_TICK: Duration = Duration::from_millis(1);

/// How many detours are read at a time, so that the statement stays small.
const DETOURS_AT_A_TIME: usize = 4;

impl<D: Destination> Holder<D> {
    /// Reads on, if it is time and there is room; looks first whether there may be anything, where that is worth while.
    pub(super) fn read(&mut self, now: Instant) {
        let wait = self.read_at.saturating_duration_since(now);
        // A look makes by itself what is too short for a timer.
        let is_time = wait.is_zero() || self.pace.wait() < TIMER_TICK;
        if self.draining.is_some() || !is_time || !self.routing.is_ready() {
            return;
        }
        let (lines, asks): (Vec<Line>, Vec<CursorRead>) = self.asks(now).into_iter().unzip();
        if asks.is_empty() {
            return;
        }
        let quiet = self.quiet_for(&asks);
        if quiet.is_none() && !wait.is_zero() {
            return;
        }
        let Some(mut reader) = self.reader.take() else {
            return;
        };
        if let Some(quiet) = quiet {
            self.look(reader, quiet, wait);
            return;
        }
        for line in lines.iter().filter(|line| line.is_main()) {
            self.idle_lanes.begin(line.lane, now);
        }
        self.reading.clone_from(&lines);
        let publish_after = self.settings.publish_after.clone();
        let (part, interest) = (Arc::clone(&self.part), self.pace.interest());
        self.jobs.spawn(async move {
            let result = part
                .read(&mut reader, &asks, &publish_after, interest)
                .await;
            Done::Read(reader, lines, now, result)
        });
    }

    /// Looks after `wait`; once the log is idle, the server does it, over and over.
    fn look(&mut self, reader: Box<LogReader>, quiet: Quiet, wait: Duration) {
        match self.pace.watches() {
            Some(every) => self.jobs.spawn(jobs::watch(reader, quiet, every)),
            None => self.jobs.spawn(jobs::look_once(reader, wait)),
        };
    }

    /// Whether a read could bring anything that fits.
    pub(super) fn may_read(&self) -> bool {
        self.draining.is_none()
            && self.reader.is_some()
            && self.routing.is_ready()
            && !self.lines_to_read().is_empty()
    }

    /// The lines to read and how many rows of each: the main ones, and some of the detours in turn.
    fn lines_to_read(&self) -> Vec<(Line, usize)> {
        let reads = |line: &Line| !self.standing.contains(line);
        let main = Lane::ALL.map(Line::main).into_iter().filter(reads);
        let main = main.map(|line| (line, self.window.room(line.lane)));
        let mut lines: Vec<(Line, usize)> = main.filter(|(_, room)| *room > 0).collect();
        let detours = self.detours.lines().map(|(line, _)| line).filter(reads);
        let detours = detours.map(|line| (line, self.window.detour_room(line, self.flows(line))));
        let mut detours: Vec<(Line, usize)> = detours.filter(|(_, room)| *room > 0).collect();
        if !detours.is_empty() {
            let turn = self.detour_turn % detours.len();
            detours.rotate_left(turn);
        }
        lines.extend(detours.into_iter().take(DETOURS_AT_A_TIME));
        lines
    }

    /// What to read now, and how much of it: without the lanes that may rest, while another line may not.
    fn asks(&self, now: Instant) -> Vec<(Line, CursorRead)> {
        let mut lines = self.lines_to_read();
        // Late and new rows of each line may bring as much, of those too that rest: they must find room next time.
        let share = 2 * lines.len().max(1);
        // Streams share reads of the same lanes only.
        if self.part.is_alone() {
            let watches = self.pace.watches().is_some();
            self.idle_lanes.leave_out(&mut lines, watches, now);
        }
        // One that holds much must not leave the others so little that they never get on.
        let least = share * self.settings.in_flight_bytes / (4 * detours::MOST);
        let of_detours = self.window.detour_byte_room().max(least);
        let of_main = self.window.byte_room();
        let ask = |(line, room): (Line, usize)| {
            let bytes = if line.is_main() { of_main } else { of_detours };
            let read = CursorRead {
                lane: line.lane,
                cursor: self.cursors.get(&line)?.clone(),
                limit: room.min(self.settings.chunk),
                bytes: bytes / share,
            };
            Some((line, read))
        };
        lines.into_iter().filter_map(ask).collect()
    }

    /// What says that there may be nothing to read, if that is worth a look.
    fn quiet_for(&self, asks: &[CursorRead]) -> Option<Quiet> {
        let cursors = asks.iter().map(|ask| (ask.lane, &ask.cursor));
        let quiet = self.quiet.as_ref().filter(|_| self.pace.looks_first())?;
        quiet.covers(cursors).then(|| quiet.clone())
    }

    pub(super) fn on_looked(&mut self, seen: &Snapshot) {
        let quiet = self.quiet.as_ref().is_some_and(|quiet| quiet.holds(seen));
        self.read_at = Instant::now() + self.pace.after_look(quiet);
    }

    /// Takes in what a read that was asked for at `asked` brought.
    pub(super) fn on_read(&mut self, lines: &[Line], asked: Instant, brought: Brought) {
        self.reading.clear();
        let read = brought.as_ref();
        let is_passed = matches!(brought, Brought::Passed(_));
        let steps = lines.iter().zip(&read.steps);
        let quiet = Quiet::after(steps.map(|(line, step)| (line.lane, step)));
        self.quiet = quiet.filter(|_| !is_passed);
        self.clock.set(read.now, read.came);
        self.detour_turn = self.detour_turn.wrapping_add(DETOURS_AT_A_TIME);
        let left = read.steps.iter().any(|step| step.left);
        let begun = read.begun;
        let (mut rows, mut own) = (0, 0);
        let now = Instant::now();
        for (line, step) in lines.iter().zip(&read.steps) {
            rows += step.rows.len();
            if line.is_main() && !step.rows.is_empty() {
                self.idle_lanes.brought(line.lane, now);
            }
        }
        match brought {
            Brought::Own(read) => {
                for (line, step) in lines.iter().zip(read.steps) {
                    own += self.on_rows(*line, step.rows, LogRow::into_message, step.after);
                }
            }
            Brought::Shared(read) | Brought::Passed(read) => {
                let copied = |row: &LogRow| row.message().clone();
                for (line, step) in lines.iter().zip(&read.steps) {
                    own += self.on_rows(*line, &step.rows, copied, step.after.clone());
                }
            }
        }
        if rows > 0 {
            pass(Failpoint::AfterRead);
        }
        self.store_what_is_done();
        // What is not the main line's may be that of a detour whose turn it was not.
        let own = if self.detours.is_empty() { own } else { rows };
        self.read_at = if goes_on(is_passed, own) {
            now
        } else {
            counts_from(begun, asked, now) + self.pace.after_read(own, left)
        };
    }

    /// Puts the rows that are the line's own into the window, and moves its cursor to `after`. How many are its own.
    fn on_rows<R: Borrow<LogRow>>(
        &mut self,
        line: Line,
        rows: impl IntoIterator<Item = R, IntoIter: ExactSizeIterator>,
        message: impl Fn(R) -> Message,
        after: Cursor,
    ) -> usize {
        let rows = rows.into_iter();
        let found = rows.len();
        self.cursors.insert(line, after.clone());
        let own = rows.filter_map(|row| {
            let route = self.route(line, row.borrow())?;
            let source = Some(self.settings.source.clone());
            Some(Outgoing {
                route,
                message: Message {
                    source,
                    ..message(row)
                },
                replay: None,
            })
        });
        let messages: Vec<Outgoing> = own.collect();
        let own = messages.len();
        // An idle log moves the snapshot at every poll; storing that would be a write per poll, and tell nothing.
        if found > 0 {
            self.window.push(line, messages, after);
        }
        own
    }

    /// Where a row goes: none if it is parked, another line's or stream's, or nobody's.
    fn route(&mut self, line: Line, row: &LogRow) -> Option<Route> {
        if self.skip.contains(&row.seq) {
            return None;
        }
        let message = row.message();
        let (lane, key) = (line.lane, message.key.as_ref());
        if self.detours.owner(lane, &message.topic, key) != line {
            return None;
        }
        match self.routing.way(&message.topic) {
            Way::Publish(routes) => Some(routes.of(key, &message.id)),
            Way::Elsewhere => None,
            Way::Unrouted => {
                self.note(Unrouted {
                    slot: row.slot,
                    lane,
                    topic: message.topic.clone(),
                });
                None
            }
        }
    }

    fn note(&mut self, unrouted: Unrouted) {
        self.metrics.unrouted(1);
        if !self.notes.contains(&unrouted) {
            self.notes.push(unrouted);
        }
    }
}

/// Whether the next answer is asked for at once, and how long to wait is for that one to say: others have read on behind this one, which
/// brought nothing to publish.
const fn goes_on(is_passed: bool, own: usize) -> bool {
    is_passed && own == 0
}

/// From when the wait behind a read counts. Another one's answer tells of when that one asked: what was committed since is not in it.
fn counts_from(begun: Instant, asked: Instant, now: Instant) -> Instant {
    if begun < asked { begun } else { now }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_only_passes_over_goes_on_behind_what_others_have_passed() {
        assert!(goes_on(true, 0));
        assert!(!goes_on(true, 1), "there is work, which sets the pace");
        assert!(!goes_on(false, 0), "this was the newest");
    }

    #[test]
    fn the_wait_behind_an_answer_of_another_one_counts_from_when_that_one_asked() {
        let begun = Instant::now();
        let (asked, now) = (begun + TIMER_TICK, begun + 2 * TIMER_TICK);

        assert_eq!(counts_from(begun, asked, now), begun);
        assert_eq!(counts_from(asked, asked, now), now);
    }
}

//! Decides which lanes may be left out of a read: one where nothing comes costs the server as much as a busy one. Pure: the caller
//! brings the clock.

use std::time::{Duration, Instant};

use onceward_core::Lane;

use crate::window::Line;

/// How long a lane counts as busy after a read that brought something of it.
const BUSY: Duration = Duration::from_millis(100);

/// How long after the beginning of a read of it a lane that is not busy may be left out of others. Its first message waits for so long at
/// most, and for the read that is under way then, or the wait between two polls, of 2 ms at most.
const REST: Duration = Duration::from_millis(5);

/// When each lane was read last, and when something came.
#[derive(Debug, Default)]
pub(crate) struct IdleLanes([Times; Lane::ALL.len()]);

#[derive(Debug, Default, Clone, Copy)]
struct Times {
    read: Option<Instant>,
    brought: Option<Instant>,
}

impl IdleLanes {
    /// Takes those lines out of what is to be read that may rest, unless all of them may. Nothing is missed: their cursors stay where they are.
    ///
    /// None rests where the server looks by itself: that tells of the lines that were read last, and what has come in another one since
    /// its last read would wait for their end.
    pub(crate) fn leave_out<T>(&self, lines: &mut Vec<(Line, T)>, watches: bool, now: Instant) {
        let rests = |line: &Line| line.is_main() && self.may_rest(line.lane, now);
        if !watches && !lines.iter().all(|(line, _)| rests(line)) {
            lines.retain(|(line, _)| !rests(line));
        }
    }

    fn may_rest(&self, lane: Lane, now: Instant) -> bool {
        let times = self.0[lane as usize];
        let within = |at: Option<Instant>, time| {
            at.is_some_and(|at| now.saturating_duration_since(at) < time)
        };
        within(times.read, REST) && !within(times.brought, BUSY)
    }

    /// A read of the lane begins.
    pub(crate) fn begin(&mut self, lane: Lane, now: Instant) {
        self.0[lane as usize].read = Some(now);
    }

    /// A read of the lane brought something.
    pub(crate) fn brought(&mut self, lane: Lane, now: Instant) {
        self.0[lane as usize].brought = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_lane_that_was_never_read_is_read() {
        let idle = IdleLanes::default();

        assert!(
            Lane::ALL
                .iter()
                .all(|lane| !idle.may_rest(*lane, Instant::now()))
        );
    }

    #[test]
    fn a_lane_where_nothing_comes_rests_for_five_milliseconds_at_a_time() {
        let (mut idle, now) = (IdleLanes::default(), Instant::now());

        idle.begin(Lane::Bulk, now);

        assert!(idle.may_rest(Lane::Bulk, now + ms(4)));
        assert!(!idle.may_rest(Lane::Bulk, now + ms(5)));
        assert!(!idle.may_rest(Lane::Critical, now + ms(4)), "another one");
    }

    #[test]
    fn a_busy_lane_does_not_rest_until_nothing_has_come_for_a_while() {
        let (mut idle, now) = (IdleLanes::default(), Instant::now());
        idle.brought(Lane::Critical, now);

        for after in [0, 50, 99] {
            idle.begin(Lane::Critical, now + ms(after));
            assert!(!idle.may_rest(Lane::Critical, now + ms(after)));
        }

        idle.begin(Lane::Critical, now + ms(100));
        assert!(idle.may_rest(Lane::Critical, now + ms(100)));
    }

    /// The three lanes, all of which were read then.
    fn read_at(read: Instant) -> IdleLanes {
        let mut idle = IdleLanes::default();
        for lane in Lane::ALL {
            idle.begin(lane, read);
        }
        idle
    }

    /// What is left of the three lanes.
    fn left(idle: &IdleLanes, watches: bool, now: Instant) -> Vec<Lane> {
        let mut lines = Lane::ALL.map(|lane| (Line::main(lane), ())).to_vec();
        idle.leave_out(&mut lines, watches, now);
        lines.into_iter().map(|(line, ())| line.lane).collect()
    }

    #[test]
    fn only_busy_lanes_are_read_until_the_others_have_rested() {
        let now = Instant::now();
        let mut idle = read_at(now);
        idle.brought(Lane::Standard, now);

        assert_eq!(left(&idle, false, now + ms(4)), [Lane::Standard]);
        assert_eq!(left(&idle, false, now + ms(5)), Lane::ALL);
    }

    #[test]
    fn all_lanes_are_read_where_none_is_busy() {
        let now = Instant::now();

        assert_eq!(left(&read_at(now), false, now), Lane::ALL);
    }

    #[test]
    fn what_the_server_watches_is_for_all_lanes() {
        let now = Instant::now();
        let mut idle = read_at(now);
        idle.brought(Lane::Standard, now);

        assert_eq!(left(&idle, true, now + ms(1)), Lane::ALL);
    }

    #[test]
    fn a_detour_never_rests() {
        let mut idle = IdleLanes::default();
        let now = Instant::now();
        idle.begin(Lane::Bulk, now);
        let detour = Line::detour(Lane::Bulk, 1);
        let mut lines = vec![(Line::main(Lane::Bulk), ()), (detour, ())];

        idle.leave_out(&mut lines, false, now);

        assert_eq!(lines, [(detour, ())]);
    }
}

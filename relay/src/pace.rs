//! Decides when to poll the log next, and whether it is read at once or looked at first. Pure: the caller brings the clock.

use std::time::Duration;

/// The first wait after a read that found nothing.
const FIRST: Duration = Duration::from_millis(1);

/// The most reads in a row without a look before.
const MOST_WITHOUT_LOOKS: u32 = 16;

/// Adaptive polling: at once while there is work, then backing off to a ceiling. There the log is idle, and a look, which costs a
/// fraction of a read, is made first. Where others commit all the time each look is in vain: then it is left out, for longer each time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    ceiling: Duration,
    wait: Duration,
    /// Looks in a row behind which a read found nothing.
    in_vain: u32,
    /// Reads without a look before that are left.
    without: u32,
    /// The next read comes of a look.
    looked: bool,
}

impl Pace {
    /// A pace that waits at most `ceiling` between two polls of an idle log.
    #[must_use]
    pub(crate) fn new(ceiling: Duration) -> Self {
        Self {
            ceiling: ceiling.max(FIRST),
            wait: Duration::ZERO,
            in_vain: 0,
            without: 0,
            looked: false,
        }
    }

    /// How long was waited, or is, before the next poll.
    #[must_use]
    pub(crate) fn wait(&self) -> Duration {
        self.wait
    }

    /// Whether a look is worth while now, if it can tell anything.
    #[must_use]
    pub(crate) fn looks_first(&self) -> bool {
        self.wait >= self.ceiling && self.without == 0 && !self.looked
    }

    /// How long to wait after a look; if it showed that something was committed, the log is read now.
    pub(crate) fn after_look(&mut self, quiet: bool) -> Duration {
        self.looked = !quiet;
        if quiet {
            self.in_vain = 0;
            self.wait
        } else {
            Duration::ZERO
        }
    }

    /// How long to wait after a read that found `rows` rows.
    pub(crate) fn after_read(&mut self, rows: usize) -> Duration {
        let looked = std::mem::take(&mut self.looked);
        if rows > 0 {
            (self.wait, self.in_vain, self.without) = (Duration::ZERO, 0, 0);
            return self.wait;
        }
        self.without = self.without.saturating_sub(1);
        if looked {
            self.without = (1 << self.in_vain.min(31)).min(MOST_WITHOUT_LOOKS);
            self.in_vain = self.in_vain.saturating_add(1);
        }
        self.wait = (self.wait * 2).clamp(FIRST, self.ceiling);
        self.wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CEILING: Duration = Duration::from_millis(20);

    fn idle() -> Pace {
        let mut pace = Pace::new(CEILING);
        for _ in 0..6 {
            pace.after_read(0);
        }
        pace
    }

    #[test]
    fn an_idle_log_is_polled_ever_more_rarely_down_to_the_ceiling() {
        let mut pace = Pace::new(CEILING);

        let waits: Vec<_> = (0..7).map(|_| pace.after_read(0).as_millis()).collect();

        assert_eq!(waits, [1, 2, 4, 8, 16, 20, 20]);
    }

    #[test]
    fn work_is_followed_by_a_read_at_once() {
        let mut pace = idle();
        assert!(pace.looks_first());

        assert_eq!(pace.after_read(3), Duration::ZERO);
        assert!(!pace.looks_first());
        assert_eq!(pace.after_read(0), FIRST);
    }

    #[test]
    fn a_log_is_looked_at_once_it_is_idle_and_as_long_as_nobody_commits() {
        let mut pace = Pace::new(CEILING);
        for _ in 0..5 {
            pace.after_read(0);
            assert!(!pace.looks_first());
        }
        pace.after_read(0);

        for _ in 0..100 {
            assert!(pace.looks_first());
            assert_eq!(pace.after_look(true), CEILING);
        }
    }

    #[test]
    fn what_a_look_shows_is_read_at_once_and_without_another_look() {
        let mut pace = idle();

        assert_eq!(pace.after_look(false), Duration::ZERO);

        assert!(!pace.looks_first());
        assert_eq!(pace.after_read(1), Duration::ZERO);
    }

    #[test]
    fn looks_in_vain_are_left_out_for_longer_each_time() {
        let mut pace = idle();
        let mut reads_between = Vec::new();

        for _ in 0..7 {
            pace.after_look(false);
            assert_eq!(pace.after_read(0), CEILING);
            let mut reads = 0;
            while !pace.looks_first() {
                pace.after_read(0);
                reads += 1;
            }
            reads_between.push(reads);
        }

        assert_eq!(reads_between, [1, 2, 4, 8, 16, 16, 16]);
        pace.after_look(true);
        pace.after_look(false);
        pace.after_read(0);
        pace.after_read(0);
        assert!(pace.looks_first());
    }
}

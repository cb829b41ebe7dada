//! Decides when to poll the log next, and whether it is read at once or looked at first. Pure: the caller brings the clock.

use std::time::Duration;

use onceward::Interest;

/// The first wait after a poll that found nothing to publish.
const FIRST: Duration = Duration::from_micros(500);

/// From this wait on the server makes the looks by itself. It counts in whole milliseconds.
const WATCHED: Duration = Duration::from_millis(2);

/// How long the server makes them at a time: less than what is logged as a slow statement where that is a tenth of a second.
pub(crate) const WATCH_FOR: Duration = Duration::from_millis(90);

/// The least of the longest wait between two reads that bring nothing to publish while others commit all the time: each of them costs
/// several times what a look does.
const IN_VAIN: Duration = Duration::from_millis(19);

/// The most reads in a row without a look before.
const MOST_WITHOUT_LOOKS: u32 = 16;

/// Behind a read that brought more than this to publish, the next one will hardly bring nothing: a look would be in vain.
const FEW: usize = 2;

/// Adaptive polling: at once while there is work, then backing off to a ceiling. A look costs a fraction of a read, and is made first
/// where the next read may well bring nothing. Where others commit all the time each look is in vain: then it is left out, for longer each time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    ceiling: Duration,
    wait: Duration,
    /// Looks in a row behind which a read found nothing to publish.
    in_vain: u32,
    /// Reads without a look before that are left.
    without: u32,
    /// The next read comes of a look.
    looked: bool,
    /// The last read brought more than a few to publish, or left something.
    many: bool,
    /// What the last read left is to this stream; that of a read whose wait is not asked for stays what it was.
    interest: Interest,
}

impl Pace {
    /// A pace that waits at most `ceiling` between two looks at an idle log.
    #[must_use]
    pub(crate) fn new(ceiling: Duration) -> Self {
        Self {
            ceiling: ceiling.max(FIRST),
            wait: Duration::ZERO,
            in_vain: 0,
            without: 0,
            looked: false,
            many: false,
            interest: Interest::Own,
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
        self.without == 0 && !self.looked && !self.many
    }

    /// The wait between two looks of the server, if the log has been idle for so long that it is to look by itself.
    #[must_use]
    pub(crate) fn watches(&self) -> Option<Duration> {
        let every = self.wait.min(self.ceiling);
        let is_watched = every >= WATCHED.min(self.ceiling) && every < WATCH_FOR;
        is_watched.then_some(every)
    }

    /// What comes next to this stream: it only passes over it while it is behind, and found nothing to publish in what it read last.
    #[must_use]
    pub(crate) fn interest(&self) -> Interest {
        self.interest
    }

    /// How long to wait after a look; if it showed that something was committed, the log is read now. The server's own waits are within
    /// its looks.
    pub(crate) fn after_look(&mut self, quiet: bool) -> Duration {
        self.looked = !quiet;
        if !quiet {
            return Duration::ZERO;
        }
        self.in_vain = 0;
        let wait = self.longer(self.ceiling);
        match self.watches() {
            Some(_) => Duration::ZERO,
            None => wait,
        }
    }

    /// How long to wait after a read that brought `own` messages to publish. `left`: there was more to read than it brought, so that the
    /// next one is due whatever this one brought. What is another stream's, parked or nobody's is nothing to hurry for: where only that
    /// comes, the log counts as idle.
    pub(crate) fn after_read(&mut self, own: usize, left: bool) -> Duration {
        let looked = std::mem::take(&mut self.looked);
        let any = left || own > 0;
        self.many = left || own > FEW;
        self.interest = if left && own == 0 {
            Interest::Passing
        } else {
            Interest::Own
        };
        self.without = self.without.saturating_sub(1);
        if looked && any {
            self.in_vain = 0;
        } else if looked {
            self.without = (1 << self.in_vain.min(31)).min(MOST_WITHOUT_LOOKS);
            self.in_vain = self.in_vain.saturating_add(1);
        }
        if any {
            self.wait = Duration::ZERO;
            return self.wait;
        }
        self.longer(self.ceiling.max(IN_VAIN))
    }

    fn longer(&mut self, ceiling: Duration) -> Duration {
        self.wait = (self.wait * 2).clamp(FIRST, ceiling);
        self.wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CEILING: Duration = Duration::from_millis(5);

    /// A pace of a log that has been idle for a while.
    fn idle() -> Pace {
        let mut pace = Pace::new(CEILING);
        for _ in 0..8 {
            pace.after_read(0, false);
        }
        assert_eq!(pace.watches(), Some(CEILING));
        pace
    }

    #[test]
    fn reads_that_bring_nothing_come_ever_more_rarely() {
        let mut pace = Pace::new(CEILING);

        let waits: Vec<_> = (0..8)
            .map(|_| pace.after_read(0, false).as_micros())
            .collect();

        assert_eq!(
            waits,
            [500, 1_000, 2_000, 4_000, 8_000, 16_000, 19_000, 19_000]
        );
    }

    #[test]
    fn rows_of_other_streams_alone_are_polled_as_an_idle_log_is_once_the_read_has_come_to_the_end()
    {
        let mut pace = Pace::new(CEILING);

        assert_eq!(pace.after_read(0, true), Duration::ZERO);
        assert!(!pace.looks_first(), "it is behind");
        assert_eq!(pace.after_read(0, false), FIRST);
        assert_eq!(pace.after_read(0, false), 2 * FIRST);
        assert_eq!(pace.after_read(1, false), Duration::ZERO);
    }

    #[test]
    fn only_one_that_is_behind_and_found_nothing_to_publish_passes() {
        let mut pace = Pace::new(CEILING);
        assert_eq!(pace.interest(), Interest::Own, "it does not know yet");

        for (own, left, interest) in [
            (0, true, Interest::Passing),
            (1, true, Interest::Own),
            (0, false, Interest::Own),
        ] {
            pace.after_read(own, left);
            assert_eq!(pace.interest(), interest, "{own} {left}");
        }
    }

    #[test]
    fn looks_that_show_nothing_come_ever_more_rarely_and_from_two_milliseconds_on_the_server_makes_them()
     {
        let mut pace = Pace::new(CEILING);
        pace.after_read(1, false);
        assert_eq!(pace.watches(), None);

        let waits: Vec<_> = (0..6)
            .map(|_| {
                assert!(pace.looks_first());
                let wait = pace.after_look(true).as_micros();
                (wait, pace.watches().map(|every| every.as_millis()))
            })
            .collect();

        let by_itself = [(0, Some(2)), (0, Some(4)), (0, Some(5)), (0, Some(5))];
        assert_eq!(waits[..2], [(500, None), (1_000, None)]);
        assert_eq!(waits[2..], by_itself);
    }

    #[test]
    fn a_ceiling_that_no_watch_lasts_for_is_waited_for_here() {
        let ceiling = 2 * WATCH_FOR;
        let mut pace = Pace::new(ceiling);

        for _ in 0..12 {
            pace.after_look(true);
        }

        assert_eq!((pace.watches(), pace.after_look(true)), (None, ceiling));
        assert_eq!(Pace::new(FIRST).watches(), None, "it has not waited yet");
    }

    #[test]
    fn a_few_rows_are_followed_by_a_look_at_once_and_many_by_a_read() {
        let mut pace = idle();

        assert_eq!(pace.after_read(FEW, false), Duration::ZERO);
        assert!(pace.looks_first());
        assert_eq!(pace.after_read(FEW + 1, false), Duration::ZERO);
        assert!(!pace.looks_first());
        assert_eq!(pace.after_read(0, false), FIRST);
        assert!(pace.looks_first());
    }

    #[test]
    fn what_a_look_shows_is_read_at_once_and_without_another_look() {
        let mut pace = idle();

        assert_eq!(pace.after_look(false), Duration::ZERO);

        assert!(!pace.looks_first());
        assert_eq!(pace.after_read(1, false), Duration::ZERO);
        assert!(pace.looks_first());
    }

    #[test]
    fn looks_in_vain_are_left_out_for_longer_each_time() {
        let mut pace = idle();
        let mut reads_between = Vec::new();

        for _ in 0..7 {
            pace.after_look(false);
            pace.after_read(0, false);
            let mut reads = 0;
            while !pace.looks_first() {
                pace.after_read(usize::from(reads % 2 == 0), false);
                reads += 1;
            }
            reads_between.push(reads);
        }

        assert_eq!(reads_between, [1, 2, 4, 8, 16, 16, 16]);
    }

    #[test]
    fn a_look_that_was_not_in_vain_makes_looks_worth_while_again() {
        for useful in [true, false] {
            let mut pace = idle();
            for _ in 0..3 {
                pace.after_look(false);
                pace.after_read(0, false);
                while !pace.looks_first() {
                    pace.after_read(0, false);
                }
            }
            if useful {
                pace.after_look(false);
                pace.after_read(1, false);
            } else {
                pace.after_look(true);
            }

            pace.after_look(false);
            pace.after_read(0, false);
            pace.after_read(0, false);
            assert!(pace.looks_first());
        }
    }
}

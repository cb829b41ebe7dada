//! Decides when to read the log next. Pure: the caller brings the clock.

use std::time::Duration;

/// The first wait after a read that found nothing.
const FIRST: Duration = Duration::from_millis(1);

/// Adaptive polling: at once while there is work, then backing off to a ceiling.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    ceiling: Duration,
    wait: Duration,
}

impl Pace {
    /// A pace that waits at most `ceiling` between two reads of an idle log.
    #[must_use]
    pub(crate) fn new(ceiling: Duration) -> Self {
        Self {
            ceiling,
            wait: Duration::ZERO,
        }
    }

    /// How long to wait after a read that found `rows` rows.
    pub(crate) fn after_read(&mut self, rows: usize) -> Duration {
        self.wait = if rows > 0 {
            Duration::ZERO
        } else {
            (self.wait * 2).clamp(FIRST, self.ceiling.max(FIRST))
        };
        self.wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_log_is_read_ever_more_rarely_down_to_the_ceiling() {
        let mut pace = Pace::new(Duration::from_millis(20));

        let waits: Vec<_> = (0..7).map(|_| pace.after_read(0).as_millis()).collect();

        assert_eq!(waits, [1, 2, 4, 8, 16, 20, 20]);
    }

    #[test]
    fn work_is_followed_by_a_read_at_once() {
        let mut pace = Pace::new(Duration::from_millis(20));
        pace.after_read(0);

        assert_eq!(pace.after_read(3), Duration::ZERO);
        assert_eq!(pace.after_read(0), FIRST);
    }
}

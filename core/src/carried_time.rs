//! What another clock says, without asking it again. Pure: the caller brings the monotonic clock.

use std::time::Instant;

use time::{Duration, OffsetDateTime};

/// A time that another clock told, carried on by this machine's monotonic clock. A wall clock of ours that is wrong, or jumps,
/// does not reach it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CarriedTime {
    told: OffsetDateTime,
    heard: Instant,
}

impl CarriedTime {
    /// What the other clock told, and when its answer came. It is behind by as long as the answer was on its way.
    #[must_use]
    pub const fn new(told: OffsetDateTime, heard: Instant) -> Self {
        Self { told, heard }
    }

    /// What the other clock says at `now`.
    #[must_use]
    pub fn at(&self, now: Instant) -> OffsetDateTime {
        let since = now.saturating_duration_since(self.heard);
        let since = Duration::try_from(since).unwrap_or(Duration::MAX);
        self.told.saturating_add(since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_from_what_was_told_and_never_back() {
        let told = OffsetDateTime::UNIX_EPOCH + Duration::HOUR;
        let heard = Instant::now();
        let second = std::time::Duration::from_secs(1);

        let time = CarriedTime::new(told, heard + second);

        assert_eq!(time.at(heard + 3 * second), told + 2 * Duration::SECOND);
        assert_eq!(time.at(heard), told);
    }
}

//! The database's time, as far as a reader needs it: for ages, never for decisions.

use time::{Duration, OffsetDateTime};

/// How far the database's clock is ahead of ours.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct DatabaseClock {
    ahead: Duration,
}

impl DatabaseClock {
    /// Takes note of what the database's clock said just now.
    pub(super) fn set(&mut self, database: OffsetDateTime) {
        self.ahead = database - OffsetDateTime::now_utc();
    }

    /// The database's time now.
    pub(super) fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc() + self.ahead
    }
}

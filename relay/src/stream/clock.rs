//! The database's time, as far as a reader needs it: for ages, never for decisions.

use std::time::Instant;

use onceward_core::CarriedTime;
use time::OffsetDateTime;

/// The database's clock, since it last told the time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct DatabaseClock(Option<CarriedTime>);

impl DatabaseClock {
    /// Takes note of what the database's clock said at a moment of ours.
    pub(super) fn set(&mut self, database: OffsetDateTime, at: Instant) {
        self.0 = Some(CarriedTime::new(database, at));
    }

    /// The database's time now; ours, before it has told.
    pub(super) fn now(&self) -> OffsetDateTime {
        self.0
            .map_or_else(OffsetDateTime::now_utc, |time| time.at(Instant::now()))
    }
}

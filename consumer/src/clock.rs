//! The database's time, which decides what has expired and what is old. The wall clock of this machine may be wrong, or jump.

use std::time::Instant;

use onceward_core::CarriedTime;
use sqlx::PgPool;
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::within::{Borrowed, START, within};

/// The database's clock, since it last told the time. Workers read what the look for due messages sets.
#[derive(Debug)]
pub(crate) struct DatabaseClock(watch::Sender<CarriedTime>);

impl DatabaseClock {
    /// Asks the database.
    pub(crate) async fn ask(pool: &PgPool) -> Result<Self, sqlx::Error> {
        let mut borrowed = Borrowed::of(pool).await?;
        let ask = sqlx::query_scalar("select clock_timestamp()").fetch_one(borrowed.connection());
        let told = within(START, ask).await?;
        borrowed.give_back();
        let time = CarriedTime::new(told, Instant::now());
        Ok(Self(watch::Sender::new(time)))
    }

    /// Takes note of what the database's clock said just now.
    pub(crate) fn set(&self, database: OffsetDateTime) {
        self.0
            .send_replace(CarriedTime::new(database, Instant::now()));
    }

    pub(crate) fn now(&self) -> OffsetDateTime {
        self.0.borrow().at(Instant::now())
    }
}

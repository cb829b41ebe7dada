//! How messages are handled: one by one, or in batches.

use onceward_consumer::{BatchSettings, Consumer, ConsumerBuilder, HandlerSettings, Limits};
use sqlx::PgPool;

use super::lot::Copies;
use super::tally::Count;
use crate::outcome::Outcome;

/// Handlers at a time, and connections of the bare transactions.
pub(super) const CONCURRENCY: u32 = 16;

/// Batches at a time, and messages of one.
pub(super) const BATCHES: usize = 4;
pub(super) const BATCH: usize = 250;

/// Deliveries in memory, of both: enough for all batches and for as many that wait.
const MEMORY: usize = 2_000;

/// How messages are handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Manner {
    OneByOne,
    Batches,
}

impl Manner {
    pub(crate) const ALL: [Self; 2] = [Self::OneByOne, Self::Batches];

    /// Messages of one run: so many that each takes some two seconds or more.
    pub(crate) const fn messages(self) -> u64 {
        match self {
            Self::OneByOne => 10_000,
            Self::Batches => 150_000,
        }
    }

    /// Messages of a transaction, and transactions at a time.
    pub(super) const fn transactions(self) -> (usize, usize) {
        match self {
            Self::OneByOne => (1, CONCURRENCY as usize),
            Self::Batches => (BATCH, BATCHES),
        }
    }

    /// The variant of a broker, such as `kafka batches duplicates`.
    pub(crate) fn variant(self, broker: &str, copies: Copies) -> String {
        let suffix = copies.suffix();
        match self {
            Self::OneByOne => format!("{broker}{suffix}"),
            Self::Batches => format!("{broker} batches{suffix}"),
        }
    }

    pub(crate) fn consumer(self, pool: PgPool, handler: Count) -> Outcome<Consumer> {
        let limits = Limits {
            concurrency: usize::try_from(CONCURRENCY)?,
            messages: MEMORY,
            ..Limits::default()
        };
        let builder = Consumer::builder("bench").pool(pool);
        let builder = self.with(builder, handler);
        Ok(builder.limits(limits).build()?)
    }

    fn with(self, builder: ConsumerBuilder, handler: Count) -> ConsumerBuilder {
        match self {
            Self::OneByOne => builder.handler("*", handler),
            Self::Batches => {
                let settings = HandlerSettings {
                    concurrency: Some(BATCHES),
                    batch: BatchSettings {
                        messages: BATCH,
                        ..BatchSettings::default()
                    },
                    ..HandlerSettings::default()
                };
                builder.batch("*", handler).with(settings)
            }
        }
    }
}

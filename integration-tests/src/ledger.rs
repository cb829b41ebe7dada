//! The ledger: an independent check of the promise, which shares no query with the product.
//!
//! What a service *committed* stands in business rows of its own, each written in one transaction with its message.
//! What was *published* is read from the broker as it lies there, copies and all. What *took effect* stands in a
//! table without a unique constraint, written by the handler. The [`Verdict`] compares the three:
//! nothing lost, nothing phantom, first arrivals of each key in the order of its commits, payloads byte for byte,
//! each effect once; no more copies than the interruptions explain, each of a message that a takeover may have repeated;
//! and no checkpoint under a token that does not prove the lease.
//!
//! ```no_run
//! # async fn test(database: onceward_testkit::postgres::Database, nats: &onceward_testkit::nats::Nats) {
//! use onceward_testkit::ledger::{Ledger, Stop, Tap, Workload};
//! use std::time::Duration;
//!
//! let ledger = Ledger::open(database.pool(), Tap::nats(nats.url(), &["orders"])).await;
//! let written = Workload::default().run(database.url(), Stop::new()).await;
//! assert!(written.messages >= 1000);
//! let verdict = ledger.verdict_within(Duration::from_secs(60)).await;
//! assert!(verdict.is_green(), "{verdict}");
//! # }
//! ```
//!
//! A program with business tables of its own fills [`Facts`] from them and calls [`judge`].

mod books;
pub mod effects;
mod facts;
mod fence;
mod judge;
mod tap;
mod verdict;
mod workload;

pub use books::{Ledger, Progress};
pub use facts::{Arrival, Committed, Effect, Facts, FenceEvent};
pub use judge::judge;
pub use tap::{Tap, TapError};
pub use tokio_util::sync::CancellationToken as Stop;
pub use verdict::Verdict;
pub use workload::{Mix, Workload, Written, append, append_many};

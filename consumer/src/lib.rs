//! An idempotent consumer: a handler whose effects happen once.
//!
//! A [`Consumer`] takes messages from a broker and runs a handler for each, in a transaction that also inserts the
//! message's *mark*. Whoever inserts the mark decides: however often the broker delivers a message, the writes of its
//! handler are committed once. What cannot be handled becomes a [dead letter](dead_letter), in the same transaction as
//! its mark. Messages of one key are handled in order, distinct keys side by side. A [`BatchHandler`] gets several messages
//! in one transaction.
//!
//! Effects outside the database may happen again; give them [`Tx::idempotency_key`].

mod age;
mod alarm;
mod batch;
mod clock;
mod commits;
mod consumer;
pub mod dead_letter;
mod error;
mod faults;
mod gauges;
mod handler;
mod health;
mod history;
mod joining;
mod keeper;
mod keys;
mod lag;
mod line;
mod mark;
mod member;
mod meters;
mod name;
mod nudge;
mod plan;
mod register;
mod ring;
mod room;
mod router;
pub mod schema;
mod sequence;
mod session;
mod settings;
mod settled;
mod sql;
mod stored;
mod transaction;
mod trial;
mod trouble;
mod tx;
mod typed;
mod types;
mod within;
mod work;

pub use batch::{BatchFn, BatchHandler, BatchSettings, BatchStateFn, BatchTx};
pub use consumer::{Consumer, ConsumerBuilder};
pub use error::{BuildError, ConsumerError};
pub use handler::{Handler, HandlerError};
pub use history::Attempt;
pub use name::{ConsumerName, InvalidName};
pub use settings::{FailingTypes, HandlerSettings, Limits};
pub use settled::Settled;
pub use tx::Tx;
pub use typed::{EventFn, StateFn};

#[cfg(feature = "faults")]
pub use faults::{Bug, Failpoint, plant};

pub use onceward_core::{Backoff, Message, Schema};
pub use tokio_util::sync::CancellationToken;

//! Several messages in one transaction: what a user writes for it, and what is decided about it.

mod handler;
mod plan;
mod settings;
mod tx;
mod typed;

pub use handler::BatchHandler;
pub(crate) use handler::{Alone, AnyBatch, WholeBatch};
pub(crate) use plan::{BatchNext, Filling, Place, Runs, after_batch, order_of_marks, places};
pub use settings::BatchSettings;
pub use tx::BatchTx;
pub use typed::{BatchFn, BatchStateFn};
pub(crate) use typed::{OfEvents, OfStateAndEvents};

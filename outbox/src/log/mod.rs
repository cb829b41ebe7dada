//! The log: an append-only table that several streams read, each with cursors of its own.

mod cursor;
mod durability;
mod error;
pub(crate) mod identity;
mod looking;
#[cfg(test)]
mod model;
pub(crate) mod numbers;
mod occupied;
mod pause;
#[cfg(test)]
mod plan;
mod quiet;
mod read;
mod read_sql;
pub(crate) mod retention;
pub(crate) mod row;
pub(crate) mod session;
mod sharing;
mod snapshot;

pub use cursor::{Cursor, LateBelow, Paging, Step};
pub use durability::PublishAfter;
pub use error::LogError;
pub use identity::{Identity, Refusal};
pub use quiet::Quiet;
pub use read::{CursorRead, LogReader, Read};
pub use retention::{Reason, RetentionTooLong, Ring};
pub use row::LogRow;
pub use session::LogDatabase;
pub use sharing::{Brought, Interest, Part, SharedReads};
pub use snapshot::{Snapshot, SnapshotError};

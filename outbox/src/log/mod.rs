//! The log: an append-only table that several streams read, each with cursors of its own.

mod cursor;
#[cfg(test)]
mod model;
mod snapshot;

pub use cursor::{Cursor, Paging};
pub use snapshot::{Snapshot, SnapshotError};

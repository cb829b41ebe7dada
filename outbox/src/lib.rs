//! A transactional outbox: write messages in the transaction that changes your data.

pub mod faults;
mod log;

pub use log::{Cursor, Paging, Snapshot, SnapshotError};

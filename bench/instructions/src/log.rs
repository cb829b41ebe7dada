//! The cursor's decision, out of the crate `onceward`.

#[path = "../../../outbox/src/log/cursor.rs"]
mod cursor;
#[path = "../../../outbox/src/log/snapshot.rs"]
mod snapshot;

pub(crate) use cursor::{Cursor, Found, LateBelow, Sequenced};
pub(crate) use snapshot::Snapshot;

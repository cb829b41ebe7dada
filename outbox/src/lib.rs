//! A transactional outbox: write messages in the transaction that changes your data.
//!
//! ```no_run
//! use onceward::{Message, Outbox};
//! # async fn example(pool: sqlx::PgPool) -> Result<(), Box<dyn std::error::Error>> {
//! let mut transaction = pool.begin().await?;
//! sqlx::query("update orders set state = 'paid' where id = 17").execute(&mut *transaction).await?;
//! let message = Message::json("orders.paid", &serde_json::json!({ "order": 17 }))?.key(17);
//! Outbox::new().enqueue(&mut transaction, message).await?;
//! transaction.commit().await?;
//! # Ok(())
//! # }
//! ```
//!
//! A message is published if and only if the transaction that wrote it committed. Publishing is the work of the
//! relay, the program `onceward`; what it needs of the database is the rest of this crate.

mod admin;
mod enqueue_error;
pub mod faults;
mod keeper;
mod lease;
mod log;
mod outbox;
pub mod schema;
mod sql;
mod statement;
mod trace;

pub use admin::{
    DropStream, Edited, LogAdmin, ParkedEdit, ParkedFilter, ParkedMessage, ParkedState,
    ParkedSummary, SlotReport,
};
pub use enqueue_error::EnqueueError;
pub use keeper::{
    Checkpoint, Claim, Claimed, Claiming, Detour, DetourCursor, DueMessage, Keeper, LeaseToken,
    NewDetour, Park, PausedTopic, Refused, Renewed, Start, StoredGlobs, UnknownDetour, Unrouted,
    UnroutedPolicy,
};
pub use lease::LeaseClock;
pub use log::{
    Brought, Cursor, CursorRead, Identity, Interest, LateBelow, LogDatabase, LogError, LogReader,
    LogRow, Paging, Part, PublishAfter, Quiet, Read, Reason, Refusal, RetentionTooLong, Ring,
    SharedReads, Snapshot, SnapshotError, Step,
};
pub use onceward_core::{
    Draft, InvalidHeader, InvalidKey, InvalidKind, InvalidMessage, InvalidSchema, InvalidTopic,
    Lane, MAX_PAYLOAD, Message, MessageId, Schema, UnknownLane,
};
pub use outbox::Outbox;
pub use statement::Statement;

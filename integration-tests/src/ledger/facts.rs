//! What the ledger knows: three independent lists, and who moved the cursors.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use uuid::Uuid;

/// A message whose transaction committed, as the service's own row says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The message's id.
    pub id: Uuid,
    /// Its key; `None` has no order.
    pub key: Option<String>,
    /// Counts up within the key, in the order of commits: taken under a lock of the key that is held until then.
    pub version: i64,
    /// What it carries; `None` is not compared.
    pub payload: Option<Vec<u8>>,
}

/// A message as it lies in the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// The id that it carries, if it carries a valid one.
    pub id: Option<Uuid>,
    /// The key that it carries.
    pub key: Option<String>,
    /// What it carries.
    pub payload: Vec<u8>,
    /// The broker's unit of order, such as `orders/3`.
    pub partition: Arc<str>,
    /// Its place there.
    pub position: u64,
}

/// What a handler committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// The id of the message handled.
    pub id: Uuid,
}

/// A change of a stream's lease or cursor, as the database saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FenceEvent {
    /// Somebody took the lease.
    Claim {
        /// Whose.
        stream: String,
        /// The `application_name` of who took it.
        who: String,
    },
    /// Somebody moved a cursor.
    Checkpoint {
        /// Whose.
        stream: String,
        /// The `application_name` of who moved it.
        who: String,
        /// The token that its connection was told at its last claim; `None` has claimed nothing.
        under: Option<Uuid>,
        /// The token that proved the lease in the same transaction; `None` is a lease that nobody holds.
        valid: Option<Uuid>,
        /// In which lane, and of which detour.
        cursor: (i16, String),
        /// To where.
        last_seq: i64,
    },
}

/// All that a verdict rests on.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// What was committed.
    pub committed: Vec<Committed>,
    /// What was published, copies included; in order within each partition.
    pub arrivals: Vec<Arrival>,
    /// What took effect, in the order in which handlers wrote it; `None` where nobody consumes.
    pub effects: Option<Vec<Effect>>,
    /// Who claimed and who checkpointed, in order.
    pub fence: Vec<FenceEvent>,
    /// Messages that are given up on for a reason the test knows: parked, or dead. They may be missing, or late.
    pub excused: BTreeSet<Uuid>,
    /// Whether the broker promises no order: then none is looked for.
    pub unordered: bool,
    /// How many copies the interruptions of the run explain; `None` is not checked.
    pub duplicates_allowed: Option<u64>,
    /// How many takeovers may have repeated a message, none for one that is not named; `None` is not checked.
    pub repeats: Option<HashMap<Uuid, u64>>,
}

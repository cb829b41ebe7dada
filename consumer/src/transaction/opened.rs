//! How an attempt at a delivery begins, and why it may not.

use uuid::Uuid;

use super::Ran;
use super::mark::Marked;
use crate::plan::Run;

/// The error of a message whose id another one has.
pub(crate) const ID_CONFLICT: &str =
    "another message with this id was settled before, with another type or payload";

/// The error of a delivery that nobody can tell from one that was settled.
const TOO_OLD: &str = "it is older than marks are kept, and the consumer has come farther before: \
     whether it was handled cannot be told";

/// The error of a message with the number of another.
const SEQUENCE_REUSED: &str = "another message of its key was settled with this sequence: its producer's numbering began anew, \
     or gave a number twice";

/// The error of a message whose number nobody can tell from one that was settled.
const SEQUENCE_UNKNOWN: &str =
    "its key had too many gaps in its sequence: whether it was handled cannot be told";

/// The error of a message that waits for its type.
pub(crate) const PAUSED: &str =
    "most messages of its type fail; it waits until one of them has been handled";

/// How an attempt at a delivery begins.
pub(super) enum Opened {
    /// The mark is ours, and nobody is before it.
    Free(Marked),
    /// The mark is ours, and earlier messages of the key wait.
    Held(Marked, Uuid),
    /// It is not to be handled.
    Not(Refused),
}

/// Why a delivery is not to be handled.
#[derive(Debug, Clone, Copy)]
pub(super) enum Refused {
    /// The mark was there.
    Settled,
    /// The mark was there, and is that of another message.
    Conflict,
    /// The mark was not there, and may have been forgotten.
    TooOld,
    /// Another message was settled with its number.
    Reused,
    /// It lay in a gap that is closed.
    Unknown,
}

impl Refused {
    /// What the attempt came to.
    pub(super) fn ran(self) -> Ran {
        match self {
            Self::Settled => Ran::new(Run::Duplicate, ""),
            Self::Conflict => Ran::new(Run::IdConflict, ID_CONFLICT),
            Self::TooOld => Ran::new(Run::TooOld, TOO_OLD),
            Self::Reused => Ran::new(Run::SequenceReused, SEQUENCE_REUSED),
            Self::Unknown => Ran::new(Run::SequenceUnknown, SEQUENCE_UNKNOWN),
        }
    }
}

//! What a failing type means for its messages: one is tried now and then, the others wait without an attempt.

use std::time::Duration;

use tracing::{error, info, warn};
use uuid::Uuid;

use super::Workshop;
use crate::handler::Verdict;
use crate::plan::Run;
use crate::transaction::Ran;
use crate::trouble::chain;

/// How long a message of a paused type waits, unless the type is resumed before.
pub(super) const WAIT: Duration = Duration::from_secs(300);

/// Between looks at a type that is paused while no more may be deferred.
pub(super) const FULL: Duration = Duration::from_secs(1);

/// The error of a message that waits for its type.
pub(super) const PAUSED: &str =
    "most messages of its type fail; it waits until one has been handled";

impl Workshop {
    /// Whether a type is paused: as this member knows it, and still in the database.
    pub(super) async fn is_paused(&self, kind: &str) -> bool {
        if !self.types.is_paused(kind) {
            return false;
        }
        let paused = match self.database.is_paused(kind).await {
            Ok(paused) => paused,
            // Nothing comes of it either way.
            Err(error) => {
                self.health.outage(&chain(&error));
                true
            }
        };
        if !paused {
            self.types.resumed(kind);
        }
        paused
    }

    /// Learns from an attempt, and pauses its type if most of it fails.
    pub(super) async fn learn(&self, kind: &str, mark: Uuid, ran: &Ran) {
        let failed = match ran.run {
            Run::Handled => false,
            Run::Failed(Verdict::Retry | Verdict::RetryAfter(_) | Verdict::Payload) => true,
            // The handler has decided about this one message; or it is not known whether it failed.
            Run::Failed(Verdict::Reject)
            | Run::LinedUp
            | Run::Duplicate
            | Run::IdConflict
            | Run::Conflict
            | Run::Elsewhere
            | Run::Outage
            | Run::Ended
            | Run::Crashed
            | Run::Expired
            | Run::Stopped => return,
        };
        if self.types.note(kind, mark, failed) {
            error!(kind, error = %ran.error, "most messages of a type fail: it is paused, and one is tried now and then");
            if let Err(error) = self.database.pause(kind, &ran.error).await {
                warn!(kind, error = %chain(&error), "a type could not be paused");
                self.types.resumed(kind);
            }
        }
    }

    /// The one that was tried has been handled.
    pub(super) async fn resume(&self, kind: &str) {
        info!(kind, "a paused type is handled again");
        match self.database.resume(kind).await {
            Ok(()) => self.types.resumed(kind),
            Err(error) => {
                warn!(kind, error = %chain(&error), "a type could not be resumed; it is tried again");
            }
        }
    }
}

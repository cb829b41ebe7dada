//! What a failing type means for its messages: one is tried now and then, the others wait without an attempt.

use std::collections::HashSet;

use tracing::{error, info, warn};
use uuid::Uuid;

use super::Workshop;
use crate::faults::{Bug, planted};
use crate::plan::Tells;
use crate::plan::failing::tells;
use crate::transaction::{PausedType, Ran};
use crate::trial::Trial;
use crate::trouble::chain;

impl Workshop {
    /// Learns from a run, and pauses its type if most of it fails.
    pub(super) async fn learn(&self, kind: &str, mark: Uuid, ran: &Ran) {
        let failed = match tells(ran.run) {
            Tells::Works => false,
            Tells::Fails => true,
            Tells::Nothing => return,
        };
        if !self.types.note(kind, mark, failed) {
            return;
        }
        if planted(Bug::PausesInMemory) {
            self.types.paused(kind);
            return;
        }
        let every = self.types.settings().probe_every;
        match self.database.pause(kind, &ran.error, every).await {
            Ok(new) => {
                self.types.paused(kind);
                if new {
                    error!(
                        kind,
                        "most messages of a type fail: it is paused, and one is tried now and then"
                    );
                    self.meters.paused();
                }
            }
            Err(error) => {
                warn!(kind, error = %chain(&error), "a type that fails could not be paused; will retry");
            }
        }
    }

    /// Asks the database which types are paused, or being resumed.
    pub(crate) async fn ask_for_paused_types(&self) -> Result<Vec<PausedType>, sqlx::Error> {
        let asked = self.types.asks();
        let types = self.database.paused_types().await?;
        let paused = types.iter().filter(|one| !one.resumed);
        let kinds: HashSet<String> = paused.map(|one| one.kind.clone()).collect();
        self.meters.paused_types(kinds.len());
        self.types.told_paused(kinds, asked);
        Ok(types)
    }

    /// A message that was tried for all of its type tells that the type is handled again. If that cannot be written, the next one
    /// that is tried says so.
    pub(super) async fn learn_from_probe(&self, kind: &str, trial: &Trial, ran: &Ran) {
        match tells(ran.run) {
            Tells::Works => trial.has_told(),
            Tells::Fails => return trial.has_told(),
            Tells::Nothing => return,
        }
        match self.database.resume(kind).await {
            Ok(()) => {
                info!(kind, "a paused type is handled again");
                self.types.resumed(kind);
            }
            Err(error) => {
                warn!(kind, error = %chain(&error), "a type could not be resumed; another message will be tried");
            }
        }
    }
}

//! The crash guard: a message that kills its process each time must not do so for ever, and its neighbours are not to blame.
//!
//! Before the handler of a suspect runs, its start is written; it is taken away when the handler has ended, however. Whoever
//! finds the start of another life runs that message with nothing beside it, and only such runs count against it.

use tokio::sync::SemaphorePermit;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};
use uuid::Uuid;

use super::Workshop;
use crate::faults::{Fault, planted};
use crate::mark::Mark;
use crate::trouble::chain;

/// How often a process may die while a message is handled alone.
const CRASHES: i16 = 3;

/// Whether a handler may run.
pub(super) enum Guarded<'a> {
    /// For as long as the place is held.
    Run(Place<'a>),
    /// It has killed its process too often.
    Crashed,
    /// Nothing new of it may start any more.
    Left,
    /// The database did not answer: why.
    Outage(String),
}

/// A place to run in, and the start that is written for it.
pub(super) struct Place<'a> {
    _permit: SemaphorePermit<'a>,
    pub(super) started: Option<Uuid>,
}

impl Workshop {
    /// Waits for a place: one of many, or all of them for a suspect whose last start has no end. `suspect`: it may have been
    /// in work when a process died.
    pub(super) async fn guard(
        &self,
        mark: &Mark,
        suspect: bool,
        leave: &CancellationToken,
    ) -> Guarded<'_> {
        let Some(permit) = self.place(1, leave).await else {
            return Guarded::Left;
        };
        if !suspect {
            return Guarded::Run(Place {
                _permit: permit,
                started: None,
            });
        }
        match self.database.start(mark, self.member).await {
            Ok(true) => Guarded::Run(Place {
                _permit: permit,
                started: Some(self.member),
            }),
            Ok(false) => {
                drop(permit);
                self.guard_alone(mark, leave).await
            }
            Err(error) => Guarded::Outage(chain(&error)),
        }
    }

    async fn guard_alone(&self, mark: &Mark, leave: &CancellationToken) -> Guarded<'_> {
        let all = if planted(Fault::NeighboursCounted) {
            1
        } else {
            self.all_places
        };
        // In the order of asking: whoever comes later waits until this one is done.
        let Some(permit) = self.place(all, leave).await else {
            return Guarded::Left;
        };
        match self.database.start_alone(mark, self.member).await {
            Ok(Some(crashes)) if crashes >= CRASHES => {
                error!(mark = %mark.id, crashes, "a message is given up on: the process died each time it was handled alone");
                Guarded::Crashed
            }
            Ok(crashes) => {
                warn!(mark = %mark.id, ?crashes, "a message was in work when a process died; it is handled alone");
                Guarded::Run(Place {
                    _permit: permit,
                    started: Some(self.member),
                })
            }
            Err(error) => Guarded::Outage(chain(&error)),
        }
    }

    /// None: nothing new may start any more.
    async fn place(&self, places: u32, leave: &CancellationToken) -> Option<SemaphorePermit<'_>> {
        tokio::select! {
            biased;
            () = leave.cancelled() => None,
            permit = self.places.acquire_many(places) => permit.ok(),
        }
    }

    /// A handler has ended, and its transaction has not taken its start away. If that fails, the message runs alone next time.
    pub(super) async fn unguard(&self, mark: &Mark, started: Option<Uuid>) {
        if let Some(member) = started
            && let Err(error) = self.database.end_start(mark, member).await
        {
            warn!(mark = %mark.id, error = %chain(&error), "the end of a handler could not be written");
        }
    }
}

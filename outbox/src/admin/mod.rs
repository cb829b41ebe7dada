//! What people and programs ask of the log from outside: its state, its streams, its parked messages, its slots.

mod edit;
mod parked;
mod slots;
mod stream;

use onceward_core::Schema;

pub use edit::{Edited, ParkedEdit};
pub use parked::{ParkedFilter, ParkedMessage, ParkedState, ParkedSummary};
pub use slots::SlotReport;
pub use stream::DropStream;

use crate::log::LogError;
use crate::log::identity::Identity;
use crate::log::session::{LogDatabase, Purpose, Session};

/// Looks after the log, over a connection of its own. It holds no lease: what must be published it makes due, and the
/// lease holder publishes.
///
/// # Cancel safety
/// If a future of a method is dropped, a change may or may not have been made, each call's whole or not at all, and the
/// connection is of no more use: connect again, look, and ask again if need be. Nothing that is asked twice harms.
#[derive(Debug)]
pub struct LogAdmin {
    session: Session,
    schema: Schema,
}

impl LogAdmin {
    /// Connects.
    ///
    /// # Errors
    /// [`LogError::Standby`], [`LogError::TransactionPooler`], or that the database cannot be reached.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub async fn connect(database: &LogDatabase) -> Result<Self, LogError> {
        Ok(Self {
            session: Session::open(database, Purpose::Write).await?,
            schema: database.schema.clone(),
        })
    }

    /// Which server it asks.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.session.identity()
    }

    /// Says goodbye to the server; at most a second.
    ///
    /// # Cancel safety
    /// Safe to drop: the connection ends without a goodbye.
    pub async fn close(self) {
        self.session.close().await;
    }
}

//! Why a migration is refused or fails.

use std::fmt;

use onceward_core::{Chain, Schema};

/// Why the schema could not be brought up to date. Nothing of the failed step remains.
#[derive(thiserror::Error)]
pub enum MigrateError {
    /// The database was made by a newer release. Use that release or a newer one.
    #[error(
        "the schema {schema} is at version {found}, and this program knows versions up to {known}: use a newer release of it"
    )]
    Newer {
        /// The schema.
        schema: Schema,
        /// The version that the database is at.
        found: i32,
        /// The newest version that this program knows.
        known: i32,
    },
    /// A step was applied with another text than this program has. Find out who changed it.
    #[error(
        "step {version} of the schema {schema} was applied with another text than this program knows"
    )]
    Changed {
        /// The schema.
        schema: Schema,
        /// The step.
        version: i32,
    },
    /// Somebody holds a lock that a step needs; it gave way each time so as not to block others. Try again when
    /// the long transactions are over.
    #[error(
        "step {version} of the schema {schema} gave up after waiting {attempts} times for a lock: a long transaction or another migration is in the way"
    )]
    Locked {
        /// The schema.
        schema: Schema,
        /// The step.
        version: i32,
        /// How often it was tried.
        attempts: u32,
        /// What the database said last.
        source: sqlx::Error,
    },
    /// The database takes no changes: it is a standby or read-only. Connect to the primary.
    #[error("the database is read-only, perhaps a standby: migrate the primary")]
    ReadOnly(#[source] sqlx::Error),
    /// A step failed.
    #[error("step {version} of the schema {schema} failed")]
    Step {
        /// The schema.
        schema: Schema,
        /// The step.
        version: i32,
        /// What the database said.
        source: sqlx::Error,
    },
    /// The database could not be asked.
    #[error("the database could not be asked about the schema {schema}")]
    Database {
        /// The schema.
        schema: Schema,
        /// What went wrong.
        source: sqlx::Error,
    },
}

/// As for people: with what lies behind it.
impl fmt::Debug for MigrateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Chain(self))
    }
}

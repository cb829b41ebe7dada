//! The tables of Onceward as plain SQL, with an own schema and an own history.
//!
//! ```no_run
//! # async fn example(pool: sqlx::PgPool) -> Result<(), onceward_migrations::MigrateError> {
//! onceward_migrations::run(&pool).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Running again changes nothing, any number of programs may run at once, and the SQL that runs is the SQL that
//! [`Migrations::print`] gives for use in another tool: whichever way a step is applied, it is recorded in the
//! table `migrations` of the schema and every other way knows it.

mod check;
mod error;
mod history;
mod migration;
mod migrations;

#[cfg(test)]
mod tests;

pub use check::{Check, State};
pub use error::MigrateError;
pub use migration::LATEST;
pub use migrations::{Migrations, Report};
pub use onceward_core::{InvalidSchema, Schema};

/// Brings the schema `onceward` up to date. See [`Migrations::run`].
///
/// # Errors
/// Those of [`Migrations::run`].
///
/// # Cancel safety
/// Each step is one transaction: a step is applied whole or not at all. Run it again.
pub async fn run(pool: &sqlx::PgPool) -> Result<Report, MigrateError> {
    Migrations::new(Schema::default()).run(pool).await
}

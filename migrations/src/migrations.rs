//! Brings a schema up to date, step by step, each in a transaction of its own.

use std::time::Duration;

use onceward_core::Schema;
use sqlx::{AssertSqlSafe, Connection, PgPool};
use tracing::{info, warn};

use crate::check::{Check, compare};
use crate::error::MigrateError;
use crate::history;
use crate::migration::{ALL, Migration};

/// How often a step is tried that does not get its lock, each time for up to 3 seconds.
const ATTEMPTS: u32 = 5;

/// The pause between two tries, in which those that queued behind the step get their turn.
const PAUSE: Duration = Duration::from_millis(500);

/// The roles that the schema's rights are granted to.
const ROLES: [&str; 4] = [
    "onceward_writer",
    "onceward_relay",
    "onceward_consumer",
    "onceward_admin",
];

/// The steps that make the tables in one schema.
#[derive(Debug, Clone)]
pub struct Migrations {
    schema: Schema,
    steps: Vec<Migration>,
    attempts: u32,
}

/// What a run did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The versions that this run found pending, now applied; empty if there was nothing to do.
    pub applied: Vec<i32>,
    /// Roles that do not exist, since the user may not create them. The tables work without; to have them, an
    /// administrator creates them (`create role … nologin`) and the owner runs `select <schema>.grant_rights()`.
    pub missing_roles: Vec<String>,
}

impl Migrations {
    /// The steps of this release for a schema.
    #[must_use]
    pub fn new(schema: Schema) -> Self {
        Self {
            schema,
            steps: ALL.to_vec(),
            attempts: ATTEMPTS,
        }
    }

    #[cfg(test)]
    pub(crate) fn with_steps(schema: Schema, steps: Vec<Migration>) -> Self {
        Self {
            schema,
            steps,
            attempts: ATTEMPTS,
        }
    }

    #[cfg(test)]
    pub(crate) fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// All steps as SQL for any other tool: one statement for each, safe to run again, in or out of a transaction.
    /// Steps applied that way are known to [`run`](Self::run) and [`check`](Self::check).
    #[must_use]
    pub fn print(&self) -> String {
        let steps: Vec<String> = self
            .steps
            .iter()
            .map(|step| {
                let rendered = step.render(&self.schema);
                format!("-- Step {}: {}\n{rendered}", step.version, step.name)
            })
            .collect();
        steps.join("\n")
    }

    /// How the database stands to this release. Changes nothing.
    ///
    /// # Errors
    /// [`MigrateError::Database`] if it cannot be asked.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub async fn check(&self, pool: &PgPool) -> Result<Check, MigrateError> {
        let applied = history::applied(pool, &self.schema)
            .await
            .map_err(|source| MigrateError::Database {
                schema: self.schema.clone(),
                source,
            })?;
        Ok(compare(&self.schema, &applied, &self.steps))
    }

    /// Applies what is pending. A step waits at most 3 seconds for a lock, so that a long transaction never makes
    /// the service queue behind a migration; it is tried five times.
    ///
    /// # Errors
    /// - [`MigrateError::Newer`] or [`MigrateError::Changed`]: nothing was done.
    /// - [`MigrateError::Locked`]: try again later.
    /// - [`MigrateError::ReadOnly`]: connect to the primary.
    /// - [`MigrateError::Step`], [`MigrateError::Database`]: earlier steps stay applied; correct the cause and run again.
    ///
    /// # Cancel safety
    /// Each step is one transaction: a step is applied whole or not at all. Run it again.
    pub async fn run(&self, pool: &PgPool) -> Result<Report, MigrateError> {
        let pending = self.check(pool).await?.pending()?;
        for step in &self.steps {
            if pending.contains(&step.version) {
                self.apply(pool, step).await?;
                info!(schema = %self.schema, version = step.version, name = step.name, "schema step applied");
            }
        }
        let missing_roles = self.missing_roles(pool).await?;
        if !missing_roles.is_empty() && !pending.is_empty() {
            warn!(
                schema = %self.schema,
                roles = missing_roles.join(", "),
                "roles are missing and this user may not create them"
            );
        }
        Ok(Report {
            applied: pending,
            missing_roles,
        })
    }

    async fn apply(&self, pool: &PgPool, step: &Migration) -> Result<(), MigrateError> {
        let mut attempts = 1;
        loop {
            let error = match self.attempt(pool, step).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let schema = self.schema.clone();
            let version = step.version;
            match code(&error).as_deref() {
                Some(LOCK_NOT_AVAILABLE) if attempts < self.attempts => {
                    warn!(schema = %schema, version, attempts, "a schema step waits for a lock; will retry");
                    attempts += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                Some(LOCK_NOT_AVAILABLE) => {
                    return Err(MigrateError::Locked {
                        schema,
                        version,
                        attempts,
                        source: error,
                    });
                }
                Some(READ_ONLY_TRANSACTION) => return Err(MigrateError::ReadOnly(error)),
                Some(_) | None => {
                    return Err(MigrateError::Step {
                        schema,
                        version,
                        source: error,
                    });
                }
            }
        }
    }

    async fn attempt(&self, pool: &PgPool, step: &Migration) -> Result<(), sqlx::Error> {
        let mut connection = pool.acquire().await?;
        // Whatever the database's default is: after the wait for the lock, the next statement must see what the
        // other program has done.
        let mut transaction = connection
            .begin_with("begin isolation level read committed")
            .await?;
        sqlx::raw_sql(AssertSqlSafe(step.render(&self.schema)))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await
    }

    async fn missing_roles(&self, pool: &PgPool) -> Result<Vec<String>, MigrateError> {
        sqlx::query_scalar(
            "select wanted
             from unnest($1::text[]) with ordinality w (wanted, position)
             where not exists (select from pg_catalog.pg_roles r where r.rolname = wanted)
             order by position",
        )
        .bind(&ROLES[..])
        .fetch_all(pool)
        .await
        .map_err(|source| MigrateError::Database {
            schema: self.schema.clone(),
            source,
        })
    }
}

const LOCK_NOT_AVAILABLE: &str = "55P03";
const READ_ONLY_TRANSACTION: &str = "25006";

fn code(error: &sqlx::Error) -> Option<String> {
    let code = error.as_database_error()?.code()?;
    Some(code.into_owned())
}

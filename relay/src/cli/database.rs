//! Reaches the database, and says in a sentence why it cannot.

use std::future::Future;
use std::str::FromStr;
use std::time::Duration;

use onceward::{LogAdmin, LogDatabase};
use onceward_core::BoxError;
use onceward_migrations::{Migrations, State};
use secrecy::ExposeSecret as _;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection as _, PgConnection, PgPool};
use tokio::time::timeout;

use super::failure::Failure;
use super::{Context, rights};
use crate::config::Database;

/// A database that has answered.
#[derive(Debug, Clone)]
pub(super) struct Reached {
    /// A pool of few connections.
    pub(super) pool: PgPool,
    /// How long one answer may take.
    answer_timeout: Duration,
}

impl Reached {
    /// Waits for an answer of the database, but not for ever.
    pub(super) async fn ask<T, E: Into<BoxError>>(
        &self,
        what: &str,
        question: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failure> {
        match timeout(self.answer_timeout, question).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                Err(Failure::failed(format!("{what} could not be done")).because(error))
            }
            Err(_) => {
                let limit = crate::config::show_duration(self.answer_timeout);
                Err(Failure::failed(format!(
                    "{what}: the database did not answer within {limit}"
                ))
                .remedy("look for what blocks it, or raise database.answer_timeout"))
            }
        }
    }
}

/// How to connect, for a program that shows itself to the database under `application`.
pub(super) fn options(database: &Database, application: &str) -> Result<PgConnectOptions, Failure> {
    let url = database.url.as_ref().ok_or_else(|| {
        Failure::usage("no database is named: database.url is not set")
            .remedy("set database.url in onceward.toml, or the variable DATABASE_URL or ONCEWARD__DATABASE__URL")
    })?;
    let options = PgConnectOptions::from_str(url.expose_secret())
        .map_err(|_| Failure::usage("database.url is no PostgreSQL URL"))?;
    // A name of the user's own wins: by it the relays of one database are told apart.
    Ok(match options.get_application_name() {
        Some(_) => options,
        None => options.application_name(application),
    })
}

/// Connects once, so that a refusal is told as it is, and makes a pool for the rest.
pub(super) async fn reach(database: &Database, application: &str) -> Result<Reached, Failure> {
    let options = options(database, application)?;
    let connected = timeout(
        database.connect_timeout,
        PgConnection::connect_with(&options),
    )
    .await;
    let connection = match connected {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return Err(unreachable(&options, error)),
        Err(elapsed) => return Err(no_answer(&options).because(elapsed)),
    };
    // It has served its purpose; whether it closes well says nothing about the next.
    drop(timeout(Duration::from_secs(1), connection.close()).await);
    let pool = PgPoolOptions::new()
        .max_connections(2)
        .acquire_timeout(database.connect_timeout)
        .connect_lazy_with(options);
    Ok(Reached {
        pool,
        answer_timeout: database.answer_timeout,
    })
}

/// Connects to a database whose schema is the one that this program knows.
pub(super) async fn reach_schema(
    database: &Database,
    application: &str,
) -> Result<Reached, Failure> {
    let reached = reach(database, application).await?;
    let migrations = Migrations::new(database.schema.clone());
    let check = reached
        .ask("the check of the schema", migrations.check(&reached.pool))
        .await?;
    let (schema, known) = (&check.schema, check.known);
    match (check.version, check.state) {
        (_, State::Current) => Ok(reached),
        (None, State::Pending(_)) => Err(Failure::failed(format!("the database has no schema {schema}"))
            .remedy("run `onceward migrate`, or correct database.schema")),
        (Some(version), State::Pending(_)) => Err(Failure::failed(format!(
            "the schema {schema} is at version {version}, and this program needs version {known}"
        ))
        .remedy("run `onceward migrate`")),
        (version, State::Newer) => Err(Failure::failed(format!(
            "the schema {schema} is at version {}, and this program knows versions up to {known}",
            version.unwrap_or_default()
        ))
        .remedy("use a newer release of onceward")),
        (_, State::Changed(step)) => Err(Failure::failed(format!(
            "step {step} of the schema {schema} was applied with another text than this program knows"
        ))
        .remedy("find out who changed it; docs/recovery.md says what to look for")),
    }
}

/// Connects to look after the log of a database whose schema is the one that this program knows.
pub(super) async fn admin(context: &Context, application: &str) -> Result<LogAdmin, Failure> {
    let reached = reach_schema(&context.config.database, application).await?;
    look_after(context, application, reached).await
}

/// The same for who is to decide on what waits for a person; others are refused.
pub(super) async fn deciding_admin(
    context: &Context,
    application: &str,
) -> Result<LogAdmin, Failure> {
    let reached = reach_schema(&context.config.database, application).await?;
    rights::demand_admin(context, &reached).await?;
    look_after(context, application, reached).await
}

async fn look_after(
    context: &Context,
    application: &str,
    reached: Reached,
) -> Result<LogAdmin, Failure> {
    let config = &context.config.database;
    reached.pool.close().await;
    let log = LogDatabase::new(options(config, application)?, config.schema.clone())
        .within(config.answer_timeout);
    LogAdmin::connect(&log)
        .await
        .map_err(failed("looking after the log"))
}

/// For `map_err`: what was tried could not be done.
pub(super) fn failed<E: Into<BoxError>>(what: &str) -> impl FnOnce(E) -> Failure {
    move |error| Failure::failed(format!("{what} could not be done")).because(error)
}

/// The user that the database is asked as.
pub(super) fn user(database: &Database) -> Option<String> {
    let options = options(database, "onceward").ok()?;
    Some(options.get_username().to_owned())
}

/// Whether the user lacks a right.
pub(super) fn is_forbidden(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.as_deref() == Some("42501")
}

fn no_answer(options: &PgConnectOptions) -> Failure {
    let (host, port) = (options.get_host(), options.get_port());
    Failure::failed(format!(
        "no database answers at {host}:{port}, which database.url names"
    ))
    .remedy("check database.url, and that PostgreSQL runs there and can be reached")
}

fn unreachable(options: &PgConnectOptions, error: sqlx::Error) -> Failure {
    let code = error
        .as_database_error()
        .and_then(|e| e.code())
        .map(|code| code.into_owned());
    let (host, port) = (options.get_host(), options.get_port());
    let (user, name) = (
        options.get_username(),
        options.get_database().unwrap_or_default(),
    );
    let failure = match code.as_deref() {
        Some("28P01" | "28000") => Failure::failed(format!(
            "the database at {host}:{port} does not let the user {user:?} in, as database.url has it"
        ))
        .remedy("check user and password in database.url, and the server's pg_hba.conf"),
        Some("3D000") => Failure::failed(format!(
            "the server at {host}:{port} has no database {name:?}, which database.url names"
        ))
        .remedy("correct database.url, or create the database"),
        Some("53300") => Failure::failed(format!("the database at {host}:{port} has no connection left"))
            .remedy("raise its max_connections, or close what is not needed"),
        Some("57P03") => Failure::failed(format!("the database at {host}:{port} is starting or stopping"))
            .remedy("try again in a moment"),
        Some(_) => Failure::failed(format!(
            "the database at {host}:{port}, which database.url names, refuses the connection"
        )),
        None => no_answer(options),
    };
    failure.because(error)
}

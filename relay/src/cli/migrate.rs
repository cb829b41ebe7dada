//! `onceward migrate`: brings the schema up to date, or says how it stands, or prints the SQL.

use clap::Args;
use onceward::schema::grant_rights;
use onceward_migrations::{Check, MigrateError, Migrations, Report, State};
use serde::Serialize;

use super::failure::Failure;
use super::{Context, database};

/// Bring the database's schema up to date
///
/// Applies what is missing, each step in a transaction of its own. Running again changes nothing. A step waits at
/// most 3 seconds for a lock, so that the service never queues behind a migration.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  onceward migrate                          apply what is missing
  onceward migrate --check                  exit with 1 if something is missing
  onceward migrate --print > outbox.sql     the same SQL for another migration tool")]
pub(super) struct Migrate {
    /// Print all steps as SQL and do nothing
    #[arg(long, conflicts_with = "check")]
    print: bool,
    /// Only say how the database stands; exit with 1 unless it is up to date
    #[arg(long)]
    check: bool,
}

#[derive(Debug, Serialize)]
struct Answer<'a> {
    schema: &'a str,
    version: Option<i32>,
    known: i32,
    state: &'static str,
    pending: Vec<i32>,
    applied: Vec<i32>,
    missing_roles: Vec<String>,
}

impl Migrate {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let migrations = Migrations::new(context.config.database.schema.clone());
        if self.print {
            return context.output.text(&migrations.print());
        }
        let reached = database::reach(&context.config.database, "onceward migrate").await?;
        if self.check {
            let asked = migrations.check(&reached.pool);
            let check = reached.ask("the check of the schema", asked).await?;
            return answer_check(context, &check);
        }
        // Not within the time for one answer: each step bounds itself, and a step over much data takes its time.
        let report = migrations.run(&reached.pool).await.map_err(failure)?;
        let check = migrations.check(&reached.pool).await.map_err(failure)?;
        answer_report(context, &check, report)
    }
}

fn answer_check(context: &Context, check: &Check) -> Result<(), Failure> {
    let (state, pending) = state(&check.state);
    let answer = Answer {
        schema: check.schema.as_str(),
        version: check.version,
        known: check.known,
        state,
        pending,
        applied: Vec::new(),
        missing_roles: Vec::new(),
    };
    context.output.answer(&answer, |answer| {
        let version = answer
            .version
            .map_or("not there".to_owned(), |v| format!("at version {v}"));
        format!(
            "schema {}: {version}, known {}: {}",
            answer.schema, answer.known, answer.state
        )
    })?;
    match check.state {
        State::Current => Ok(()),
        State::Pending(_) => {
            Err(Failure::failed("the schema is not up to date").remedy("run `onceward migrate`"))
        }
        State::Newer => Err(
            Failure::failed("the schema is newer than this program knows")
                .remedy("use a newer release of onceward"),
        ),
        State::Changed(version) => Err(Failure::failed(format!(
            "step {version} was applied with another text than this program knows"
        ))
        .remedy("find out who changed it; docs/recovery.md says what to look for")),
    }
}

fn answer_report(context: &Context, check: &Check, report: Report) -> Result<(), Failure> {
    let (state, pending) = state(&check.state);
    let answer = Answer {
        schema: check.schema.as_str(),
        version: check.version,
        known: check.known,
        state,
        pending,
        applied: report.applied,
        missing_roles: report.missing_roles,
    };
    context.output.answer(&answer, |answer| {
        let mut text = match answer.applied.len() {
            0 => format!("schema {}: up to date, nothing to do", answer.schema),
            1 => format!("schema {}: 1 step applied", answer.schema),
            count => format!("schema {}: {count} steps applied", answer.schema),
        };
        if !answer.missing_roles.is_empty() {
            let create: Vec<String> = answer.missing_roles.iter().map(|role| format!("  create role {role} nologin;")).collect();
            text.push_str(&format!(
                "\nRoles are missing. To have them, an administrator runs\n{}\nand the owner of the tables\n  {}",
                create.join("\n"),
                grant_rights(&context.config.database.schema)
            ));
        }
        text
    })
}

fn state(state: &State) -> (&'static str, Vec<i32>) {
    match state {
        State::Current => ("current", Vec::new()),
        State::Pending(versions) => ("pending", versions.clone()),
        State::Newer => ("newer", Vec::new()),
        State::Changed(_) => ("changed", Vec::new()),
    }
}

fn failure(error: MigrateError) -> Failure {
    let remedy = match &error {
        MigrateError::Newer { .. } => "use the release that made it, or a newer one",
        MigrateError::Changed { .. } => {
            "find out who changed it; docs/recovery.md says what to look for"
        }
        MigrateError::Locked { .. } => {
            "run it again when the long transactions are over; `onceward doctor` lists them"
        }
        MigrateError::ReadOnly(_) => "let database.url name the primary",
        MigrateError::Step { .. } | MigrateError::Database { .. } => {
            "correct the cause and run it again; what was applied stays"
        }
    };
    Failure::failed("the schema could not be brought up to date")
        .because(error)
        .remedy(remedy)
}

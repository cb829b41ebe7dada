//! `onceward dead-letters`: what consumers have given up on.

use clap::{Args, Subcommand};
use onceward_consumer::dead_letter::{self, DeadLetter, Filter, Payload, Summary};
use serde::Serialize;
use time::format_description::well_known::Rfc3339;

use super::failure::Failure;
use super::output::{Table, plain_lines};
use super::{Context, database};

/// Show deliveries that a consumer has given up on
#[derive(Debug, Args)]
pub(super) struct DeadLetters {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(List),
    Show(Show),
}

/// List dead letters, newest first
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  onceward dead-letters list
  onceward dead-letters list --consumer billing --reason attempts
  onceward dead-letters list --before 1200        the next page, below id 1200")]
struct List {
    /// Of this consumer only
    #[arg(long)]
    consumer: Option<String>,
    /// With this reason only, such as rejected, attempts or undecodable
    #[arg(long)]
    reason: Option<String>,
    /// In this state
    #[arg(long, default_value = "dead", value_parser = ["dead", "replayed", "discarded", "all"])]
    state: String,
    /// With a smaller id than this: the last one of the page before
    #[arg(long, value_name = "ID")]
    before: Option<i64>,
    /// At most so many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
}

/// Show one dead letter with its message, its origin and its attempts
#[derive(Debug, Args)]
#[command(after_help = "Example:
  onceward dead-letters show 1207")]
struct Show {
    /// Its number, as the list shows it
    id: i64,
}

#[derive(Debug, Serialize)]
struct Page {
    dead_letters: Vec<Summary>,
}

impl DeadLetters {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self.command {
            Command::List(list) => list.run(context).await,
            Command::Show(show) => show.run(context).await,
        }
    }
}

impl List {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let config = &context.config.database;
        let reached = database::reach_schema(config, "onceward dead-letters").await?;
        let filter = Filter {
            consumer: self.consumer,
            reason: self.reason,
            state: (self.state != "all").then_some(self.state),
            before: self.before,
            limit: self.limit,
        };
        let listed = dead_letter::list(&reached.pool, &config.schema, &filter);
        let dead_letters = reached.ask("listing the dead letters", listed).await?;
        context
            .output
            .answer(&Page { dead_letters }, |page| table(&page.dead_letters))
    }
}

impl Show {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let config = &context.config.database;
        let reached = database::reach_schema(config, "onceward dead-letters").await?;
        let shown = dead_letter::show(&reached.pool, &config.schema, self.id);
        let letter = reached.ask("reading the dead letter", shown).await?;
        let letter = letter.ok_or_else(|| {
            Failure::failed(format!("there is no dead letter {}", self.id))
                .remedy("`onceward dead-letters list` shows those that are there")
        })?;
        context.output.answer(&letter, details)
    }
}

fn table(letters: &[Summary]) -> String {
    if letters.is_empty() {
        return "no dead letters\n".to_owned();
    }
    let mut table = Table::new([
        "ID", "DEAD AT", "CONSUMER", "TYPE", "KEY", "REASON", "ATTEMPTS", "ERROR",
    ]);
    for letter in letters {
        table.row([
            letter.id.to_string(),
            letter.dead_at.format(&Rfc3339).unwrap_or_default(),
            letter.consumer.clone(),
            letter.kind.clone().unwrap_or_else(|| "-".to_owned()),
            letter.key.clone().unwrap_or_else(|| "-".to_owned()),
            letter.reason.clone(),
            letter.attempts.to_string(),
            letter.error.clone(),
        ]);
    }
    table.render()
}

fn details(letter: &DeadLetter) -> String {
    let summary = &letter.summary;
    let time = |time: time::OffsetDateTime| time.format(&Rfc3339).unwrap_or_default();
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let mut table = Table::new(["dead letter", &summary.id.to_string()]);
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("consumer", summary.consumer.clone());
    row(
        "state",
        format!("{}, replayed {} times", summary.state, letter.replays),
    );
    row("reason", summary.reason.clone());
    row("error", summary.error.clone());
    row("message id", or_none(&letter.original_id));
    row("mark", summary.message_id.to_string());
    row("source", or_none(&letter.source));
    row("topic", summary.topic.clone());
    row("type", or_none(&summary.kind));
    row("key", or_none(&summary.key));
    row("written at", letter.created_at.map_or("-".to_owned(), time));
    row(
        "first failed at",
        letter.first_failed_at.map_or("-".to_owned(), time),
    );
    row("dead at", time(summary.dead_at));
    row("headers", letter.headers.to_string());
    row("origin", letter.origin.to_string());
    for attempt in &letter.history {
        let name = format!("attempt {}", attempt.number);
        row(
            &name,
            format!(
                "{} after {} ms: {}",
                time(attempt.at),
                attempt.took_ms,
                attempt.error
            ),
        );
    }
    let payload = match &letter.payload {
        Payload::Text(text) => plain_lines(text),
        Payload::Base64(text) => format!("(base64) {text}"),
    };
    format!("{}\n{payload}\n", table.render())
}

//! `onceward dead-letters show`.

use clap::Args;
use onceward_consumer::dead_letter::{self, DeadLetter, Payload};

use super::not_there;
use crate::cli::failure::Failure;
use crate::cli::output::{Table, counted, or_dash, plain_lines, time, time_of};
use crate::cli::{Context, database};

/// Show one dead letter with its message, its origin and its attempts
#[derive(Debug, Args)]
#[command(after_help = "Example:
  onceward dead-letters show 1207")]
pub(super) struct Show {
    /// Its number, as the list shows it
    id: i64,
}

impl Show {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let config = &context.config.database;
        let reached = database::reach_schema(config, "onceward dead-letters").await?;
        let shown = dead_letter::show(&reached.pool, &config.schema, self.id);
        let letter = reached.ask("reading the dead letter", shown).await?;
        let letter = letter.ok_or_else(|| not_there(self.id))?;
        context.output.answer(&letter, details)
    }
}

fn details(letter: &DeadLetter) -> String {
    let summary = &letter.summary;
    let or_none = |text: &Option<String>| or_dash(text.as_deref());
    let mut table = Table::new(["dead letter", &summary.id.to_string()]);
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("consumer", summary.consumer.clone());
    row(
        "state",
        format!(
            "{}, replayed {}",
            summary.state,
            counted(letter.replays, "time")
        ),
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
    for decision in letter.decisions.as_array().into_iter().flatten() {
        let text = |name: &str| decision[name].as_str().unwrap_or("-").to_owned();
        row(
            &text("what"),
            format!("{} by {}", time_of(&text("at")), text("by")),
        );
    }
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

//! `onceward parked show`.

use clap::Args;
use onceward::ParkedMessage;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::not_there;
use crate::cli::failure::Failure;
use crate::cli::output::{Table, plain_lines};
use crate::cli::{Context, database};

/// Show one parked message whole, with what happened to it
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  onceward parked show events 1207
  onceward parked show events 1207 --json | jq -r .payload > payload.json")]
pub(super) struct Show {
    /// The stream that set it aside
    stream: String,
    /// Its number, as the list shows it
    number: i64,
}

impl Show {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let mut admin = database::admin(context, "onceward parked").await?;
        let found = admin.parked_message(&self.stream, self.number).await;
        let found = found.map_err(database::failed("reading the parked message"))?;
        let message = found.ok_or_else(|| not_there(&self.stream, self.number))?;
        context.output.answer(&message, details)
    }
}

fn details(message: &ParkedMessage) -> String {
    let summary = &message.summary;
    let time = |time: OffsetDateTime| time.format(&Rfc3339).unwrap_or_default();
    let mut table = Table::new(["parked", &format!("{} {}", summary.stream, summary.seq)]);
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row(
        "state",
        format!(
            "{}, made due {} times",
            summary.state.name(),
            summary.replays
        ),
    );
    row("refused as", summary.error_kind.clone());
    row("error", summary.error.clone());
    row("message id", summary.id.to_string());
    row("topic", summary.topic.clone());
    row("type", summary.kind.clone());
    row("key", summary.key.clone().unwrap_or_else(|| "-".to_owned()));
    row("lane", summary.lane.to_owned());
    row("written at", time(summary.created_at));
    row("parked at", time(summary.parked_at));
    row("changed at", time(summary.changed_at));
    row(
        "content type",
        message
            .content_type
            .clone()
            .unwrap_or_else(|| "-".to_owned()),
    );
    for (name, value) in message.headers.iter() {
        row("header", format!("{name}: {value}"));
    }
    for event in message.history.as_array().into_iter().flatten() {
        row("history", event.to_string());
    }
    let payload = match std::str::from_utf8(&message.payload) {
        Ok(text) => plain_lines(text),
        Err(_) => format!(
            "({} bytes that are no text; --json shows them in base64)",
            message.payload.len()
        ),
    };
    format!("{}\n{payload}\n", table.render())
}

//! `onceward parked show`.

use clap::Args;
use onceward::ParkedMessage;
use serde_json::Value;

use super::not_there;
use crate::cli::failure::Failure;
use crate::cli::output::{Table, counted, or_dash, plain_lines, time, time_of};
use crate::cli::{Context, database};

/// Show one parked message whole, with what happened to it
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  onceward parked show events 1207
  onceward parked show events 1207 --json | jq -r .payload.text > payload.json")]
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
        let Some(message) = found else {
            return Err(not_there(context, &mut admin, &self.stream, self.number).await);
        };
        context.output.answer(&message, details)
    }
}

fn details(message: &ParkedMessage) -> String {
    let summary = &message.summary;
    let mut table = Table::new(["parked", &format!("{} {}", summary.stream, summary.seq)]);
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row(
        "state",
        format!(
            "{}, made due {}",
            summary.state.name(),
            counted(summary.replays, "time")
        ),
    );
    row("refused as", summary.error_kind.clone());
    row("error", summary.error.clone());
    row("message id", summary.id.to_string());
    row("topic", summary.topic.clone());
    row("type", summary.kind.clone());
    row("key", or_dash(summary.key.as_deref()));
    row("lane", summary.lane.to_owned());
    row("written at", time(summary.created_at));
    row("parked at", time(summary.parked_at));
    row("changed at", time(summary.changed_at));
    row("content type", or_dash(message.content_type.as_deref()));
    for (name, value) in message.headers.iter() {
        row("header", format!("{name}: {value}"));
    }
    for event in message.history.as_array().into_iter().flatten() {
        row("history", happened(event));
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

/// A line of its history, for people.
fn happened(event: &Value) -> String {
    let text = |name: &str| event[name].as_str();
    let mut line = format!(
        "{} {}",
        time_of(text("at").unwrap_or("-")),
        text("what").unwrap_or("-")
    );
    for (before, name) in [(" by ", "by"), (" as ", "kind"), (": ", "error")] {
        if let Some(text) = text(name) {
            line.push_str(before);
            line.push_str(text);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_happened_is_told_in_a_line() {
        let parked = json!({ "at": "2026-01-01T00:00:00.5+00:00", "what": "parked", "kind": "too_large", "error": "no" });
        let due = json!({ "at": "2026-01-02T00:00:00+00:00", "what": "made due", "by": "ann" });

        assert_eq!(
            happened(&parked),
            "2026-01-01T00:00:00Z parked as too_large: no"
        );
        assert_eq!(happened(&due), "2026-01-02T00:00:00Z made due by ann");
    }
}

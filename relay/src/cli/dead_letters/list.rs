//! `onceward dead-letters list`.

use clap::Args;
use onceward_consumer::dead_letter::{self, Filter, Summary};
use serde::Serialize;

use crate::cli::failure::Failure;
use crate::cli::output::{Table, or_dash, time};
use crate::cli::{Context, database, known};

/// List dead letters, newest first
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  onceward dead-letters list
  onceward dead-letters list --consumer billing --reason attempts
  onceward dead-letters list --before 1200        the next page, below id 1200")]
pub(super) struct List {
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

#[derive(Debug, Serialize)]
struct Page {
    dead_letters: Vec<Summary>,
}

impl List {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let config = &context.config.database;
        let reached = database::reach_schema(config, "onceward dead-letters").await?;
        if let Some(consumer) = &self.consumer {
            known::consumer(context, &reached, consumer).await?;
        }
        if let Some(reason) = &self.reason {
            known::reason(context, &reached, reason).await?;
        }
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

fn table(letters: &[Summary]) -> String {
    if letters.is_empty() {
        return "no dead letters match\n".to_owned();
    }
    let mut table = Table::new([
        "ID", "DEAD AT", "CONSUMER", "TYPE", "KEY", "REASON", "ATTEMPTS", "ERROR",
    ]);
    for letter in letters {
        table.row([
            letter.id.to_string(),
            time(letter.dead_at),
            letter.consumer.clone(),
            or_dash(letter.kind.as_deref()),
            or_dash(letter.key.as_deref()),
            letter.reason.clone(),
            letter.attempts.to_string(),
            letter.error.clone(),
        ]);
    }
    let waits = letters.iter().find(|letter| letter.state == "dead");
    let next = waits.map_or(String::new(), |letter| {
        format!(
            "  to do: onceward dead-letters show {}, then replay, edit or discard it\n",
            letter.id
        )
    });
    format!("{}{next}", table.render())
}

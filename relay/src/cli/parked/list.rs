//! `onceward parked list`.

use clap::{Args, ValueEnum};
use onceward::{ParkedFilter, ParkedState, ParkedSummary};
use serde::Serialize;

use crate::cli::failure::Failure;
use crate::cli::output::{Table, or_dash, time};
use crate::cli::{Context, database, known};

/// List parked messages, by stream and number
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  onceward parked list
  onceward parked list --stream events --topic orders.created
  onceward parked list --state all --after events:1207      the next page")]
pub(super) struct List {
    /// Of this stream only
    #[arg(long)]
    stream: Option<String>,
    /// About this topic only
    #[arg(long)]
    topic: Option<String>,
    /// In this state
    #[arg(long, value_enum, default_value_t = State::Parked)]
    state: State,
    /// Those after this one: the last one of the page before
    #[arg(long, value_name = "STREAM:NUMBER", value_parser = place)]
    after: Option<(String, i64)>,
    /// At most so many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum State {
    /// Waits for a person
    Parked,
    /// Is to be published again
    Due,
    /// The broker has it
    Published,
    /// Is not to be published
    Discarded,
    /// Any of them
    All,
}

#[derive(Debug, Serialize)]
struct Page {
    parked: Vec<ParkedSummary>,
}

impl List {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let mut admin = database::admin(context, "onceward parked").await?;
        if let Some(stream) = &self.stream {
            known::stream(context, &mut admin, stream).await?;
        }
        let filter = ParkedFilter {
            stream: self.stream,
            state: self.state.into(),
            topic: self.topic,
            after: self.after,
        };
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let listed = admin.parked(&filter, limit).await;
        let parked = listed.map_err(database::failed("listing the parked messages"))?;
        context
            .output
            .answer(&Page { parked }, |page| table(&page.parked))
    }
}

impl From<State> for Option<ParkedState> {
    fn from(state: State) -> Self {
        match state {
            State::Parked => Some(ParkedState::Parked),
            State::Due => Some(ParkedState::Due),
            State::Published => Some(ParkedState::Published),
            State::Discarded => Some(ParkedState::Discarded),
            State::All => None,
        }
    }
}

fn place(text: &str) -> Result<(String, i64), &'static str> {
    const WRONG: &str = "must be a stream and a number, as in events:1207";
    let (stream, seq) = text.split_once(':').ok_or(WRONG)?;
    Ok((stream.to_owned(), seq.parse().map_err(|_| WRONG)?))
}

fn table(parked: &[ParkedSummary]) -> String {
    if parked.is_empty() {
        return "no parked messages match\n".to_owned();
    }
    let mut table = Table::new([
        "STREAM",
        "NUMBER",
        "STATE",
        "PARKED AT",
        "TOPIC",
        "KEY",
        "BYTES",
        "KIND",
        "ERROR",
    ]);
    for message in parked {
        table.row([
            message.stream.clone(),
            message.seq.to_string(),
            message.state.name().to_owned(),
            time(message.parked_at),
            message.topic.clone(),
            or_dash(message.key.as_deref()),
            message.payload_bytes.to_string(),
            message.error_kind.clone(),
            message.error.clone(),
        ]);
    }
    let waits = parked.iter().find(|one| one.state == ParkedState::Parked);
    let next = waits.map_or(String::new(), |one| {
        let (stream, seq) = (&one.stream, one.seq);
        format!("  to do: onceward parked show {stream} {seq}, then replay, edit or discard it\n")
    });
    format!("{}{next}", table.render())
}

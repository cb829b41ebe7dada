//! `onceward stream`: the readers of the log that the database knows.

use clap::{Args, Subcommand};
use onceward::{DropStream, schema};
use serde::Serialize;

use super::failure::Failure;
use super::known::refuse_unknown;
use super::output::{Table, confirm, counted};
use super::overview::Stream as Known;
use super::{Context, database};

/// List the streams that the database knows, or drop one that nobody runs any more
#[derive(Debug, Args)]
pub(super) struct Stream {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(List),
    Drop(Drop),
}

/// List the streams that the database knows
#[derive(Debug, Args)]
#[command(after_help = "Example:
  onceward stream list")]
struct List {}

/// Forget a stream: its cursors, and what it has set aside
///
/// A stream that nobody runs keeps every slot of the log from being emptied. Once dropped, what it has not published
/// is not published any more; a relay that runs it again begins anew, as its `start` says.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  onceward stream drop old_events
  onceward stream drop old_events --yes")]
struct Drop {
    /// Its name
    stream: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Drop it although a relay holds it: that relay stops publishing it
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Serialize)]
struct Streams {
    streams: Vec<Known>,
}

#[derive(Debug, Serialize)]
struct Dropped {
    stream: String,
    /// Messages of the log that it had not passed: at most so many will not be published by it.
    unpublished_at_most: i64,
    /// Messages that were parked or due, and went with it.
    parked: u64,
    /// Rows of messages that had been published or discarded, and went with it.
    decided: u64,
}

impl Stream {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self.command {
            Command::List(list) => list.run(context).await,
            Command::Drop(drop) => drop.run(context).await,
        }
    }
}

/// The streams that the database knows.
async fn known(context: &Context) -> Result<Vec<Known>, Failure> {
    let reached = database::reach_schema(&context.config.database, "onceward stream").await?;
    let schema = &context.config.database.schema;
    let reading = async {
        let mut connection = reached.pool.acquire().await?;
        Ok::<_, onceward_core::BoxError>(schema::overview(&mut connection, schema).await?)
    };
    let streams = reached.ask("listing the streams", reading).await?;
    Ok(Known::all(context, streams))
}

impl List {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let streams = known(context).await?;
        context.output.answer(&Streams { streams }, people)
    }
}

impl Drop {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let streams = known(context).await?;
        let name = &self.stream;
        let found = streams.iter().find(|stream| stream.stream == *name);
        let Some(stream) = found else {
            let known: Vec<String> = streams.into_iter().map(|stream| stream.stream).collect();
            return refuse_unknown("stream", name, &known);
        };
        let mut admin = database::deciding_admin(context, "onceward stream").await?;
        confirm(&question(stream), self.yes)?;
        // Whoever was asked may have thought for long.
        let latest = known(context).await?;
        let latest = latest.iter().find(|known| known.stream == *name);
        let not_passed = latest.unwrap_or(stream).not_passed();
        let dropped = admin.drop_stream(name, self.force).await;
        match dropped.map_err(database::failed("dropping the stream"))? {
            DropStream::Dropped { waiting, decided } => {
                let answer = Dropped {
                    stream: name.clone(),
                    unpublished_at_most: not_passed,
                    parked: waiting,
                    decided,
                };
                context.output.answer(&answer, |answer| {
                    format!(
                        "stream {}: gone, with up to {} of the log that it had not passed, {} parked or due, and {} of what had been published or discarded",
                        answer.stream,
                        counted(answer.unpublished_at_most, "message"),
                        counted(answer.parked, "message"),
                        counted(answer.decided, "row")
                    )
                })
            }
            DropStream::Held { owner } => {
                Err(Failure::failed(format!("{owner} holds the stream {name}"))
                    .remedy("stop that relay and wait for its lease to end, or add --force"))
            }
            DropStream::Unknown => Err(Failure::failed(format!(
                "the stream {name} was dropped meanwhile"
            ))
            .remedy("nothing is left to do; `onceward stream list` shows the others")),
        }
    }
}

fn question(stream: &Known) -> String {
    let (name, aside) = (&stream.stream, stream.parked + stream.due);
    format!(
        "Drop the stream {name}? Up to {} of the log that it has not passed will not be published by it, and {} that it has parked or due will be forgotten.",
        counted(stream.not_passed(), "message"),
        counted(aside, "message")
    )
}

fn people(answer: &Streams) -> String {
    if answer.streams.is_empty() {
        return "no streams yet: a relay creates them when it first runs\n".to_owned();
    }
    let mut table = Table::new(["STREAM", "LEASE", "TOPICS", "UNROUTED", "PARKED"]);
    for stream in &answer.streams {
        table.row([
            stream.stream.clone(),
            stream.lease_text(),
            stream.topics.join(" "),
            stream.unrouted.clone(),
            stream.parked.to_string(),
        ]);
    }
    table.render()
}

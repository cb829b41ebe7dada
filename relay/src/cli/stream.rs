//! `onceward stream`: the readers of the log that the database knows.

use clap::{Args, Subcommand};
use onceward::{DropStream, StreamInfo};
use serde::Serialize;
use time::format_description::well_known::Rfc3339;

use super::failure::Failure;
use super::output::{Table, confirm};
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
    streams: Vec<Listed>,
}

#[derive(Debug, Serialize)]
struct Listed {
    configured: bool,
    #[serde(flatten)]
    info: StreamInfo,
}

#[derive(Debug, Serialize)]
struct Dropped {
    stream: String,
    parked: u64,
}

impl Stream {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self.command {
            Command::List(list) => list.run(context).await,
            Command::Drop(drop) => drop.run(context).await,
        }
    }
}

impl List {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let mut admin = database::admin(context, "onceward stream").await?;
        let streams = admin
            .streams()
            .await
            .map_err(database::failed("listing the streams"))?;
        let listed = streams.into_iter().map(|info| Listed {
            configured: context.config.stream(&info.stream).is_some(),
            info,
        });
        let answer = Streams {
            streams: listed.collect(),
        };
        context.output.answer(&answer, people)
    }
}

impl Drop {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let mut admin = database::admin(context, "onceward stream").await?;
        let streams = admin
            .streams()
            .await
            .map_err(database::failed("listing the streams"))?;
        let name = &self.stream;
        let unknown = || {
            Failure::failed(format!("the database knows no stream {name}"))
                .remedy("`onceward stream list` shows those that it knows")
        };
        let info = streams
            .iter()
            .find(|info| info.stream == *name)
            .ok_or_else(unknown)?;
        confirm(&question(info), self.yes)?;
        let dropped = admin.drop_stream(name, self.force).await;
        match dropped.map_err(database::failed("dropping the stream"))? {
            DropStream::Dropped { parked } => {
                let answer = Dropped {
                    stream: name.clone(),
                    parked,
                };
                context.output.answer(&answer, |answer| {
                    format!(
                        "stream {}: gone, with {} messages that it had set aside",
                        answer.stream, answer.parked
                    )
                })
            }
            DropStream::Held { owner } => {
                Err(Failure::failed(format!("{owner} holds the stream {name}"))
                    .remedy("stop that relay and wait for its lease to end, or add --force"))
            }
            DropStream::Unknown => Err(unknown()),
        }
    }
}

fn question(info: &StreamInfo) -> String {
    let depth = info
        .cursors
        .iter()
        .map(|cursor| cursor.depth)
        .max()
        .unwrap_or_default();
    let (name, aside) = (&info.stream, info.parked + info.due);
    format!(
        "Drop the stream {name}, up to {depth} messages that it has not published and {aside} that it has set aside?"
    )
}

fn people(answer: &Streams) -> String {
    if answer.streams.is_empty() {
        return "no streams yet: a relay creates them when it first runs\n".to_owned();
    }
    let mut table = Table::new([
        "STREAM",
        "HOLDER",
        "LEASE UNTIL",
        "CONFIGURED",
        "TOPICS",
        "UNROUTED",
        "PARKED",
    ]);
    for Listed { configured, info } in &answer.streams {
        let until = info
            .lease_until
            .and_then(|until| until.format(&Rfc3339).ok());
        table.row([
            info.stream.clone(),
            info.holder.clone().unwrap_or_else(|| "nobody".to_owned()),
            until.unwrap_or_else(|| "-".to_owned()),
            if *configured { "yes" } else { "no" }.to_owned(),
            info.topics.join(" "),
            info.unrouted.clone(),
            info.parked.to_string(),
        ]);
    }
    table.render()
}

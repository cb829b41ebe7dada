//! `onceward parked`: messages that a destination refuses for good, and what a person decides about them.

mod decide;
mod edit;
mod list;
mod show;

use clap::{Args, Subcommand};

use super::Context;
use super::failure::Failure;

/// Look at messages that their broker refused for good, and decide about them
///
/// A parked message lies aside with a full copy; later messages of its key went on, or wait for it where the stream
/// has on_refusal = "hold". Replaying makes it due: the relay that holds the stream publishes it again.
#[derive(Debug, Args)]
pub(in crate::cli) struct Parked {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(list::List),
    Show(show::Show),
    Edit(edit::Edit),
    Replay(decide::Replay),
    Discard(decide::Discard),
}

impl Parked {
    pub(in crate::cli) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self.command {
            Command::List(list) => list.run(context).await,
            Command::Show(show) => show.run(context).await,
            Command::Edit(edit) => edit.run(context).await,
            Command::Replay(replay) => replay.run(context).await,
            Command::Discard(discard) => discard.run(context).await,
        }
    }
}

fn not_there(stream: &str, seq: i64) -> Failure {
    Failure::failed(format!("no message {seq} of the stream {stream} is parked"))
        .remedy("`onceward parked list --state all` shows those that are there")
}

//! `onceward parked`: messages that a destination refuses for good, and what a person decides about them.

mod decide;
mod edit;
mod list;
mod show;

use clap::{Args, Subcommand};
use onceward::LogAdmin;

use super::failure::Failure;
use super::{Context, known};

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

/// Why there is no such message: an unknown stream is told as that.
async fn not_there(context: &Context, admin: &mut LogAdmin, stream: &str, seq: i64) -> Failure {
    if let Err(failure) = known::stream(context, admin, stream).await {
        return failure;
    }
    Failure::failed(format!("no message {seq} of the stream {stream} is parked")).remedy(format!(
        "`onceward parked list --stream {stream} --state all` shows those that are there"
    ))
}

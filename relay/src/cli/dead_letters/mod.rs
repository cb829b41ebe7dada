//! `onceward dead-letters`: what consumers have given up on, and what a person decides about it.

mod decide;
mod edit;
mod list;
mod show;

use clap::{Args, Subcommand};

use super::Context;
use super::failure::Failure;

/// Look at deliveries that a consumer has given up on, and decide about them
///
/// A dead letter lies aside with the whole message and its attempts; later messages of its key went on. Replaying gives it
/// back to its consumer, which handles it once.
#[derive(Debug, Args)]
pub(in crate::cli) struct DeadLetters {
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

impl DeadLetters {
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

fn not_there(id: i64) -> Failure {
    Failure::failed(format!("there is no dead letter {id}"))
        .remedy("`onceward dead-letters list --state all` shows those that are there")
}

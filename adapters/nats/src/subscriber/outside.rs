//! What reaches a member from outside its work: commands of its handle, what happens to its connection, and whether it is
//! to do that work at all.

use std::future::Future;
use std::time::Duration;

use onceward_core::SubscribeError;
use tokio::sync::{mpsc, oneshot};

use super::wish::Wish;
use crate::connection::{Happening, Happenings};

/// What the handle and its ackers ask of the member.
#[derive(Debug)]
pub(crate) enum Command {
    /// Begin again at the oldest unacked message, unless that ownership is over anyway.
    GoBack { ownership: u64, after: Duration },
    /// A message that could not be acked by the server's own means is settled.
    Settled { ownership: u64, sequence: u64 },
    /// Give the ownership up and end.
    Leave(oneshot::Sender<()>),
}

/// Why an ownership, or the wait for one, is over.
#[derive(Debug)]
pub(crate) enum End {
    /// The connection is lost; the server may still know us by our pin.
    Disconnected,
    /// Somebody else owns the durable now.
    Taken,
    /// Something changed: begin again, for this reason.
    Again(String),
    /// The durable falls to another member's share now.
    Unwanted,
    /// Told to begin again after a while.
    GoBack(Duration),
    /// The durable is not there or not fit.
    Unfit(SubscribeError),
    /// Told to leave.
    Leave(Option<oneshot::Sender<()>>),
}

impl From<SubscribeError> for End {
    fn from(error: SubscribeError) -> Self {
        Self::Unfit(error)
    }
}

#[derive(Debug)]
pub(crate) struct Outside {
    pub(crate) happenings: Happenings,
    pub(crate) commands: mpsc::UnboundedReceiver<Command>,
    pub(crate) wish: Wish,
}

impl Outside {
    /// Waits for something from outside; tells if it ends what the member does in that ownership.
    ///
    /// Cancel safe.
    pub(crate) async fn interrupted(&mut self, ownership: Option<u64>) -> Option<End> {
        match self.anything().await {
            Ok(Command::Leave(done)) => Some(End::Leave(Some(done))),
            Ok(Command::GoBack {
                ownership: about,
                after,
            }) => (ownership == Some(about)).then_some(End::GoBack(after)),
            Ok(Command::Settled { .. }) => None,
            Err(end) => end,
        }
    }

    /// Does that unless something from outside ends it.
    pub(crate) async fn unless_interrupted<F: Future>(
        &mut self,
        work: F,
    ) -> Result<F::Output, End> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                end = self.interrupted(None) => match end {
                    Some(end) => return Err(end),
                    None => continue,
                },
                done = &mut work => return Ok(done),
            }
        }
    }

    /// Waits until that message of that ownership is settled; tells what ended the wait if something else did.
    pub(crate) async fn until_settled(&mut self, ownership: u64, sequence: u64) -> Option<End> {
        loop {
            match self.anything().await {
                Ok(Command::Leave(done)) => return Some(End::Leave(Some(done))),
                Ok(Command::GoBack {
                    ownership: about,
                    after,
                }) if about == ownership => return Some(End::GoBack(after)),
                Ok(Command::Settled {
                    ownership: about,
                    sequence: settled,
                }) if (about, settled) == (ownership, sequence) => return None,
                Ok(Command::GoBack { .. } | Command::Settled { .. }) => {}
                Err(Some(end)) => return Some(end),
                Err(None) => {}
            }
        }
    }

    /// Waits until the durable falls to this member; tells what ended the wait if something else did.
    pub(crate) async fn until_wanted(&mut self) -> Result<(), End> {
        while !self.wish.is_wanted() {
            match self.interrupted(None).await {
                None | Some(End::Unwanted) => {}
                Some(end) => return Err(end),
            }
        }
        Ok(())
    }

    /// The next command, or else what happened to the connection or to the wish.
    async fn anything(&mut self) -> Result<Command, Option<End>> {
        tokio::select! {
            biased;
            command = self.commands.recv() => command.ok_or(Some(End::Leave(None))),
            happening = self.happenings.recv() => Err(match happening {
                Some(Happening::Down) => Some(End::Disconnected),
                None => Some(End::Again("the connection is closed".to_owned())),
                Some(Happening::Up) => None,
                Some(Happening::Told(told)) => {
                    tracing::warn!(told, "NATS tells of trouble");
                    None
                }
            }),
            () = self.wish.changed() => Err((!self.wish.is_wanted()).then_some(End::Unwanted)),
        }
    }
}

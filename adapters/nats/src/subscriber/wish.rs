//! Whether the task of a partition is to claim it. Only a hint: nothing is unsafe whatever it says.

use tokio::sync::watch;

use super::spread::Share;

/// Whether one partition is to be claimed by this member.
#[derive(Debug)]
pub(crate) enum Wish {
    /// It is: all members stand by for it.
    Always,
    /// It is while it falls to this member's share.
    Shared {
        share: watch::Receiver<Share>,
        partition: usize,
    },
}

impl Wish {
    pub(crate) fn is_wanted(&self) -> bool {
        match self {
            Self::Always => true,
            Self::Shared { share, partition } => share.borrow().has(*partition),
        }
    }

    /// Waits until the share may have changed.
    ///
    /// Cancel safe.
    pub(crate) async fn changed(&mut self) {
        let told = match self {
            Self::Always => false,
            Self::Shared { share, .. } => share.changed().await.is_ok(),
        };
        if !told {
            // Nobody shares out any more, so it stays as it is.
            std::future::pending::<()>().await;
        }
    }
}

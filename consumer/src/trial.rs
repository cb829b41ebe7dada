//! The try of one message for all of its type, which is paused: a turn that one member of all has.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc::UnboundedSender;

/// Goes along with the message from the look that found it to the worker. Dropped, wherever that is, the turn has ended.
#[derive(Debug)]
pub(crate) struct Trial {
    kind: String,
    told: AtomicBool,
    ended: UnboundedSender<Ended>,
}

/// The end of a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) kind: String,
    /// Whether its message has told how its type does. If not, another one is to be tried at once.
    pub(crate) told: bool,
}

impl Trial {
    pub(crate) fn new(kind: &str, ended: UnboundedSender<Ended>) -> Self {
        Self {
            kind: kind.to_owned(),
            told: AtomicBool::new(false),
            ended,
        }
    }

    /// The message has told how its type does.
    pub(crate) fn has_told(&self) {
        self.told.store(true, Ordering::Relaxed);
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        let ended = Ended {
            kind: std::mem::take(&mut self.kind),
            told: self.told.load(Ordering::Relaxed),
        };
        // Nobody asks any more when the member ends.
        drop(self.ended.send(ended));
    }
}

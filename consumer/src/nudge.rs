//! Keeps a handler that blocks its thread from stopping all others.
//!
//! Of tokio's worker threads one waits for the network and for timers, and hands that over only when it waits again: if
//! it runs into a handler that blocks, everybody else sleeps on. A task from outside wakes another one, which takes over.
//! Source: <https://github.com/tokio-rs/tokio/issues/4730>.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};
use tracing::warn;

/// How long all may sleep because of one.
const EVERY: Duration = Duration::from_millis(500);

/// A thread that ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Nudge {
    _alive: Sender<()>,
}

impl Nudge {
    /// Nudges the runtime that this is called on. A runtime with one thread cannot be helped.
    pub(crate) fn start() -> Option<Self> {
        let runtime = Handle::current();
        if runtime.runtime_flavor() == RuntimeFlavor::CurrentThread {
            return None;
        }
        let (alive, gone) = channel::<()>();
        let thread = std::thread::Builder::new().name("onceward-nudge".to_owned());
        let spawned = thread.spawn(move || {
            while gone.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                drop(runtime.spawn(async {}));
            }
        });
        match spawned {
            Ok(_) => Some(Self { _alive: alive }),
            Err(error) => {
                warn!(%error, "no thread could be started that keeps blocked handlers from stopping others");
                None
            }
        }
    }
}

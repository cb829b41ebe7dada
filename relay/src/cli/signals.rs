//! SIGTERM and SIGINT: the first asks for a stop in good order, the second ends at once.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::failure::Failure;

/// The signals that end the program.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From here on the signals no longer end the program by themselves.
    pub(super) fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| Failure::failed("signals cannot be received").because(error))
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Cancels `stop` at the first signal and ends the program at the second. Does not return.
    ///
    /// # Cancel safety
    /// Safe to drop: the signals are then received by nobody.
    pub(super) async fn forward(mut self, stop: CancellationToken) {
        let name = self.next().await;
        info!(
            signal = name,
            "stopping: what is in flight is finished first"
        );
        stop.cancel();
        let name = self.next().await;
        warn!(
            signal = name,
            "ending at once: what is not confirmed will be published again"
        );
        std::process::exit(1);
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

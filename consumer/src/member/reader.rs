//! The task that owns the subscriber, so that a slow broker never keeps the loop from working.

use std::time::Duration;

use onceward_core::{Partition, Subscriber};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use super::Event;

/// How long the broker may take to tell its backlog.
const BACKLOG: Duration = Duration::from_secs(5);

/// What the loop asks of the reader.
#[derive(Debug)]
pub(super) enum Ask {
    /// Wait for arrivals, at most so many deliveries, and report them once. Replaces a read that still waits.
    Read(usize),
    Pause(Partition, bool),
    Backlog,
    /// Leave the consumer, and end.
    Close(Duration),
}

/// Serves the loop until it is told to close, or the loop is gone.
pub(super) async fn run<S: Subscriber>(
    mut subscriber: S,
    mut asks: UnboundedReceiver<Ask>,
    events: UnboundedSender<Event<S::Token>>,
) {
    let mut room = None;
    loop {
        let ask = match room {
            None => asks.recv().await,
            // Both are cancel safe. Asks first: a pause must come before what it is to stop.
            Some(room_for) => tokio::select! {
                biased;
                ask = asks.recv() => ask,
                read = subscriber.next(room_for) => {
                    room = None;
                    drop(events.send(Event::Read(room_for, read)));
                    continue;
                }
            },
        };
        match ask {
            Some(Ask::Read(wanted)) => room = Some(wanted),
            Some(Ask::Pause(partition, paused)) => subscriber.pause(&partition, paused),
            Some(Ask::Backlog) => {
                let told = tokio::time::timeout(BACKLOG, subscriber.backlog()).await;
                drop(events.send(Event::Backlog(told.ok().and_then(Result::ok))));
            }
            Some(Ask::Close(within)) => return subscriber.close(within).await,
            None => return,
        }
    }
}

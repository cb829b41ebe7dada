//! Waits that may be shorter than the runtime's timers can make: those count in whole milliseconds.

use std::thread;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// How much later than asked for a wait may end: as late as that of a timer.
const TICK: Duration = Duration::from_millis(1);

/// Waits for so long, and a tick more at most. A thread of the runtime's blocking pool keeps the time; where none is free, a timer does.
///
/// # Cancel safety
/// Safe to drop: a thread that has begun sleeps for as long and does no more.
pub(super) async fn pause(wait: Duration) {
    if wait.is_zero() {
        return;
    }
    let sleeping = spawn_blocking(move || thread::sleep(wait));
    let unless_begun = sleeping.abort_handle();
    // It ends by its thread, by the timer, or by the end of the runtime: either way the wait is over.
    drop(timeout(wait + TICK, sleeping).await);
    unless_begun.abort();
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Instant;

    use tokio::runtime;

    use super::*;

    const WAIT: Duration = Duration::from_micros(500);

    #[tokio::test]
    async fn a_pause_is_no_shorter_than_asked_for() {
        let begun = Instant::now();

        pause(WAIT).await;

        assert!(begun.elapsed() >= WAIT);
    }

    #[test]
    fn a_pause_ends_where_no_thread_is_free() {
        let mut runtime = runtime::Builder::new_current_thread();
        let runtime = runtime
            .max_blocking_threads(1)
            .enable_time()
            .build()
            .unwrap();
        let (release, held) = mpsc::channel::<()>();

        let paused = runtime.block_on(async {
            let taken = spawn_blocking(move || held.recv());
            let paused = timeout(Duration::from_secs(10), pause(WAIT)).await;
            drop(release);
            taken.await.unwrap().unwrap_err();
            paused
        });

        assert!(paused.is_ok(), "it waited for the thread");
    }
}

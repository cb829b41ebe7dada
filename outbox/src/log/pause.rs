//! Waits that may be shorter than the runtime's timers can make: those count in whole milliseconds.

use std::thread;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

/// What the runtime's timers count in.
const TICK: Duration = Duration::from_millis(1);

/// Waits for so long, and about two ticks more at most. What is shorter than a tick is waited for by a thread of the runtime's blocking
/// pool; where none is free, by a timer.
///
/// # Cancel safety
/// Safe to drop: a thread that has begun sleeps for less than a tick and does no more.
pub(super) async fn pause(wait: Duration) {
    if wait.is_zero() {
        return;
    }
    if wait >= TICK {
        return sleep(wait).await;
    }
    let sleeping = AbortOnDropHandle::new(spawn_blocking(move || thread::sleep(wait)));
    // It ends by its thread or by the timer: either way the wait is over, and a thread that has not begun is not needed.
    drop(timeout(wait + TICK, sleeping).await);
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Instant;

    use tokio::{runtime, time};

    use super::*;

    const WAIT: Duration = Duration::from_micros(300);

    #[tokio::test]
    async fn a_pause_is_no_shorter_than_asked_for() {
        for wait in [WAIT, 2 * TICK] {
            let begun = Instant::now();

            pause(wait).await;

            assert!(begun.elapsed() >= wait);
        }
    }

    /// A clock that is paused goes on when everything waits for timers, and for nothing else.
    #[tokio::test(start_paused = true)]
    async fn a_pause_below_a_tick_is_waited_for_by_no_timer() {
        let begun = time::Instant::now();

        pause(WAIT).await;

        assert_eq!(begun.elapsed(), Duration::ZERO);
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

//! Waiting for what is to happen, in place of sleeping for as long as it usually takes.

use std::future::Future;
use std::panic::Location;
use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Asks `probe` again and again until it answers `Some`, and returns that.
///
/// ```no_run
/// # async fn count() -> u64 { 3 }
/// # async fn test() {
/// use std::time::Duration;
/// let three = onceward_testkit::wait::until(Duration::from_secs(5), "three invoices", || async {
///     Some(count().await).filter(|n| *n == 3)
/// })
/// .await;
/// # }
/// ```
///
/// # Panics
/// After `deadline`, with `what` was waited for and where. A probe that hangs counts as an answer that never comes.
#[track_caller]
pub fn until<T, F, Fut>(
    deadline: Duration,
    what: &str,
    mut probe: F,
) -> impl Future<Output = T> + use<T, F, Fut>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let location = Location::caller();
    let what = what.to_owned();
    async move {
        let begin = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            // Boxed: a probe that opens a database connection is large, and every caller would carry it.
            let left = deadline.saturating_sub(begin.elapsed());
            if let Ok(Some(value)) = tokio::time::timeout(left, Box::pin(probe())).await {
                return value;
            }
            assert!(
                begin.elapsed() < deadline,
                "waited {deadline:?} in vain for: {what} (at {location})"
            );
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// Asks `probe` until it answers `true`.
///
/// # Panics
/// As [`until`] does.
#[track_caller]
pub fn until_true<F, Fut>(
    deadline: Duration,
    what: &str,
    mut probe: F,
) -> impl Future<Output = ()> + use<F, Fut>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    until(deadline, what, move || {
        let answer = probe();
        async move { answer.await.then_some(()) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[tokio::test]
    async fn the_first_answer_is_returned() {
        let asked = Cell::new(0);

        let answer = until(Duration::from_secs(5), "the third answer", || {
            asked.set(asked.get() + 1);
            async { (asked.get() == 3).then_some("here") }
        })
        .await;

        assert_eq!((answer, asked.get()), ("here", 3));
    }

    #[tokio::test]
    #[should_panic(expected = "in vain for: a probe that hangs (at")]
    async fn a_probe_that_hangs_ends_at_the_deadline() {
        until_true(
            Duration::from_millis(20),
            "a probe that hangs",
            std::future::pending,
        )
        .await;
    }
}

//! How far behind a consumer is, in seconds. Pure.

use std::time::{Duration, SystemTime};

use onceward_core::Backlog;

/// What is known of how far a consumer has come.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Progress {
    /// When the oldest message that was received and is not settled was written.
    pub(crate) oldest_held: Option<SystemTime>,
    /// When the newest message that was settled was written; before that, when the consumer started.
    pub(crate) newest_settled: Option<SystemTime>,
}

/// The age of the oldest message that is not settled. 0 only if the broker says that nothing waits: else a consumer
/// that is stuck would show 0. `backlog` is none if the broker did not tell.
pub(crate) fn lag(now: SystemTime, progress: Progress, backlog: Option<&[Backlog]>) -> Duration {
    let waits = backlog.is_none_or(|all| all.iter().any(|one| one.count > 0));
    if !waits && progress.oldest_held.is_none() {
        return Duration::ZERO;
    }
    let at_broker = backlog
        .into_iter()
        .flatten()
        .filter(|one| one.count > 0)
        .filter_map(|one| one.oldest)
        // The broker's clock may be ahead: what it holds is not of the future.
        .filter(|at| *at <= now)
        .min();
    // Where neither we nor the broker know how old what waits is, it is no older than what was settled last.
    let oldest = [at_broker, progress.oldest_held]
        .into_iter()
        .flatten()
        .min()
        .or(progress.newest_settled);
    oldest.map_or(Duration::ZERO, |at| {
        now.duration_since(at).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use onceward_core::Partition;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn backlog(count: u64, oldest: Option<u64>) -> Vec<Backlog> {
        vec![Backlog {
            partition: Partition::new("p"),
            count,
            oldest: oldest.map(at),
        }]
    }

    #[test]
    fn the_lag_is_zero_only_if_nothing_waits_at_the_broker() {
        let progress = Progress {
            oldest_held: None,
            newest_settled: Some(at(90)),
        };

        let seconds = |backlog: Option<&[Backlog]>| lag(at(100), progress, backlog).as_secs();

        assert_eq!(seconds(Some(&backlog(0, None))), 0);
        assert_eq!(seconds(Some(&[])), 0);
        assert_eq!(seconds(Some(&backlog(3, Some(40)))), 60);
        assert_eq!(
            seconds(Some(&backlog(3, None))),
            10,
            "it grows from the last one settled"
        );
        assert_eq!(seconds(None), 10, "the broker did not tell");
    }

    #[test]
    fn the_oldest_held_counts_where_it_is_older() {
        let progress = Progress {
            oldest_held: Some(at(30)),
            newest_settled: Some(at(90)),
        };

        let waits = backlog(3, Some(40));

        assert_eq!(lag(at(100), progress, Some(&waits)).as_secs(), 70);
    }

    #[test]
    fn a_broker_whose_clock_is_ahead_hides_no_lag() {
        let progress = Progress {
            oldest_held: None,
            newest_settled: Some(at(90)),
        };

        let waits = backlog(3, Some(3_700));

        assert_eq!(lag(at(100), progress, Some(&waits)).as_secs(), 10);
    }
}

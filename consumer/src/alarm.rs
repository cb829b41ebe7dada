//! Tells the loop that an attempt did not end at its deadline. A handler that blocks its thread cannot be ended; the
//! least one can do is say so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const OFF: u64 = u64::MAX;

/// Clones share one alarm. An atomic and no message, as the worker that would send it may be the one that is blocked.
#[derive(Debug, Clone)]
pub(crate) struct Alarm {
    base: Instant,
    /// In milliseconds after `base`.
    at: Arc<AtomicU64>,
}

impl Alarm {
    pub(crate) fn new() -> Self {
        Self {
            base: Instant::now(),
            at: Arc::new(AtomicU64::new(OFF)),
        }
    }

    /// Rings after this long.
    pub(crate) fn set(&self, after: Duration) {
        let at = self.base.elapsed() + after;
        let at = u64::try_from(at.as_millis()).unwrap_or(OFF);
        self.at.store(at, Ordering::Relaxed);
    }

    pub(crate) fn clear(&self) {
        self.at.store(OFF, Ordering::Relaxed);
    }

    /// Whether it rings; once each time it is set.
    pub(crate) fn rings(&self) -> bool {
        let at = self.at.load(Ordering::Relaxed);
        let now = self.base.elapsed().as_millis();
        at != OFF
            && now > u128::from(at)
            // Unless it was set anew in between.
            && self.at.compare_exchange(at, OFF, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_rings_once_and_not_after_it_was_cleared() {
        let alarm = Alarm {
            base: Instant::now().checked_sub(Duration::from_secs(10)).unwrap(),
            at: Arc::new(AtomicU64::new(5_000)),
        };

        assert!(alarm.rings());
        assert!(!alarm.rings());
        alarm.set(Duration::from_secs(60));
        assert!(!alarm.rings());
        alarm.at.store(1, Ordering::Relaxed);
        alarm.clear();
        assert!(!alarm.rings());
    }
}

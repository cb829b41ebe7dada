//! How long a holder trusts its lease. Pure: it is told the time.

use std::time::{Duration, Instant};

/// The holder's own view of its lease, on its own monotonic clock.
///
/// The database's clock decides who may claim; this one decides when to stop offering. It counts from *before* the
/// statement that renewed, so that it runs out first however long the answer took, and by a margin earlier, so that
/// what is already on its way has arrived when another relay begins. Order does not depend on it, only the number of
/// duplicates does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseClock {
    ttl: Duration,
    margin: Duration,
    deadline: Instant,
}

impl LeaseClock {
    /// A lease claimed or renewed by a statement that was sent at `asked`.
    #[must_use]
    pub fn new(ttl: Duration, asked: Instant) -> Self {
        let margin = (ttl / 5).min(Duration::from_secs(5));
        Self {
            ttl,
            margin,
            deadline: asked + (ttl - margin),
        }
    }

    /// Notes that a statement sent at `asked` renewed the lease.
    pub fn renewed(&mut self, asked: Instant) {
        self.deadline = self.deadline.max(asked + (self.ttl - self.margin));
    }

    /// Offer nothing from here on.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether anything may still be offered at `now`.
    #[must_use]
    pub fn holds(&self, now: Instant) -> bool {
        now < self.deadline
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_lease_counts_from_before_the_claim_and_ends_before_its_ttl() {
        let asked = Instant::now();
        let lease = LeaseClock::new(Duration::from_secs(10), asked);

        assert!(lease.holds(asked + Duration::from_millis(7_999)));
        assert!(!lease.holds(asked + Duration::from_secs(8)));
    }

    #[test]
    fn an_answer_that_comes_late_does_not_shorten_the_lease() {
        let asked = Instant::now();
        let mut lease = LeaseClock::new(Duration::from_secs(10), asked);

        lease.renewed(asked + Duration::from_secs(3));
        lease.renewed(asked + Duration::from_secs(1));

        assert!(lease.holds(asked + Duration::from_secs(10)));
    }

    proptest! {
        #[test]
        fn a_holder_stops_before_anybody_else_may_claim(ttl in 1u64..100_000, took in 0u64..100_000) {
            let ttl = Duration::from_millis(ttl);
            let asked = Instant::now();
            let arrived = asked + Duration::from_millis(took);
            let lease = LeaseClock::new(ttl, asked);

            // The database began to count when the statement arrived, at the earliest when it was sent.
            prop_assert!(lease.deadline() <= asked + ttl);
            prop_assert!(lease.deadline() <= arrived + ttl);
        }
    }
}

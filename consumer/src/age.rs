//! Whether a delivery is older than its mark would be. Pure: no clock.

use std::time::{Duration, SystemTime};

use onceward_core::{Capabilities, Origin};

use crate::ring::RETENTION;

/// How far the clocks of broker, database and this machine may be apart.
const CLOCKS: Duration = Duration::from_secs(3_600);

/// Whether a mark of this delivery may have been forgotten: it cannot be older than the delivery. What tells no time is never in
/// doubt, nor what has no position.
pub(crate) fn is_in_doubt(origin: &Origin, written: Option<SystemTime>, now: SystemTime) -> bool {
    let Some(at) = origin.sent_at.or(written) else {
        return false;
    };
    let age = now.duration_since(at).unwrap_or_default();
    origin.position.is_some() && age > RETENTION.saturating_sub(CLOCKS)
}

/// Whether the consumer has passed a position before. `highest` is how far it has come, if it has been there at all.
pub(crate) fn is_settled_before(position: Option<u64>, highest: Option<i64>) -> bool {
    let position = position.and_then(|position| i64::try_from(position).ok());
    match (position, highest) {
        (Some(position), Some(highest)) => position <= highest,
        // Above what can be noted, nothing is.
        (None, _) | (_, None) => false,
    }
}

/// For how long marks would have to be kept for this broker, if that is longer than they are: without positions, a message
/// that it repeats after they are forgotten is handled again.
pub(crate) fn outlives_marks(broker: &Capabilities) -> Option<Duration> {
    broker
        .retention
        .filter(|retention| !broker.positions && *retention > RETENTION)
}

#[cfg(test)]
mod tests {
    use onceward_core::{InFlightPerKey, Order, Partition};

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3_600);

    fn origin(position: Option<u64>, sent_at: Option<SystemTime>) -> Origin {
        Origin {
            broker: "scripted",
            partition: Partition::new("p"),
            position,
            redelivered: None,
            sent_at,
        }
    }

    #[test]
    fn only_what_is_older_than_marks_are_kept_is_in_doubt() {
        let now = SystemTime::UNIX_EPOCH + 1_000 * DAY;
        let sent = |days: u32| origin(Some(1), Some(now - days * DAY));

        assert!(!is_in_doubt(&sent(7), None, now));
        assert!(is_in_doubt(&sent(8), None, now), "clocks differ");
        assert!(is_in_doubt(&sent(300), None, now));
        // The broker's time says how long ago it can have been settled at most.
        assert!(!is_in_doubt(&sent(1), Some(now - 300 * DAY), now));
        assert!(is_in_doubt(
            &origin(Some(1), None),
            Some(now - 9 * DAY),
            now
        ));
    }

    #[test]
    fn clocks_that_are_an_hour_apart_hide_no_mark_that_may_be_forgotten() {
        let now = SystemTime::UNIX_EPOCH + 1_000 * DAY;
        let forgotten = origin(Some(1), Some(now - RETENTION - Duration::from_secs(1)));
        let young = origin(Some(1), Some(now - 7 * DAY));

        for clock in [now - CLOCKS, now, now + CLOCKS] {
            assert!(is_in_doubt(&forgotten, None, clock));
            assert!(!is_in_doubt(&young, None, clock));
        }
    }

    #[test]
    fn without_a_time_or_a_position_nothing_is_in_doubt() {
        let now = SystemTime::UNIX_EPOCH + 1_000 * DAY;

        assert!(!is_in_doubt(&origin(Some(1), None), None, now));
        assert!(!is_in_doubt(
            &origin(None, Some(now - 100 * DAY)),
            None,
            now
        ));
        assert!(!is_in_doubt(&origin(Some(1), Some(now + DAY)), None, now));
    }

    #[test]
    fn what_is_above_the_highest_is_new() {
        assert!(is_settled_before(Some(6), Some(7)));
        assert!(is_settled_before(Some(7), Some(7)));
        assert!(!is_settled_before(Some(8), Some(7)));
        assert!(!is_settled_before(Some(0), None));
        assert!(!is_settled_before(None, Some(7)));
        assert!(!is_settled_before(Some(u64::MAX), Some(i64::MAX)));
    }

    #[test]
    fn a_broker_without_positions_must_not_keep_messages_for_longer_than_marks_are() {
        let broker = |positions, days: Option<u32>| Capabilities {
            broker: "scripted",
            order: Order::PerKey,
            in_flight_per_key: InFlightPerKey::Any,
            broker_dedupe: None,
            hold_limit: None,
            redelivery_count: false,
            positions,
            retention: days.map(|days| days * DAY),
            max_message: None,
        };

        assert_eq!(outlives_marks(&broker(false, Some(14))), Some(14 * DAY));
        assert_eq!(outlives_marks(&broker(false, Some(8))), None);
        assert_eq!(outlives_marks(&broker(false, None)), None);
        assert_eq!(outlives_marks(&broker(true, Some(365))), None);
    }
}

//! Decides how many run at a time: deliveries, lines that are due, and tries of paused types, each with places of its own, so
//! that none of them can keep another from running. Pure.

/// What something that runs is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// It came from the broker.
    Delivery,
    /// It has waited in the database.
    Due,
    /// It has waited in the database, and is tried for all of its type.
    Probe,
}

/// All of them, first the one that goes before the others.
pub(crate) const LANES: [Lane; 3] = [Lane::Probe, Lane::Due, Lane::Delivery];

/// How many of each lane run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Running {
    pub(crate) deliveries: usize,
    pub(crate) due: usize,
    pub(crate) probes: usize,
}

impl Running {
    pub(crate) fn of(&mut self, lane: Lane) -> &mut usize {
        match lane {
            Lane::Delivery => &mut self.deliveries,
            Lane::Due => &mut self.due,
            Lane::Probe => &mut self.probes,
        }
    }

    pub(crate) fn all(self) -> usize {
        self.deliveries + self.due + self.probes
    }
}

/// Places beside those of deliveries, for lines that are due and once more for probes.
pub(crate) fn own(limit: usize) -> usize {
    (limit / 4).max(1)
}

/// How many places there are in all.
pub(crate) fn all(limit: usize) -> usize {
    limit + 2 * own(limit)
}

/// Connections for what is beside the handlers: the looks at what is due and at paused types.
const BESIDE: usize = 2;

/// How many deliveries may run at a time so that there is a connection for each place, if so many are wanted.
pub(crate) fn within_pool(wanted: usize, connections: usize) -> usize {
    let fits = |limit: &usize| all(*limit) + BESIDE <= connections;
    (1..=wanted.min(connections)).rev().find(fits).unwrap_or(1)
}

/// Whether one more of a lane may run. Deliveries may take `limit` places, and lines that are due as many, but not all of both: each
/// has some that the other cannot take.
pub(crate) fn has_place(lane: Lane, running: Running, limit: usize) -> bool {
    let shared = running.deliveries + running.due < limit + own(limit);
    match lane {
        Lane::Delivery => shared && running.deliveries < limit,
        Lane::Due => shared && running.due < limit,
        Lane::Probe => running.probes < own(limit),
    }
}

/// How many lines in hand are enough to keep all places busy.
const TURNS: usize = 2;

/// How many due lines to take, with so many of each class in hand, whose limits are given. Lines of a class that has as many
/// as it can work on do not count: a slow one must not keep others from being found. At most `most` are in hand.
pub(crate) fn room_for_due(
    in_hand: &[usize],
    limits: &[usize],
    limit: usize,
    most: usize,
) -> usize {
    let all: usize = in_hand.iter().sum();
    let of_use: usize = in_hand
        .iter()
        .zip(limits)
        .map(|(count, limit_of_class)| (*count).min(TURNS * (*limit_of_class).min(limit)))
        .sum();
    (TURNS * limit)
        .saturating_sub(of_use)
        .min(most.saturating_sub(all))
}

/// Whether a class may have one more line in hand. One alone must not take all the room.
pub(crate) fn takes_class(in_hand: usize, classes: usize, most: usize) -> bool {
    let share = if classes > 1 { most.div_ceil(2) } else { most };
    in_hand < share
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Lets as many of a lane run as may.
    fn fill(lane: Lane, mut running: Running, limit: usize) -> Running {
        while has_place(lane, running, limit) {
            *running.of(lane) += 1;
        }
        running
    }

    proptest! {
        #[test]
        fn no_lane_can_keep_another_from_running(
            limit in 1..100_usize, order in Just(LANES.to_vec()).prop_shuffle()
        ) {
            for last in LANES {
                let mut running = Running::default();
                for lane in order.iter().filter(|lane| **lane != last) {
                    running = fill(*lane, running, limit);
                }
                prop_assert!(has_place(last, running, limit), "{last:?} beside {running:?}");
            }
        }

        #[test]
        fn no_more_run_than_there_are_places(
            limit in 1..100_usize, order in Just(LANES.to_vec()).prop_shuffle()
        ) {
            let running = order.iter().fold(Running::default(), |running, lane| fill(*lane, running, limit));

            prop_assert!(running.deliveries <= limit && running.due <= limit);
            prop_assert!(running.all() <= limit + 2 * own(limit));
        }
    }

    #[test]
    fn deliveries_alone_may_take_all_that_the_user_has_allowed() {
        for limit in [1, 2, 16] {
            let running = fill(Lane::Delivery, Running::default(), limit);

            assert_eq!(running.deliveries, limit);
        }
    }

    #[test]
    fn there_is_a_connection_for_each_place_and_two_beside() {
        let most = |connections| within_pool(16, connections);

        assert_eq!(
            [1, 4, 5, 6, 10, 25, 26, 300].map(most),
            [1, 1, 1, 2, 6, 15, 16, 16]
        );
    }

    #[test]
    fn lines_of_a_slow_class_do_not_keep_others_from_being_found() {
        // The first class runs one at a time.
        assert_eq!(room_for_due(&[0, 0], &[1, 16], 16, 1_000), 32);
        assert_eq!(room_for_due(&[400, 0], &[1, 16], 16, 1_000), 30);
        assert_eq!(room_for_due(&[400, 30], &[1, 16], 16, 1_000), 0);
        assert_eq!(room_for_due(&[500, 495], &[1, 1], 16, 1_000), 5);
    }

    #[test]
    fn a_class_takes_half_of_the_room_if_there_are_others() {
        assert!(takes_class(499, 2, 1_000));
        assert!(!takes_class(500, 2, 1_000));
        assert!(takes_class(999, 1, 1_000));
    }
}

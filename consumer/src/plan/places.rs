//! Decides how many run at a time: deliveries, lines that are due, and tries of paused types, each with places of its own, so
//! that none of them can keep another from running. Pure.

/// What something that runs is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PlaceKind {
    /// It came from the broker.
    Delivery,
    /// It has waited in the database.
    Due,
    /// It has waited in the database, and is tried for all of its type.
    Probe,
}

/// All of them, first the one that goes before the others.
pub(crate) const PLACE_KINDS: [PlaceKind; 3] =
    [PlaceKind::Probe, PlaceKind::Due, PlaceKind::Delivery];

/// How many of each kind run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Running {
    pub(crate) deliveries: usize,
    pub(crate) due: usize,
    pub(crate) probes: usize,
}

impl Running {
    pub(crate) fn of(&mut self, kind: PlaceKind) -> &mut usize {
        match kind {
            PlaceKind::Delivery => &mut self.deliveries,
            PlaceKind::Due => &mut self.due,
            PlaceKind::Probe => &mut self.probes,
        }
    }

    fn count(self, kind: PlaceKind) -> usize {
        match kind {
            PlaceKind::Delivery => self.deliveries,
            PlaceKind::Due => self.due,
            PlaceKind::Probe => self.probes,
        }
    }

    pub(crate) fn all(self) -> usize {
        self.deliveries + self.due + self.probes
    }
}

/// How many may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Places {
    /// Deliveries, and as many lines that are due.
    pub(crate) limit: usize,
    /// In all.
    pub(crate) all: usize,
}

/// Connections for what is beside the handlers: the looks at what is due and at paused types.
const BESIDE: usize = 2;

impl Places {
    /// As many as are wanted, and some beside for lines that are due and once more for probes; but never more deliveries than there are
    /// connections, and where those are few, the others only have places that deliveries leave them.
    pub(crate) fn within_pool(wanted: usize, connections: usize) -> Self {
        let limit = wanted.min(connections.max(1));
        let most = connections.saturating_sub(BESIDE).max(limit);
        let all = (limit + 2 * own(limit)).min(most);
        Self { limit, all }
    }

    /// How many places of a kind the others leave it while something waits in it.
    fn own(self) -> usize {
        if self.all < PLACE_KINDS.len() {
            // They take turns.
            0
        } else {
            own(self.limit)
        }
    }
}

/// Places of lines that are due which deliveries cannot take, and of probes which nothing else can.
pub(crate) fn own(limit: usize) -> usize {
    (limit / 4).max(1)
}

/// Whether one more of a kind may run. Deliveries may take `limit` places, and lines that are due as many, but not all of both: each
/// has some that the other does not take while something waits for them.
pub(crate) fn has_place(
    kind: PlaceKind,
    running: Running,
    waits: impl Fn(PlaceKind) -> bool,
    places: Places,
) -> bool {
    let Places { limit, all } = places;
    // Probes are few, and leave nothing.
    let others = PLACE_KINDS.into_iter().filter(|other| *other != kind);
    let left: usize = others
        .filter(|other| kind != PlaceKind::Probe && waits(*other))
        .map(|other| places.own().saturating_sub(running.count(other)))
        .sum();
    if running.all() + left >= all {
        return false;
    }
    let shared = running.deliveries + running.due < limit + own(limit);
    match kind {
        PlaceKind::Delivery => shared && running.deliveries < limit,
        PlaceKind::Due => shared && running.due < limit,
        PlaceKind::Probe => running.probes < own(limit),
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

    /// Lets as many of a kind run as may, while something waits in these.
    fn fill(kind: PlaceKind, mut running: Running, waits: &[PlaceKind], places: Places) -> Running {
        while has_place(kind, running, |kind| waits.contains(&kind), places) {
            *running.of(kind) += 1;
        }
        running
    }

    /// With a connection for each place and two beside.
    fn places(limit: usize) -> Places {
        Places::within_pool(limit, 1_000)
    }

    proptest! {
        #[test]
        fn no_kind_can_keep_another_from_running(
            wanted in 1..100_usize,
            connections in 3..200_usize,
            order in Just(PLACE_KINDS.to_vec()).prop_shuffle(),
        ) {
            let places = Places::within_pool(wanted, connections);
            prop_assume!(places.all >= 3);
            for last in PLACE_KINDS {
                let mut running = Running::default();
                for kind in order.iter().filter(|kind| **kind != last) {
                    running = fill(*kind, running, &PLACE_KINDS, places);
                }
                prop_assert!(
                    has_place(last, running, |_| true, places), "{last:?} beside {running:?}"
                );
            }
        }

        #[test]
        fn where_there_are_connections_no_kind_waits_for_another_to_leave(
            limit in 1..100_usize, order in Just(PLACE_KINDS.to_vec()).prop_shuffle()
        ) {
            // Whatever has come first, though nothing else was there to wait.
            for last in PLACE_KINDS {
                let mut running = Running::default();
                for kind in order.iter().filter(|kind| **kind != last) {
                    running = fill(*kind, running, &[], places(limit));
                }
                prop_assert!(has_place(last, running, |_| true, places(limit)));
            }
        }

        #[test]
        fn no_more_run_than_there_are_places_and_connections(
            wanted in 1..100_usize,
            connections in 1..200_usize,
            order in Just(PLACE_KINDS.to_vec()).prop_shuffle(),
        ) {
            let places = Places::within_pool(wanted, connections);
            let running = order.iter().fold(
                Running::default(), |running, kind| fill(*kind, running, &[], places)
            );

            prop_assert!(running.deliveries <= places.limit && running.due <= places.limit);
            prop_assert!(running.all() <= places.all.min(connections));
        }
    }

    #[test]
    fn deliveries_alone_may_take_all_that_the_user_has_allowed() {
        for limit in [1, 2, 16] {
            let running = fill(PlaceKind::Delivery, Running::default(), &[], places(limit));

            assert_eq!(running.deliveries, limit);
        }
    }

    #[test]
    fn a_pool_limits_deliveries_to_its_connections_and_no_further() {
        let of = |connections| {
            let Places { limit, all } = Places::within_pool(16, connections);
            (limit, all)
        };

        // The third is what a pool has by itself.
        assert_eq!(
            [1, 4, 10, 16, 20, 26, 300].map(of),
            [
                (1, 1),
                (4, 4),
                (10, 10),
                (16, 16),
                (16, 18),
                (16, 24),
                (16, 24)
            ]
        );
        let default = Places::within_pool(16, 10);
        let running = fill(PlaceKind::Delivery, Running::default(), &[], default);
        assert_eq!(running.deliveries, 10);
        let running = fill(
            PlaceKind::Delivery,
            Running::default(),
            &PLACE_KINDS,
            default,
        );
        assert_eq!(running.deliveries, 6, "once others wait, they get theirs");
    }

    #[test]
    fn in_a_single_place_kinds_take_turns() {
        let one = Places::within_pool(16, 1);
        for kind in PLACE_KINDS {
            assert!(has_place(kind, Running::default(), |_| true, one));
        }
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

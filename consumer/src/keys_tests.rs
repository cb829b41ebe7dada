//! Tests of the order.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

fn key(name: u8) -> KeyId {
    KeyId {
        topic: Topic::received("t"),
        key: Key::received(&name.to_string()),
    }
}

/// With a connection for each place.
fn with_places(limit: usize, limits: Vec<usize>) -> Keys {
    Keys::new(Places::within_pool(limit, 1_000), limits)
}

#[test]
fn one_key_runs_one_at_a_time_and_others_beside_it() {
    let mut keys = with_places(10, vec![10]);
    keys.arrive(1, Some(key(1)), 0);
    keys.arrive(2, Some(key(1)), 0);
    keys.arrive(3, Some(key(2)), 0);

    assert_eq!(keys.start(), Some(1));
    assert_eq!(keys.start(), Some(3));
    assert_eq!(keys.start(), None);
    keys.end(1);
    assert_eq!(keys.start(), Some(2));
}

#[test]
fn messages_without_a_key_run_side_by_side() {
    let mut keys = with_places(2, vec![10]);
    for number in 1..=3 {
        keys.arrive(number, None, 0);
    }

    assert_eq!((keys.start(), keys.start()), (Some(1), Some(2)));
    assert_eq!(keys.start(), None);
    keys.end(2);
    assert_eq!(keys.start(), Some(3));
}

#[test]
fn a_class_at_its_limit_does_not_stop_the_others() {
    let mut keys = with_places(10, vec![1, 10]);
    keys.arrive(1, None, 0);
    keys.arrive(2, None, 0);
    keys.arrive(3, None, 1);

    assert_eq!((keys.start(), keys.start()), (Some(1), Some(3)));
    assert_eq!(keys.start(), None);
}

#[test]
fn what_waits_can_be_dropped_while_what_runs_goes_on() {
    let mut keys = with_places(10, vec![10]);
    for number in 1..=3 {
        keys.arrive(number, Some(key(1)), 0);
    }
    keys.start();

    assert_eq!(keys.drop_waiting(|_| true), vec![2, 3]);

    keys.arrive(4, Some(key(1)), 0);
    assert_eq!(keys.start(), None, "4 waits for 1, which still runs");
    keys.end(1);
    assert_eq!(keys.start(), Some(4));
}

#[test]
fn a_full_consumer_still_has_places_for_what_has_waited_and_for_a_probe() {
    let mut keys = with_places(1, vec![9, 9]);
    keys.arrive(1, None, 0);
    keys.arrive(2, None, 0);
    keys.arrive_due(3, 1, PlaceKind::Due);
    keys.arrive_due(4, 1, PlaceKind::Due);
    keys.arrive_due(5, 1, PlaceKind::Probe);

    let started: Vec<_> = std::iter::from_fn(|| keys.start()).collect();

    assert_eq!(started, [5, 1, 3]);
    assert_eq!(keys.running(), 3);
}

#[test]
fn with_a_connection_for_each_delivery_only_others_get_the_next_places() {
    let mut keys = Keys::new(Places::within_pool(16, 4), vec![9]);
    for number in 1..=6 {
        keys.arrive(number, None, 0);
    }
    let started: Vec<_> = std::iter::from_fn(|| keys.start()).collect();
    assert_eq!(started, [1, 2, 3, 4], "as many as without the others");

    keys.arrive_due(7, 0, PlaceKind::Due);
    keys.arrive_due(8, 0, PlaceKind::Probe);
    assert_eq!(keys.start(), None);
    keys.end(1);
    assert_eq!(keys.start(), Some(8));
    keys.end(2);
    assert_eq!(keys.start(), Some(7));
    keys.end(3);
    assert_eq!(keys.start(), Some(5));
}

#[test]
fn a_probe_goes_first_in_a_class_that_is_full_but_not_beside_it() {
    let mut keys = with_places(4, vec![1]);
    keys.arrive(1, None, 0);
    keys.start();
    keys.arrive(2, None, 0);
    keys.arrive_due(3, 0, PlaceKind::Due);
    keys.arrive_due(4, 0, PlaceKind::Probe);

    assert_eq!(keys.start(), None, "one at a time");
    keys.end(1);
    assert_eq!(keys.start(), Some(4));
}

#[test]
fn what_is_set_aside_gives_its_place_up_and_keeps_its_key() {
    let mut keys = with_places(1, vec![9]);
    keys.arrive(1, Some(key(1)), 0);
    keys.arrive(2, Some(key(1)), 0);
    keys.arrive(3, Some(key(2)), 0);

    assert_eq!(keys.start(), Some(1));
    keys.set_aside(1);
    assert_eq!(keys.start(), Some(3), "and not 2, which follows 1");
    keys.end(3);
    assert_eq!(keys.start(), None);
    keys.bring_back(1);
    keys.bring_back(1);
    assert_eq!(keys.start(), Some(1));
    keys.end(1);
    assert_eq!(keys.start(), Some(2));
}

#[test]
fn what_is_set_aside_can_be_dropped() {
    let mut keys = with_places(1, vec![9]);
    keys.arrive(1, Some(key(1)), 0);
    keys.start();
    keys.set_aside(1);

    assert_eq!(keys.drop_waiting(|_| true), [1]);
    keys.bring_back(1);
    assert_eq!(keys.start(), None);
    assert!(keys.items.is_empty() && keys.lines.is_empty());
}

proptest! {
    /// Any interleaving of arrivals, starts, ends and drops.
    #[test]
    fn no_key_ever_runs_twice_at_a_time_or_out_of_order(
        steps in prop::collection::vec((0..6_u8, 0..5_u8, 0..2_usize), 1..300)
    ) {
        let mut keys = with_places(3, vec![2, 2]);
        let mut key_of: HashMap<u64, Option<u8>> = HashMap::new();
        let mut running: Vec<u64> = Vec::new();
        let mut last_started: HashMap<u8, u64> = HashMap::new();
        let mut aside: Vec<u64> = Vec::new();
        let mut number = 0;
        for (step, name, class) in steps {
            match step {
                0 => {
                    number += 1;
                    let name = (name > 0).then_some(name);
                    key_of.insert(number, name);
                    keys.arrive(number, name.map(key), class);
                }
                1 => if let Some(started) = keys.start() {
                    if let Some(name) = key_of[&started] {
                        prop_assert!(last_started.insert(name, started).is_none_or(|last| last <= started));
                    }
                    running.push(started);
                },
                2 => if !running.is_empty() {
                    let ended = running.remove(usize::from(name) % running.len());
                    keys.end(ended);
                },
                3 => if !running.is_empty() {
                    let one = running.remove(usize::from(name) % running.len());
                    keys.set_aside(one);
                    aside.push(one);
                },
                4 => for one in aside.drain(..) {
                    keys.bring_back(one);
                },
                _ => drop(keys.drop_waiting(|number| number % 5 == u64::from(name))),
            }
            let of_keys: Vec<u8> = running.iter().filter_map(|number| key_of[number]).collect();
            let distinct: HashSet<&u8> = of_keys.iter().collect();
            prop_assert_eq!(distinct.len(), of_keys.len());
            prop_assert!(running.len() <= 3);
            prop_assert_eq!(running.len(), keys.running());
        }
    }

    #[test]
    fn everything_that_arrives_runs_once(arrivals in prop::collection::vec((0..4_u8, 0..2_usize), 0..100)) {
        let mut keys = with_places(2, vec![1, 2]);
        for (number, (name, class)) in (0_u64..).zip(&arrivals) {
            keys.arrive(number, (*name > 0).then(|| key(*name)), *class);
        }

        let mut ran = HashSet::new();
        while let Some(number) = keys.start() {
            prop_assert!(ran.insert(number));
            keys.end(number);
        }

        prop_assert_eq!(ran.len(), arrivals.len());
        prop_assert!(keys.lines.is_empty() && keys.items.is_empty());
    }
}

fn all(_: u64) -> Take {
    Take::Yes
}

#[test]
fn a_batch_takes_a_key_in_order_and_up_to_the_first_gap() {
    let mut keys = with_places(10, vec![10, 10]);
    for (number, class) in [(1, 0), (2, 0), (3, 1), (4, 0)] {
        keys.arrive(number, Some(key(1)), class);
    }
    keys.arrive(5, Some(key(2)), 0);
    keys.arrive(6, None, 0);
    assert_eq!(keys.start(), Some(1));

    assert_eq!(keys.along(&[1], all), [2, 5, 6]);

    assert_eq!(keys.running(), 1, "they share one place");
    assert_eq!(keys.start(), None, "3 waits for the batch");
    for number in [2, 1, 5, 6] {
        keys.end(number);
    }
    assert_eq!(keys.start(), Some(3));
}

#[test]
fn what_may_not_be_part_of_a_batch_keeps_its_turn_and_what_is_behind_it() {
    let mut keys = with_places(10, vec![10]);
    keys.arrive(1, None, 0);
    for number in [2, 3] {
        keys.arrive(number, Some(key(1)), 0);
    }
    keys.arrive(4, None, 0);
    keys.start();

    let takes = |number| if number == 2 { Take::No } else { Take::Yes };
    assert_eq!(keys.along(&[1], takes), [4]);

    assert_eq!(keys.start(), Some(2));
    assert_eq!(keys.start(), None);
}

#[test]
fn a_batch_that_is_full_leaves_the_rest_in_order() {
    let mut keys = with_places(10, vec![10]);
    for number in 1..=5 {
        keys.arrive(number, None, 0);
    }
    keys.start();

    let mut left = 2;
    let along = keys.along(&[1], |_| {
        left -= 1;
        if left < 0 { Take::Full } else { Take::Yes }
    });

    assert_eq!(along, [2, 3]);
    assert_eq!((keys.start(), keys.start()), (Some(4), Some(5)));
}

#[test]
fn what_has_run_in_a_batch_and_waits_again_comes_first_and_one_by_one() {
    let mut keys = with_places(10, vec![10]);
    for number in [1, 2, 3] {
        keys.arrive(number, Some(key(1)), 0);
    }
    keys.arrive(4, Some(key(2)), 0);
    keys.start();
    assert_eq!(keys.along(&[1], all), [2, 3, 4]);
    keys.arrive(5, None, 0);

    keys.end(1);
    keys.again(vec![4, 3, 2]);

    assert_eq!(keys.running(), 0);
    assert_eq!((keys.start(), keys.start()), (Some(2), Some(4)));
    assert_eq!((keys.start(), keys.start()), (Some(5), None));
    keys.end(2);
    assert_eq!(keys.start(), Some(3));
}

proptest! {
    /// Batches of any size that end, wait again in part, or are dropped while they wait.
    #[test]
    fn no_key_is_ever_in_two_batches_or_out_of_order(
        steps in prop::collection::vec((0..5_u8, 0..4_u8, 1..6_usize), 1..200)
    ) {
        let mut keys = with_places(3, vec![2]);
        let mut key_of: HashMap<u64, Option<u8>> = HashMap::new();
        let mut settled: HashMap<u8, u64> = HashMap::new();
        let mut batches: Vec<Vec<u64>> = Vec::new();
        let mut number = 0;
        for (step, name, size) in steps {
            match step {
                0 | 1 => for _ in 0..size {
                    number += 1;
                    let name = (name > 0).then_some(name);
                    key_of.insert(number, name);
                    keys.arrive(number, name.map(key), 0);
                },
                2 => if let Some(first) = keys.start() {
                    let mut left = size;
                    let along = keys.along(&[first], |_| {
                        left -= 1;
                        if left == 0 { Take::Full } else { Take::Yes }
                    });
                    batches.push([vec![first], along].concat());
                },
                3 => if !batches.is_empty() {
                    let batch = batches.remove(usize::from(name) % batches.len());
                    let (ended, again) = batch.split_at(size.min(batch.len()));
                    for number in ended {
                        if let Some(name) = key_of[number] {
                            prop_assert!(settled.insert(name, *number).is_none_or(|last| last < *number));
                        }
                        keys.end(*number);
                    }
                    keys.again(again.to_vec());
                },
                _ => drop(keys.drop_waiting(|number| number % 4 == u64::from(name))),
            }
            let mut of_keys = HashSet::new();
            for batch in &batches {
                let names: HashSet<u8> = batch.iter().filter_map(|number| key_of[number]).collect();
                prop_assert!(names.iter().all(|name| of_keys.insert(*name)));
            }
            prop_assert_eq!(keys.running(), batches.len());
        }
    }
}

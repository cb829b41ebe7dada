//! A check that cannot fail is no check: each kind of wrong is planted here and must be found, alone.

use super::super::facts::Effect;
use super::*;

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

/// Version 1 to 3 of each of two keys, published and handled as it should be.
fn clean() -> Facts {
    let mut facts = Facts {
        effects: Some(Vec::new()),
        duplicates_allowed: Some(0),
        ..Facts::default()
    };
    for n in 0..6_u64 {
        let key = if n % 2 == 0 { "a" } else { "b" };
        let one = Committed {
            id: id(u128::from(n)),
            key: Some(key.to_owned()),
            version: i64::try_from(n / 2).unwrap(),
            payload: Some(vec![u8::try_from(n).unwrap()]),
        };
        facts.arrivals.push(Arrival {
            id: Some(one.id),
            key: one.key.clone(),
            payload: one.payload.clone().unwrap(),
            partition: "orders/0".into(),
            position: n,
        });
        facts.effects.as_mut().unwrap().push(Effect { id: one.id });
        facts.committed.push(one);
    }
    facts.fence = vec![
        claim(),
        checkpoint(Some(1), Some(1), 3),
        claim(),
        checkpoint(Some(2), Some(2), 6),
    ];
    facts
}

fn claim() -> FenceEvent {
    FenceEvent::Claim {
        stream: "events".into(),
        who: "a relay".into(),
    }
}

fn checkpoint(under: Option<u128>, valid: Option<u128>, last_seq: i64) -> FenceEvent {
    FenceEvent::Checkpoint {
        stream: "events".into(),
        who: "a relay".into(),
        under: under.map(id),
        valid: valid.map(id),
        cursor: (1, String::new()),
        last_seq,
    }
}

/// Plants one wrong, and expects that and nothing else to be found.
#[track_caller]
fn only(wrong: &str, plant: impl FnOnce(&mut Facts)) {
    let mut facts = clean();
    plant(&mut facts);

    let verdict = judge(&facts);

    let found: Vec<_> = verdict
        .wrongs()
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .collect();
    assert_eq!(found, [(wrong, 1)], "{verdict}");
    assert!(!verdict.is_green());
}

#[test]
fn a_clean_run_is_green() {
    let verdict = judge(&clean());

    assert!(verdict.is_green(), "{verdict}");
    assert_eq!(
        (
            verdict.committed,
            verdict.published,
            verdict.handled,
            verdict.claims
        ),
        (6, 6, Some(6), 2)
    );
}

#[test]
fn a_lost_message_is_found() {
    only("lost", |facts| drop(facts.arrivals.remove(2)));
}

#[test]
fn a_phantom_and_a_message_without_id_are_found() {
    let stranger = |id| Arrival {
        id,
        ..clean().arrivals[0].clone()
    };
    only("phantom", |facts| {
        facts.arrivals.push(stranger(Some(id(99))))
    });
    only("phantom", |facts| facts.arrivals.push(stranger(None)));
}

#[test]
fn a_first_arrival_behind_a_later_one_of_its_key_is_found() {
    only("out of order", |facts| facts.arrivals.swap(2, 4));
}

#[test]
fn keys_are_in_no_order_among_each_other() {
    let mut facts = clean();
    facts.arrivals.swap(0, 1);

    assert!(judge(&facts).is_green());
}

#[test]
fn a_copy_may_follow_at_any_time_as_far_as_it_is_explained() {
    let copy = clean().arrivals[0].clone();
    let mut facts = clean();
    facts.arrivals.push(copy.clone());
    facts.duplicates_allowed = Some(1);

    assert!(judge(&facts).is_green());
    only("unexplained duplicates", |facts| facts.arrivals.push(copy));
}

#[test]
fn a_message_comes_again_as_often_as_takeovers_may_have_repeated_it() {
    let copy = |n: usize| clean().arrivals[n].clone();
    let plant = |facts: &mut Facts, copies: &[usize]| {
        facts.duplicates_allowed = Some(10);
        facts.repeats = Some(HashMap::from([(id(0), 2), (id(1), 1)]));
        facts.arrivals.extend(copies.iter().map(|n| copy(*n)));
    };
    let mut facts = clean();
    plant(&mut facts, &[0, 1, 0]);

    assert!(judge(&facts).is_green());
    only("copies without takeover", |facts| {
        plant(facts, &[0, 1, 0, 1])
    });
    only("copies without takeover", |facts| plant(facts, &[0, 2]));
}

#[test]
fn other_bytes_are_found_in_a_copy_too() {
    only("payload mismatch", |facts| {
        facts.arrivals[3].payload.push(0)
    });
    only("payload mismatch", |facts| {
        facts.duplicates_allowed = Some(1);
        facts.arrivals.push(Arrival {
            payload: vec![9],
            ..facts.arrivals[0].clone()
        });
    });
}

#[test]
fn another_key_and_a_split_key_are_found() {
    only("key mismatch", |facts| facts.arrivals[3].key = None);
    only("split keys", |facts| {
        facts.arrivals[4].partition = "orders/1".into()
    });
}

#[test]
fn a_missing_a_doubled_and_a_phantom_effect_are_found() {
    only("missing effects", |facts| {
        facts.effects.as_mut().unwrap().pop();
    });
    only("doubled effects", |facts| {
        facts.effects.as_mut().unwrap().push(Effect { id: id(2) })
    });
    only("phantom effects", |facts| {
        facts.effects.as_mut().unwrap().push(Effect { id: id(99) })
    });
}

#[test]
fn effects_out_of_order_are_found() {
    only("effects out of order", |facts| {
        facts.effects.as_mut().unwrap().swap(1, 3)
    });
}

#[test]
fn a_checkpoint_under_another_token_than_the_valid_one_is_found() {
    for (under, valid) in [
        (Some(1), Some(2)),
        (None, Some(2)),
        (Some(2), None),
        (None, None),
    ] {
        only("stale checkpoints", |facts| {
            facts.fence.push(checkpoint(under, valid, 6))
        });
    }
}

#[test]
fn a_cursor_that_goes_back_is_found() {
    only("cursor regressions", |facts| {
        facts.fence.push(checkpoint(Some(2), Some(2), 5))
    });
}

#[test]
fn an_excused_message_may_be_missing_or_late() {
    let mut facts = clean();
    facts.excused.insert(id(0));
    let late = facts.arrivals.remove(0);
    facts.effects.as_mut().unwrap().remove(0);

    assert!(judge(&facts).is_green());
    facts.arrivals.push(late);
    assert!(judge(&facts).is_green());
}

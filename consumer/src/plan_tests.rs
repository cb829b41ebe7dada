//! Tests of the decisions.

use proptest::prelude::*;

use super::*;

fn settings(attempts: u32) -> HandlerSettings {
    HandlerSettings {
        attempts,
        defer_after: Duration::from_secs(5),
        ..HandlerSettings::default()
    }
}

/// Runs until it is decided, as the loop does. Gives the decision and how often it ran.
fn decide(runs: &[Run], attempts: u32) -> (Next, usize, Tally) {
    let mut tally = Tally::default();
    for (n, run) in runs.iter().enumerate() {
        tally = tally.count(*run);
        let next = after_run(*run, tally, &settings(attempts), Came::FromBroker, 0.5);
        match next {
            Next::Again(_) | Next::Alone | Next::Defer(_) | Next::Pause(_) => {}
            Next::Settled(_) | Next::WaitForType | Next::Expire | Next::GiveUp(_) | Next::Leave => {
                return (next, n + 1, tally);
            }
        }
    }
    (Next::Leave, runs.len(), tally)
}

#[test]
fn the_last_attempt_that_fails_ends_in_a_dead_letter() {
    let runs = [Run::Failed(Verdict::Retry); 20];

    let (next, ran, _) = decide(&runs, 3);

    assert_eq!((next, ran), (Next::GiveUp(DeadReason::Attempts), 3));
}

#[test]
fn a_rejection_ends_at_once() {
    let next = |verdict| decide(&[Run::Failed(verdict)], 10).0;

    assert_eq!(next(Verdict::Reject), Next::GiveUp(DeadReason::Rejected));
    assert_eq!(next(Verdict::Payload), Next::GiveUp(DeadReason::Payload));
}

#[test]
fn ten_conflicts_are_free_and_the_eleventh_counts() {
    let runs = [Run::Conflict; 11];

    let (_, _, tally) = decide(&runs[..10], 1);
    let (next, ran, counted) = decide(&runs, 1);

    assert_eq!(tally.attempts, 0);
    assert_eq!((next, ran), (Next::GiveUp(DeadReason::Attempts), 11));
    assert_eq!(counted.attempts, 1);
}

#[test]
fn a_handler_that_asks_for_a_delay_gets_it_until_its_attempts_are_used_up() {
    let delay = Duration::from_secs(3);
    let run = Run::Failed(Verdict::RetryAfter(delay));
    let tally = Tally::default().count(run);
    let next = |tally| after_run(run, tally, &settings(2), Came::FromBroker, 0.0);

    assert_eq!(next(tally), Next::Again(delay));
    assert_eq!(next(tally.count(run)), Next::GiveUp(DeadReason::Attempts));
}

#[test]
fn a_long_wait_is_in_the_database_and_one_there_never_holds_a_delivery() {
    let next = |delay, came| {
        let run = Run::Failed(Verdict::RetryAfter(delay));
        after_run(run, Tally::default().count(run), &settings(9), came, 0.0)
    };
    let (short, long) = (Duration::from_secs(5), Duration::from_millis(5_001));

    assert_eq!(next(short, Came::FromBroker), Next::Again(short));
    assert_eq!(next(long, Came::FromBroker), Next::Defer(long));
    assert_eq!(
        next(Duration::ZERO, Came::FromRetries),
        Next::Defer(Duration::ZERO)
    );
}

#[test]
fn attempts_before_a_replay_do_not_count_against_the_limit() {
    let tally = Tally {
        attempts: 10,
        forgiven: 9,
        ..Tally::default()
    };
    let run = Run::Failed(Verdict::Retry);
    let next = |tally| after_run(run, tally, &settings(2), Came::FromRetries, 0.0);

    assert_eq!(next(tally), Next::Defer(Duration::ZERO));
    assert_eq!(next(tally.count(run)), Next::GiveUp(DeadReason::Attempts));
}

#[test]
fn a_wrong_set_up_ends_the_consumer_and_an_outage_does_not() {
    assert_eq!(
        after_reading(SubscribeErrorKind::Misconfigured, 1, 0.0),
        Reading::Refuse
    );
    assert!(matches!(
        after_reading(SubscribeErrorKind::Unavailable, 99, 0.9),
        Reading::Again(wait) if wait <= OUTAGE.max
    ));
}

#[test]
fn one_message_larger_than_all_the_room_still_passes() {
    assert_eq!(room((0, 0), (10, 100), 1_000, 64), 1);
    assert_eq!(room((1, 1_000), (10, 100), 1_000, 64), 0);
    assert_eq!(room((10, 0), (10, 100), 1, 64), 0);
    assert_eq!(room((0, 0), (1_000, 100_000), 10, 64), 64);
}

fn any_run() -> impl Strategy<Value = Run> {
    prop_oneof![
        Just(Run::Failed(Verdict::Retry)),
        Just(Run::Failed(Verdict::RetryAfter(Duration::from_secs(1)))),
        Just(Run::Conflict),
        Just(Run::Elsewhere),
        Just(Run::Outage),
    ]
}

proptest! {
    #[test]
    fn outages_and_work_elsewhere_never_cost_an_attempt(runs in prop::collection::vec(
        prop_oneof![Just(Run::Outage), Just(Run::Elsewhere)], 0..200
    )) {
        let (next, _, tally) = decide(&runs, 1);

        prop_assert_eq!(tally.attempts, 0);
        prop_assert_eq!(next, Next::Leave);
    }

    #[test]
    fn nothing_is_given_up_on_before_its_attempts_are_used_up(
        runs in prop::collection::vec(any_run(), 0..200), attempts in 1..12_u32
    ) {
        let (next, ran, tally) = decide(&runs, attempts);

        if next == Next::GiveUp(DeadReason::Attempts) {
            prop_assert_eq!(tally.attempts, attempts);
        } else {
            prop_assert_eq!(ran, runs.len());
            prop_assert!(tally.attempts < attempts);
        }
    }

    #[test]
    fn a_delivery_that_goes_on_conflicting_comes_to_an_end(attempts in 1..12_u32) {
        let runs = vec![Run::Conflict; 11 * attempts as usize];

        let (next, ran, _) = decide(&runs, attempts);

        prop_assert_eq!(next, Next::GiveUp(DeadReason::Attempts));
        prop_assert_eq!(ran, runs.len());
    }

    #[test]
    fn no_wait_is_longer_than_its_maximum(run in any_run(), tally in 0..100_u32, chance in 0.0..1.0_f64) {
        let tally = Tally { attempts: tally, forgiven: 0, conflicts: tally, elsewhere: tally, outages: tally };

        match after_run(run, tally, &settings(1_000), Came::FromBroker, chance) {
            Next::Again(wait) | Next::Defer(wait) | Next::Pause(wait) => prop_assert!(wait <= Duration::from_secs(30)),
            Next::Settled(_)
            | Next::Alone
            | Next::WaitForType
            | Next::Expire
            | Next::GiveUp(_)
            | Next::Leave => prop_assert!(false),
        }
    }

    #[test]
    fn what_is_read_never_exceeds_the_room(
        held in 0..2_000_usize, bytes in 0..200_000_usize, largest in 0..50_000_usize
    ) {
        let room = room((held, bytes), (1_000, 100_000), largest, 64);

        prop_assert!(room + held <= 1_000.max(held));
        prop_assert!(room <= 1 || bytes + room * largest <= 100_000);
    }
}

/// The reason after that one, in the order of their declaration: a new reason has no place here until it is given one.
fn next_reason(reason: Option<DeadReason>) -> Option<DeadReason> {
    match reason {
        None => Some(DeadReason::Undecodable),
        Some(DeadReason::Undecodable) => Some(DeadReason::Payload),
        Some(DeadReason::Payload) => Some(DeadReason::NoHandler),
        Some(DeadReason::NoHandler) => Some(DeadReason::Rejected),
        Some(DeadReason::Rejected) => Some(DeadReason::Attempts),
        Some(DeadReason::Attempts) => Some(DeadReason::TransactionEnded),
        Some(DeadReason::TransactionEnded) => Some(DeadReason::IdConflict),
        Some(DeadReason::IdConflict) => Some(DeadReason::Crashed),
        Some(DeadReason::Crashed) => Some(DeadReason::TooOld),
        Some(DeadReason::TooOld) => Some(DeadReason::SequenceReused),
        Some(DeadReason::SequenceReused) => Some(DeadReason::SequenceUnknown),
        Some(DeadReason::SequenceUnknown) => None,
    }
}

#[test]
fn no_reason_of_dead_letters_is_left_out_of_those_that_are_listed() {
    let mut reasons = Vec::new();
    while let Some(reason) = next_reason(reasons.last().copied()) {
        reasons.push(reason);
    }

    assert_eq!(reasons, DeadReason::ALL);
}

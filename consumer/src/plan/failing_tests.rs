//! Tests of what is decided about types.

use proptest::prelude::*;

use super::super::Outcome;
use super::*;

fn mark(n: usize) -> Uuid {
    Uuid::from_u128(n as u128)
}

/// After which of these messages the type fails for the first time.
fn fails_after(runs: &[(usize, bool)]) -> Option<usize> {
    let mut seen = RecentRuns::default();
    let mut runs = runs.iter();
    runs.position(|(n, failed)| seen.add(mark(*n), *failed, 20))
        .map(|place| place + 1)
}

#[test]
fn a_type_fails_once_ten_distinct_messages_have_failed() {
    let runs: Vec<_> = (0..30).map(|n| (n, true)).collect();

    assert_eq!(fails_after(&runs), Some(10));
}

#[test]
fn one_message_that_fails_again_and_again_is_one() {
    let runs: Vec<_> = (0..100).map(|n| (n % 9, true)).collect();

    assert_eq!(fails_after(&runs), None);
}

#[test]
fn a_type_of_which_half_is_handled_does_not_fail() {
    let runs: Vec<_> = (0..200).map(|n| (n, n % 2 == 0)).collect();

    assert_eq!(fails_after(&runs), None);
}

#[test]
fn a_type_of_which_most_messages_fail_fails_although_some_are_handled() {
    let runs: Vec<_> = (0..200).map(|n| (n, n % 3 != 0)).collect();

    assert_eq!(fails_after(&runs), Some(15));
}

#[test]
fn a_message_that_is_handled_in_the_end_is_no_failure() {
    let runs: Vec<_> = (0..100).map(|n| (n / 2, n % 2 == 0)).collect();

    assert_eq!(fails_after(&runs), None);
}

#[test]
fn what_waits_for_a_type_that_is_handled_again_waits_no_longer() {
    let waits = Until::Resumed {
        kind: "t",
        tried: false,
    };

    assert_eq!(waits.of_line(true, 0.5).waits_for, Some("t"));
    assert_eq!(
        waits.of_line(false, 0.5),
        LineWait {
            delay: Duration::ZERO,
            waits_for: None
        }
    );
    assert_eq!(waits.of_message(), Duration::ZERO);
}

#[test]
fn a_wait_of_its_own_is_that_of_message_and_line() {
    let delay = Duration::from_secs(7);
    let waits = Until::After(delay);

    assert_eq!(waits.of_message(), delay);
    assert_eq!(waits.of_line(true, 0.5).delay, delay);
    assert_eq!(waits.of_line(true, 0.5).waits_for, None);
}

#[test]
fn a_message_that_was_tried_goes_behind_all_that_were_not() {
    let of = |tried, chance| {
        Until::Resumed { kind: "t", tried }
            .of_line(true, chance)
            .delay
    };

    assert!(of(false, 0.0) < of(false, 0.999));
    assert!(of(false, 0.999) < of(true, 0.0));
    assert_eq!(
        of(true, 0.0),
        of(true, 0.999),
        "in the order of their tries"
    );
}

#[test]
fn a_failure_of_a_probe_is_no_attempt_and_no_dead_letter() {
    let failed = Run::Failed(Verdict::Retry);
    for next in [
        Next::Defer(Duration::from_secs(1)),
        Next::GiveUp(DeadReason::Attempts),
        Next::GiveUp(DeadReason::Payload),
    ] {
        assert_eq!(after_probe(failed, next), Next::WaitForType);
    }
    for next in [
        Next::Settled(Outcome::Handled),
        Next::GiveUp(DeadReason::Rejected),
        Next::GiveUp(DeadReason::TransactionEnded),
        Next::Leave,
    ] {
        assert_eq!(after_probe(failed, next), next);
    }
}

#[test]
fn a_probe_that_asks_to_wait_waits_as_it_asks() {
    let asks = Run::Failed(Verdict::RetryAfter(Duration::from_secs(60)));
    let waits = Next::Defer(Duration::from_secs(60));

    assert_eq!(after_probe(asks, waits), waits);
    assert_eq!(
        after_probe(asks, Next::GiveUp(DeadReason::Attempts)),
        Next::WaitForType
    );
}

#[test]
fn nothing_is_given_up_on_for_what_all_of_a_paused_type_fail_with() {
    for reason in [DeadReason::Attempts, DeadReason::Payload] {
        assert_eq!(while_paused(Next::GiveUp(reason)), Next::WaitForType);
    }
    let waits = Next::Defer(Duration::from_secs(1));
    for next in [waits, Next::GiveUp(DeadReason::Rejected), Next::Alone] {
        assert_eq!(while_paused(next), next);
    }
}

#[test]
fn a_type_that_fails_again_once_it_is_resumed_fails_after_four_messages() {
    let mut seen = RecentRuns::default();
    for n in 0..30 {
        seen.add(mark(n), n % 5 != 0, 20);
    }
    seen.pause();

    // The first ones have waited for the end of the pause.
    assert!(!seen.add(mark(28), true, 20));
    assert!(!seen.add(mark(28), true, 20), "it is one");
    assert!(!seen.add(mark(29), true, 20));
    assert!(!seen.add(mark(101), true, 20));
    assert!(seen.add(mark(102), true, 20));
}

#[test]
fn a_type_is_paused_again_only_if_most_have_failed_since_it_was_resumed() {
    let mut seen = RecentRuns::default();
    for n in 0..20 {
        seen.add(mark(n), true, 20);
    }
    seen.pause();

    // One in three fails, for ever.
    let fails = (100..1_000).any(|n| seen.add(mark(n), n % 3 == 0, 20));

    assert!(!fails);
}

#[test]
fn recent_runs_of_any_number_are_paused_again_in_the_end() {
    for recent in 1..30 {
        let mut seen = RecentRuns::default();
        assert!((0..).any(|n| seen.add(mark(n), true, recent)));
        seen.pause();

        let again = (100..100 + recent).any(|n| seen.add(mark(n), true, recent));

        assert!(again, "{recent}");
    }
}

/// Each attempt fails by itself, and is made again after others: so a type is like that always has some failures in a row.
#[test]
fn a_type_of_which_each_third_attempt_fails_by_chance_is_seldom_paused() {
    let mut random = fastrand::Rng::with_seed(7);
    let (mut seen, mut pauses) = (RecentRuns::default(), 0);
    let mut waiting: VecDeque<(usize, usize)> = VecDeque::new();
    for n in 0..30_000 {
        let message = match waiting.front() {
            Some((due, message)) if *due <= n => *message,
            _ => n,
        };
        if message < n {
            waiting.pop_front();
        }
        let failed = random.u8(0..3) == 0;
        if failed {
            waiting.push_back((n + 100, message));
        }
        if seen.add(mark(message), failed, 20) {
            seen.pause();
            pauses += 1;
        }
    }

    assert!(pauses < 30, "{pauses}");
}

#[test]
fn an_outage_tells_nothing_of_a_type_and_a_rejection_that_it_works() {
    assert_eq!(tells(Run::Outage), Tells::Nothing);
    assert_eq!(tells(Run::Conflict), Tells::Nothing);
    let asks_to_wait = Verdict::RetryAfter(Duration::ZERO);
    assert_eq!(tells(Run::Failed(asks_to_wait)), Tells::Nothing);
    assert_eq!(tells(Run::Failed(Verdict::Reject)), Tells::Works);
    assert_eq!(tells(Run::Failed(Verdict::Payload)), Tells::Fails);
    assert_eq!(tells(Run::Handled), Tells::Works);
}

#[test]
fn a_turn_goes_on_for_as_long_as_its_handler_may_take_and_no_longer() {
    let deadline = Duration::from_secs(30);

    assert!(goes_on(Duration::ZERO, deadline));
    assert!(goes_on(deadline * 2, deadline));
    assert!(!goes_on(deadline * 2 + OVERDUE, deadline));
}

#[test]
fn a_type_that_the_database_could_not_tell_from_others_is_not_paused() {
    assert!(can_be_paused(&"t".repeat(255)));
    assert!(!can_be_paused(&"t".repeat(256)));
    assert!(!can_be_paused("a\0b"));
}

proptest! {
    /// Whatever the runs, a type fails only by a run that failed, with most of the recent runs failed.
    #[test]
    fn a_type_fails_only_when_most_of_its_last_messages_did(
        runs in prop::collection::vec((0..40_usize, any::<bool>()), 0..200),
        recent in 1..30_usize,
    ) {
        let mut seen = RecentRuns::default();
        for (n, failed) in runs {
            let fails = seen.add(mark(n), failed, recent);
            let Counts { failed: failures, handled } = Counts::of(seen.last.iter());
            let most = failures * 2 >= recent && failures >= handled * 2;
            prop_assert!(seen.last.len() <= recent);
            prop_assert_eq!(fails, failed && most);
        }
    }

    /// Whatever the runs, and whenever it was paused: most of the recent runs have failed, and most since the pause.
    #[test]
    fn a_type_fails_only_when_most_have_failed_since_its_last_pause(
        runs in prop::collection::vec((0..40_usize, any::<bool>()), 0..300),
        recent in 1..30_usize,
    ) {
        let mut seen = RecentRuns::default();
        let mut since: Vec<(Uuid, bool)> = Vec::new();
        for (n, failed) in runs {
            let fails = seen.add(mark(n), failed, recent);
            since.retain(|(known, _)| *known != mark(n));
            since.push((mark(n), failed));
            let last = since.len().saturating_sub(recent);
            let counts = Counts::of(since[last..].iter());
            prop_assert!(!fails || counts.failed >= counts.handled * 2);
            if fails {
                seen.pause();
                since.clear();
            }
        }
    }
}

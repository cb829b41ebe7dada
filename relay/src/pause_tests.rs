use std::time::Duration;

use onceward_core::ErrorKind;

use super::*;

fn refusal() -> Refusal {
    Refusal {
        kind: ErrorKind::UnknownTopic,
        what: "no such topic".to_owned(),
    }
}

/// The wall's clock is told to people and decides nothing.
fn at(instant: Instant) -> Now {
    Now {
        instant,
        time: SystemTime::UNIX_EPOCH,
    }
}

#[test]
fn a_paused_topic_stops_itself_and_nobody_else() {
    let (bad, good) = (Route::new("bad"), Route::new("good"));
    let mut pauses = Pauses::default();

    pauses.pause_topic(&bad, refusal(), at(Instant::now()), 1.0);

    assert_eq!(pauses.allowance(&bad), Allowance::None);
    assert_eq!(pauses.allowance(&good), Allowance::Any);
}

#[test]
fn a_pause_lasts_longer_each_time_and_keeps_its_beginning() {
    let route = Route::new("bad");
    let start = Instant::now();
    let mut pauses = Pauses::default();

    pauses.pause_topic(&route, refusal(), at(start), 1.0);
    assert!(pauses.due(start + Duration::from_millis(99)).is_empty());
    assert_eq!(pauses.due(start + Duration::from_millis(100)).len(), 1);

    let since = pauses.topics().next().unwrap().1.since;
    assert_eq!(since, SystemTime::UNIX_EPOCH);
    let later = start + Duration::from_secs(1);
    pauses.set_topic_stage(&route, Stage::Checking);
    pauses.pause_topic(&route, refusal(), at(later), 1.0);
    assert!(pauses.due(later + Duration::from_millis(199)).is_empty());
    pauses.set_topic_stage(&route, Stage::Probing);
    let pause = pauses.resume_topic(&route, later).unwrap();
    assert_eq!((pause.attempt, pause.since), (2, since));
}

#[test]
fn a_topic_that_refuses_again_soon_after_its_return_was_never_back() {
    let route = Route::new("bad");
    let start = Instant::now();
    let second = Duration::from_secs(1);
    let mut pauses = Pauses::default();
    pauses.pause_topic(&route, refusal(), at(start), 1.0);
    let came_back = |pauses: &mut Pauses, at| {
        pauses.set_topic_stage(&route, Stage::Probing);
        pauses.resume_topic(&route, at).unwrap();
    };

    came_back(&mut pauses, start + 10 * second);
    pauses.pause_topic(&route, refusal(), at(start + 19 * second), 1.0);
    let pause = pauses.topics().next().unwrap().1;
    assert_eq!((pause.began(), pause.attempt), (start, 1));

    came_back(&mut pauses, start + 20 * second);
    pauses.pause_topic(&route, refusal(), at(start + 40 * second), 1.0);
    let pause = pauses.topics().next().unwrap().1;
    assert_eq!((pause.began(), pause.attempt), (start + 40 * second, 1));
}

#[test]
fn the_messages_of_one_offer_are_refused_once() {
    let route = Route::new("bad");
    let now = Instant::now();
    let mut pauses = Pauses::default();

    let counted: Vec<bool> = (0..3)
        .map(|_| pauses.pause_topic(&route, refusal(), at(now), 1.0))
        .collect();

    assert_eq!(counted, [true, false, false]);
    assert_eq!(pauses.due(now + Duration::from_millis(100)).len(), 1);
}

#[test]
fn one_message_tries_the_way_before_all_follow() {
    let route = Route::new("bad");
    let mut pauses = Pauses::default();
    pauses.pause_topic(&route, refusal(), at(Instant::now()), 0.0);

    pauses.set_topic_stage(&route, Stage::Probing);
    assert_eq!(pauses.allowance(&route), Allowance::One);

    pauses.session_ended();
    assert_eq!(pauses.allowance(&route), Allowance::None);
    assert!(pauses.resume_topic(&route, Instant::now()).is_none());

    pauses.set_topic_stage(&route, Stage::Probing);
    assert!(pauses.resume_topic(&route, Instant::now()).is_some());
    assert_eq!(pauses.allowance(&route), Allowance::Any);
}

#[test]
fn a_paused_destination_lets_one_message_try_and_is_not_resumed_by_what_came_before() {
    let route = Route::new("any");
    let start = Instant::now();
    let mut pauses = Pauses::default();
    pauses.pause_destination(refusal(), at(start), 1.0);

    assert_eq!(pauses.allowance(&route), Allowance::None);
    assert!(pauses.resume_destination().is_none());
    assert!(!pauses.destination_due(start));

    pauses.set_destination_stage(Stage::Checking);
    pauses.set_destination_checked();
    assert_eq!(pauses.allowance(&route), Allowance::One);
    assert!(pauses.resume_destination().is_some());
    assert_eq!(pauses.allowance(&route), Allowance::Any);
}

#[test]
fn a_pause_of_which_nothing_is_left_ends_unless_it_is_being_asked_about() {
    let (asked, empty, full) = (Route::new("asked"), Route::new("empty"), Route::new("full"));
    let mut pauses = Pauses::default();
    for route in [&asked, &empty, &full] {
        pauses.pause_topic(route, refusal(), at(Instant::now()), 1.0);
    }
    pauses.set_topic_stage(&asked, Stage::Checking);

    let ended = pauses.end_idle(|route| *route == full);

    assert_eq!(ended, [empty]);
    assert!(pauses.is_paused(&asked) && pauses.is_paused(&full));
}

#[test]
fn topics_wait_for_their_destination() {
    let start = Instant::now();
    let mut pauses = Pauses::default();
    pauses.pause_topic(&Route::new("bad"), refusal(), at(start), 0.0);
    assert_eq!(pauses.next_due(), Some(start));

    pauses.pause_destination(refusal(), at(start), 1.0);

    assert_eq!(pauses.next_due(), Some(start + Duration::from_millis(100)));
}

//! Tests of what is in hand, and of when to look for more.

use super::*;

/// Two classes: of type `t`, and of any other, which is slow.
const LIMITS: [usize; 2] = [4, 1];

fn waiting(now: Instant) -> Waiting {
    Waiting::new(LIMITS.to_vec(), 4, now)
}

fn class_of(kind: &str) -> usize {
    usize::from(kind != "t")
}

fn line(n: u128, kind: &str) -> DueLine {
    DueLine::found(Uuid::from_u128(n), kind.to_owned())
}

fn found(lines: impl IntoIterator<Item = u128>, kind: &str, next: Option<u64>) -> Option<Due> {
    Some(Due {
        lines: lines.into_iter().map(|n| line(n, kind)).collect(),
        next: next.map(Duration::from_millis),
    })
}

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Takes what a look has found in hand; gives how many.
fn take(waiting: &mut Waiting, due: Option<Due>, now: Instant) -> usize {
    let taken = waiting.told(due, now, class_of);
    let count = taken.len();
    for (line, class) in taken {
        waiting.arrive(
            u64::try_from(line.line.as_u128()).unwrap(),
            line,
            class,
            None,
        );
    }
    count
}

#[test]
fn a_line_is_worked_on_once_at_a_time() {
    let now = Instant::now();
    let mut waiting = waiting(now);
    assert_eq!(waiting.wants(now), Some(8));
    assert_eq!(waiting.wants(now), None, "a look is on its way");

    take(&mut waiting, found([1, 2], "t", None), now);
    let again = waiting.told(found([1, 2, 3], "t", None), now, class_of);

    assert_eq!(again, [(line(3, "t"), 0)]);
    assert!(waiting.start(1).is_some());
    assert!(waiting.start(1).is_none());
    assert!(waiting.end(1));
    assert!(!waiting.end(1));
    assert_eq!(take(&mut waiting, found([1, 2, 3], "t", None), now), 2);
}

#[test]
fn the_next_look_is_when_something_becomes_due_and_at_least_every_second() {
    let now = Instant::now();
    let mut waiting = waiting(now);

    for (next, at) in [(Some(300), 300), (Some(5_000), 1_000), (None, 1_000)] {
        waiting.wants(now);
        waiting.told(found([], "t", next), now, class_of);

        assert_eq!(waiting.next(), Some(now + millis(at)));
        waiting.look_after(millis(0), now);
    }
}

#[test]
fn what_is_heard_of_during_a_look_is_not_forgotten() {
    let now = Instant::now();
    let mut waiting = waiting(now);
    waiting.wants(now);

    waiting.look_after(millis(50), now);
    waiting.told(found([], "t", None), now, class_of);

    assert_eq!(waiting.next(), Some(now + millis(50)));
}

#[test]
fn nothing_is_looked_for_while_there_is_no_room() {
    let now = Instant::now();
    let mut waiting = waiting(now);
    let room = waiting.wants(now).unwrap() as u128;
    take(&mut waiting, found(0..room, "t", Some(0)), now);

    assert_eq!(waiting.next(), None);
    waiting.end(1);
    assert_eq!(
        waiting.next(),
        Some(now),
        "there were as many as were asked for"
    );
}

#[test]
fn a_slow_class_delays_no_look_for_others() {
    let now = Instant::now();
    let mut waiting = waiting(now);
    let mut next = 0;
    // However many of the slow ones are due.
    for _ in 0..500 {
        let room = waiting.wants(now + millis(next)).unwrap() as u128;
        let due = found(0..room, "slow", Some(0)).map(|mut due| {
            for line in &mut due.lines {
                line.line = Uuid::now_v7();
            }
            due
        });
        for (line, class) in waiting.told(due, now + millis(next), class_of) {
            let number = waiting.lines.len() as u64;
            waiting.arrive(number, line, class, None);
        }
        next = waiting.next().unwrap().duration_since(now).as_millis() as u64;
    }

    assert_eq!(waiting.lines.len(), MOST / 2);
    assert!(waiting.wants(now + millis(next)).is_some());
    assert_eq!(take(&mut waiting, found([70_000], "t", None), now), 1);
}

#[test]
fn after_a_look_in_vain_the_next_one_looks_as_far_as_it_may() {
    let now = Instant::now();
    let mut waiting = waiting(now);
    for n in 0..500 {
        waiting.arrive(n, line(u128::from(n), "slow"), 1, None);
    }
    let room = waiting.wants(now).unwrap();
    assert!(room < MOST);
    let more = (1_000..).take(room);
    assert_eq!(take(&mut waiting, found(more, "slow", Some(0)), now), 0);

    let next = waiting.next().unwrap();
    assert_eq!(waiting.wants(next), Some(MOST));
    let mut due = found(2_000..2_990, "slow", None).unwrap();
    due.lines.push(line(3_000, "t"));
    assert_eq!(take(&mut waiting, Some(due), next), 1);

    let next = waiting.next().unwrap();
    assert!(
        waiting.wants(next).unwrap() < MOST,
        "that one was not in vain"
    );
}

#[test]
fn looks_in_vain_become_as_seldom_as_regular_ones() {
    let now = Instant::now();
    let mut waiting = waiting(now);
    for n in 0..500 {
        waiting.arrive(n, line(u128::from(n), "slow"), 1, None);
    }

    let (mut at, mut pauses) = (now, Vec::new());
    for look in 1..8_u128 {
        let asked = waiting.wants(at).unwrap() as u128;
        let more = look * 10_000..look * 10_000 + asked;
        assert_eq!(take(&mut waiting, found(more, "slow", Some(0)), at), 0);
        let next = waiting.next().unwrap();
        pauses.push((next - at).as_millis());
        at = next;
    }
    assert_eq!(pauses, [100, 200, 400, 800, 1_000, 1_000, 1_000]);

    waiting.wants(at);
    assert_eq!(take(&mut waiting, found([70_000], "t", Some(0)), at), 1);
    waiting.wants(waiting.next().unwrap());
    let asked = 90_000..90_000 + waiting.asked as u128;
    take(&mut waiting, found(asked, "slow", Some(0)), at);
    assert_eq!(waiting.next(), Some(at + LOOK_PAST), "the first one again");
}

#[test]
fn it_is_idle_once_a_look_finds_nothing_and_nothing_is_heard_of() {
    let now = Instant::now();
    let mut waiting = waiting(now);
    assert!(!waiting.is_idle());

    waiting.wants(now);
    waiting.told(found([], "t", Some(60_000)), now, class_of);
    assert!(waiting.is_idle(), "a minute away is not soon");

    waiting.look_after(LOOK_EVERY, now);
    assert!(waiting.is_idle(), "the regular look finds it");
    waiting.look_after(millis(900), now);
    assert!(!waiting.is_idle());

    waiting.wants(now + LOOK_EVERY);
    waiting.look_after(millis(30), now);
    waiting.told(found([], "t", None), now, class_of);
    assert!(!waiting.is_idle(), "30 ms away is soon");

    waiting.wants(now + LOOK_EVERY);
    waiting.told(found([], "t", None), now, class_of);
    assert!(waiting.is_idle());

    waiting.wants(now + LOOK_EVERY);
    waiting.told(found([], "t", Some(900)), now, class_of);
    assert!(!waiting.is_idle(), "it may be one that was taken in vain");

    waiting.wants(now + LOOK_EVERY);
    waiting.told(found([], "t", None), now, class_of);
    waiting.joined();
    assert!(!waiting.is_idle());
}

#[test]
fn what_is_due_and_locked_is_looked_for_again_soon_and_keeps_it_from_being_idle() {
    let now = Instant::now();
    let mut waiting = waiting(now);

    waiting.wants(now);
    waiting.told(found([], "t", Some(0)), now, class_of);

    assert!(!waiting.is_idle());
    assert_eq!(waiting.next(), Some(now + LOCKED));
}

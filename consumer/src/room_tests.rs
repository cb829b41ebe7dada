//! Tests of who comes in beside whom, and of those who do not leave.

use super::*;

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(20);

fn never() -> CancellationToken {
    CancellationToken::new()
}

#[tokio::test]
async fn one_that_is_alone_has_nobody_beside_it() {
    let (room, leave) = (Room::new(), never());
    let beside = room.beside(&leave, LONG).await.unwrap();
    let mut alone = Box::pin(room.alone(&leave, LONG, LONG));
    assert!(futures_util::poll!(&mut alone).is_pending());
    let mut late = Box::pin(room.beside(&leave, LONG));
    assert!(
        futures_util::poll!(&mut late).is_pending(),
        "one waits to be alone"
    );

    drop(beside);
    let alone = alone.await.unwrap();
    assert!(futures_util::poll!(&mut late).is_pending());
    drop(alone);

    assert!(late.await.is_some());
}

#[tokio::test]
async fn one_that_waits_in_vain_to_be_alone_lets_the_others_go_on() {
    let (room, leave) = (Room::new(), never());
    let stuck = room.beside(&leave, LONG).await.unwrap();
    let mut alone = Box::pin(room.alone(&leave, SHORT, LONG));
    assert!(futures_util::poll!(&mut alone).is_pending());

    let beside = room.beside(&leave, LONG).await;

    assert!(beside.is_some());
    assert!(futures_util::poll!(&mut alone).is_pending());
    drop((stuck, beside));
    assert!(alone.await.is_some());
}

#[tokio::test]
async fn one_that_blocks_its_thread_keeps_nobody_from_being_alone_for_good() {
    let (room, leave) = (Room::new(), never());
    let stuck = room.beside(&leave, SHORT).await.unwrap();

    let alone = room.alone(&leave, LONG, LONG).await;

    assert!(alone.is_some());
    drop(stuck);
}

#[tokio::test]
async fn one_that_is_alone_for_too_long_no_longer_keeps_others_out() {
    let (room, leave) = (Room::new(), never());
    let stuck = room.alone(&leave, LONG, SHORT).await.unwrap();

    let beside = room.beside(&leave, LONG).await;
    assert!(beside.is_some());
    drop(beside);
    let next = room.alone(&leave, LONG, LONG).await.unwrap();
    drop(stuck);

    assert!(
        room.inside.borrow().alone.is_some(),
        "the next one still is"
    );
    drop(next);
}

#[tokio::test]
async fn the_next_one_that_waits_to_be_alone_comes_in_before_others() {
    let (room, leave) = (Room::new(), never());
    let first = room.alone(&leave, LONG, LONG).await.unwrap();
    let mut beside = Box::pin(room.beside(&leave, LONG));
    assert!(futures_util::poll!(&mut beside).is_pending());
    let mut second = Box::pin(room.alone(&leave, LONG, LONG));
    assert!(futures_util::poll!(&mut second).is_pending());

    drop(first);
    assert!(futures_util::poll!(&mut beside).is_pending());
    let second = second.await.unwrap();
    assert!(futures_util::poll!(&mut beside).is_pending());
    drop(second);

    assert!(beside.await.is_some());
}

#[tokio::test]
async fn nobody_waits_who_must_leave() {
    let (room, leave) = (Room::new(), never());
    let alone = room.alone(&leave, LONG, LONG).await.unwrap();
    let left = CancellationToken::new();
    left.cancel();

    assert!(room.beside(&left, LONG).await.is_none());
    assert!(room.alone(&left, LONG, LONG).await.is_none());
    drop(alone);
    assert_eq!(room.inside.borrow().waiting, 0);
}

#[tokio::test]
async fn one_that_no_longer_waits_to_be_alone_keeps_nobody_out() {
    let (room, leave) = (Room::new(), never());
    let stuck = room.beside(&leave, LONG).await.unwrap();
    let mut alone = Box::pin(room.alone(&leave, LONG, LONG));
    assert!(futures_util::poll!(&mut alone).is_pending());
    let mut beside = Box::pin(room.beside(&leave, LONG));
    assert!(futures_util::poll!(&mut beside).is_pending());

    drop(alone);

    assert!(beside.await.is_some());
    drop(stuck);
}

#[test]
fn with_many_that_wait_in_vain_others_go_on_half_of_the_time() {
    let start = Instant::now();
    let mut inside = Inside {
        waiting: 5,
        ..Inside::default()
    };
    inside.enter_beside(start, start + LONG * 100);
    let step = LONG / 10;

    let mut entered = 0_u32;
    for n in 0..200 {
        let now = start + step * n;
        for _ in 0..5 {
            assert_eq!(inside.enter_alone(now, LONG, now + LONG), None);
        }
        if let Some(entry) = inside.enter_beside(now, now + LONG) {
            inside.leave(entry, now);
            entered += 1;
        }
    }

    assert!((80..=120).contains(&entered), "{entered} of 200");
}

//! An outage of the consumer's database that lasts: what is held is given back, where somebody else may then have it.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::scripted::{Book, Did, Play, delivery, delivery_of, waits};
use common::{Gate, Order, SOON, Stage, effects_of, pass_the_gate, quick, through_proxy};
use onceward_consumer::{BatchSettings, BatchTx, ConsumerBuilder, HandlerError, HandlerSettings};
use onceward_core::Arrival;
use onceward_testkit::proxy::Proxy;
use onceward_testkit::wait;

/// What the broker gives each delivery; the scripted one extends it by as much.
const DEADLINE: Option<Duration> = Some(Duration::from_millis(300));

/// How often a delivery is extended, at least, in a time that is well beyond that after which an outage lasts.
const LONG: usize = 40;

/// A consumer with one attempt for each message, whose database is behind a proxy.
async fn play_with(
    hold_limit: bool,
    handled: impl FnOnce(ConsumerBuilder, Arc<Gate>) -> ConsumerBuilder,
) -> (Play, Proxy) {
    let stage = Stage::new().await;
    let (proxy, pool) = through_proxy(&stage).await;
    let book = Book::default();
    if hold_limit {
        book.limit_hold();
    }
    let play = Play::on(stage, book, |builder, gate| {
        handled(builder.pool(pool).defaults(quick(1)), gate)
    });
    (play, proxy)
}

async fn play(hold_limit: bool) -> (Play, Proxy) {
    play_with(hold_limit, |builder, gate| {
        builder.on_with("*", gate, waits)
    })
    .await
}

impl Play {
    fn deliver(&self, orders: impl IntoIterator<Item = u64>) {
        let orders = orders.into_iter().map(|order| delivery(order, DEADLINE));
        self.member.say(orders.collect());
    }

    /// Delivers what is started at once, in no batch, and finds no database.
    fn notice_the_outage(&self) {
        let mut other = delivery_of(2, 9, DEADLINE);
        if let Arrival::Delivery(delivery) = &mut other {
            delivery.origin.redelivered = Some(1);
        }
        self.member.say(vec![other]);
    }

    /// Waits until a delivery was extended so often.
    async fn extended(&self, order: u64, times: usize) {
        wait::until_true(SOON, "extensions", || async {
            self.member.book.count(&Did::Extend(order)) >= times
        })
        .await;
    }

    /// As [`Play::end`], when the outage has cost no attempt.
    async fn end_unharmed(self) -> (Vec<i64>, Vec<Did>) {
        assert_eq!(self.stage.letters().await, [], "an outage is no attempt");
        self.end().await
    }
}

fn place(did: &[Did], what: &Did) -> usize {
    did.iter().position(|one| one == what).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_an_outage_that_lasts_what_waits_is_given_back_at_once_and_what_is_in_work_after_it() {
    let (play, mut proxy) = play(true).await;
    play.member.say(vec![delivery_of(2, 9, DEADLINE)]);
    play.gate.has_a_handler().await;
    play.deliver(1..=3);
    play.gate.has_a_handler().await;
    // By now the next ones are asked for.
    play.extended(3, 1).await;

    proxy.cut().await;
    // The first one at the gate notices the outage.
    play.gate.add_permits(1);
    play.member.book.has(Did::GiveBack(3)).await;
    assert_eq!(
        play.member.book.count(&Did::GiveBack(1)),
        0,
        "it is in work"
    );
    // It finds its connection gone.
    play.gate.add_permits(1);
    play.member.book.has(Did::GiveBack(1)).await;
    // What was on its way.
    play.deliver([4]);
    play.member.book.has(Did::GiveBack(4)).await;

    proxy.heal().await;
    play.member.book.has(Did::Rest(false)).await;
    play.gate.add_permits(4);
    play.deliver(1..=4);
    play.member.book.has(Did::Ack(4)).await;

    let (effects, did) = play.end_unharmed().await;
    assert_eq!(effects, [1, 2, 3, 4]);
    assert!(
        place(&did, &Did::Rest(true)) < place(&did, &Did::GiveBack(2)),
        "{did:?}"
    );
    for order in 1..=4 {
        let given_back = place(&did, &Did::GiveBack(order));
        let until_it_came_again = &did[given_back..place(&did, &Did::Rest(false))];
        assert!(
            !until_it_came_again.contains(&Did::Extend(order)),
            "{did:?}"
        );
        let times = did.iter().filter(|one| **one == Did::GiveBack(order));
        assert_eq!(times.count(), 1, "{did:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_pauses_in_the_middle_of_its_work_is_given_back_too() {
    let (play, mut proxy) = play(true).await;
    play.deliver(1..=2);
    play.gate.has_a_handler().await;

    proxy.cut().await;
    play.gate.add_permits(1);
    play.member.book.has(Did::GiveBack(1)).await;
    play.member.book.has(Did::GiveBack(2)).await;
    proxy.heal().await;
    play.member.book.has(Did::Rest(false)).await;

    let (effects, did) = play.end_unharmed().await;
    assert_eq!(effects, [0; 0]);
    // It was held for a while: that outage might have been a short one.
    let held = did[..place(&did, &Did::GiveBack(2))].iter();
    let extended = held.filter(|one| **one == Did::Extend(1)).count();
    assert!(extended >= 5, "{did:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_short_outage_nothing_is_given_back() {
    let (play, mut proxy) = play(true).await;
    play.deliver(1..=2);
    play.gate.has_a_handler().await;

    proxy.cut().await;
    play.gate.add_permits(5);
    let extended = play.member.book.count(&Did::Extend(2));
    play.extended(2, extended + 3).await;
    proxy.heal().await;
    play.member.book.has(Did::Ack(2)).await;

    let (effects, did) = play.end_unharmed().await;
    assert_eq!(effects, [1, 2]);
    let returns = |one: &Did| matches!(one, Did::GiveBack(_) | Did::Rest(_));
    assert!(!did.iter().any(returns), "{did:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_lets_deliveries_be_held_for_ever_is_given_nothing_back() {
    let (play, mut proxy) = play(false).await;
    play.deliver(1..=2);
    play.gate.has_a_handler().await;

    proxy.cut().await;
    play.gate.add_permits(5);
    let extended = play.member.book.count(&Did::Extend(2));
    play.extended(2, extended + LONG).await;
    proxy.heal().await;
    play.member.book.has(Did::Ack(2)).await;

    let (effects, did) = play.end_unharmed().await;
    assert_eq!(effects, [1, 2]);
    let returns = |one: &Did| matches!(one, Did::GiveBack(_) | Did::Rest(_));
    assert!(!did.iter().any(returns), "{did:?}");
}

async fn write_all(
    gate: Arc<Gate>,
    events: Vec<Order>,
    tx: &mut BatchTx,
) -> Result<(), HandlerError> {
    pass_the_gate(&gate, tx).await?;
    effects_of(&events, tx).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_are_given_back_whether_they_wait_for_more_or_pause_in_their_work() {
    for waits_for_more in [true, false] {
        let wait = if waits_for_more {
            Duration::from_secs(60)
        } else {
            Duration::ZERO
        };
        let (play, mut proxy) = play_with(true, |builder, gate| {
            let batch = BatchSettings {
                wait,
                ..BatchSettings::default()
            };
            let settings = HandlerSettings { batch, ..quick(1) };
            builder.on_batch_with("*", gate, write_all).with(settings)
        })
        .await;
        play.deliver(1..=3);
        if waits_for_more {
            play.extended(3, 1).await;
        } else {
            play.gate.has_a_handler().await;
        }

        proxy.cut().await;
        play.gate.add_permits(5);
        play.notice_the_outage();
        play.member.book.has(Did::GiveBack(3)).await;
        proxy.heal().await;
        play.member.book.has(Did::Rest(false)).await;

        let (effects, did) = play.end_unharmed().await;
        assert_eq!(effects, [0; 0], "{did:?}");
        for order in 1..=3 {
            let times = did.iter().filter(|one| **one == Did::GiveBack(order));
            assert_eq!(times.count(), 1, "{did:?}");
        }
    }
}

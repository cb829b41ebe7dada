//! Brokers that go away, and reports that do not come.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use onceward_core::{Order, Outcome, Outgoing, Publisher, Receipts, Route};

use crate::journey::{
    all_but, assert_all_confirmed, assert_prefixes, assert_stores, batch, finish, first_arrivals,
    message,
};
use crate::relay::{Relay, session_in_use, wait_until_clean};
use crate::{Control, Harness, Offer, Sharing, Verdict};

const CHUNK: usize = 100;

fn messages(route: &Route, count: u32) -> Vec<Outgoing> {
    (0..count)
        .map(|n| message(route, Some(&format!("key-{}", n % 20)), n))
        .collect()
}

async fn complete<H: Harness>(
    broker: &H,
    route: &Route,
    messages: &[Outgoing],
    receipts: &[Receipts],
    order: Order,
) {
    let mut relay = Relay::of(messages);
    for (chunk, receipts) in messages.chunks(CHUNK).zip(receipts) {
        relay.note(chunk, receipts);
    }
    relay.finish(broker, Duration::from_secs(10)).await;
    assert_eq!(relay.parked, BTreeSet::new());
    let expected = all_but(messages, &relay.parked);
    assert_stores(order, &broker.stored(route).await, &expected);
}

/// The broker crashes while batches are on their way and comes back: what it has of each key is a prefix of what the session was
/// offered, what was confirmed is there, the session says that it is over, and a new one completes the rest in order.
pub async fn a_broker_that_crashes_within_a_batch_loses_nothing<H: Harness>() -> Verdict {
    let broker = H::start(Sharing::Own).await;
    let route = broker.route(1).await;
    let messages = messages(&route, 3_000);
    let mut session = broker.publisher(Duration::from_secs(5)).await;
    let order = session.capabilities().order;

    let mut pending = Vec::new();
    for (number, chunk) in messages.chunks(CHUNK).enumerate() {
        if number == 10 && broker.control(Control::Stop).await == Offer::NotOffered {
            return Verdict::not_promised("a broker that can be stopped");
        }
        // Where the broker takes no more, the session's end makes room.
        let offer = session.offer(batch(chunk));
        let offered = tokio::time::timeout(Duration::from_secs(30), offer).await;
        pending.push(offered.expect("an offer does not wait for a broker that is gone"));
    }
    let mut receipts = Vec::new();
    for receipt in pending {
        receipts.push(finish(receipt).await);
    }
    let _done = broker.control(Control::Start).await;

    assert!(
        receipts.iter().any(|receipts| !receipts.all_confirmed()),
        "the crash came too late to be seen"
    );
    let over = receipts.iter().any(|r| r.session_over().is_some());
    assert!(over, "no receipts say that the session is over");
    session.close(Duration::from_secs(1)).await;
    let mut probe = broker.publisher(Duration::from_secs(10)).await;
    wait_until_clean(&mut probe, std::slice::from_ref(&route)).await;
    let stored = broker.stored(&route).await;
    assert_prefixes(order, &stored, &messages);
    let ids: BTreeSet<String> = first_arrivals(&stored).into_values().flatten().collect();
    for (chunk, receipts) in messages.chunks(CHUNK).zip(&receipts) {
        for (outgoing, outcome) in chunk.iter().zip(receipts.outcomes()) {
            let there = ids.contains(&outgoing.message.id.to_string());
            assert!(there || !matches!(outcome, Outcome::Confirmed), "lost");
        }
    }
    complete(&broker, &route, &messages, &receipts, order).await;
    Verdict::Held
}

/// Reports that never come: every offer is answered by its deadline, and nothing is said to be confirmed. Later all is completed.
pub async fn a_report_that_never_comes_leaves_its_message_unconfirmed<H: Harness>() -> Verdict {
    let broker = H::start(Sharing::Own).await;
    let route = broker.route(1).await;
    let deadline = Duration::from_secs(2);
    let before = [message(&route, None, 0)];
    let mut session = session_in_use(&broker, deadline, &before).await;
    let order = session.capabilities().order;
    if broker.control(Control::Withhold(true)).await == Offer::NotOffered {
        return Verdict::not_promised("reports that can be held back");
    }
    let messages = messages(&route, 300);

    let begin = Instant::now();
    let mut receipts = Vec::new();
    let mut pending = Vec::new();
    for chunk in messages.chunks(CHUNK) {
        pending.push(session.offer(batch(chunk)).await);
    }
    for receipt in pending {
        receipts.push(finish(receipt).await);
    }

    let took = begin.elapsed();
    assert!(took < deadline + Duration::from_secs(8), "took {took:?}");
    for receipts in &receipts {
        let unknown = |outcome: &Outcome| matches!(outcome, Outcome::Unconfirmed);
        assert!(receipts.outcomes().iter().all(unknown), "{receipts:?}");
    }
    session.close(Duration::from_secs(1)).await;
    let _done = broker.control(Control::Withhold(false)).await;
    let mut offered = before.to_vec();
    offered.extend(messages.iter().cloned());
    assert_prefixes(order, &broker.stored(&route).await, &offered);
    let mut relay = Relay::of(&messages);
    relay.finish(&broker, Duration::from_secs(10)).await;
    let expected = all_but(&offered, &BTreeSet::new());
    assert_stores(order, &broker.stored(&route).await, &expected);
    Verdict::Held
}

/// After `abandon` nothing more of what was offered arrives.
pub async fn nothing_leaves_after_abandon<H: Harness>() -> Verdict {
    let broker = H::start(Sharing::Shared).await;
    let route = broker.route(1).await;
    let messages = messages(&route, 3_000);
    let mut session = broker.publisher(Duration::from_secs(60)).await;
    let order = session.capabilities().order;
    let mut pending = Vec::new();
    for chunk in messages.chunks(CHUNK) {
        pending.push(session.offer(batch(chunk)).await);
    }

    let begin = Instant::now();
    session.abandon().await;

    assert!(begin.elapsed() < Duration::from_secs(30));
    let mut confirmed = 0;
    for (chunk, receipts) in messages.chunks(CHUNK).zip(pending) {
        let receipts = finish(receipts).await;
        let sure = receipts.outcomes().iter();
        confirmed += sure.filter(|o| matches!(o, Outcome::Confirmed)).count();
        assert_eq!(receipts.outcomes().len(), chunk.len());
    }
    let late = [message(&route, Some("late"), 0)];
    let refused = finish(session.offer(batch(&late)).await).await;
    assert!(refused.session_over().is_some(), "{refused:?}");
    drop(session);
    // A second session's message arrives after all that could still arrive of the first.
    let mut second = broker.publisher(Duration::from_secs(10)).await;
    let mark = [message(&route, Some("mark"), 0)];
    assert_all_confirmed(&finish(second.offer(batch(&mark)).await).await);
    let stored = broker.stored(&route).await;
    assert!(stored.len() > confirmed);
    assert!(!first_arrivals(&stored).contains_key("late"));
    let mut offered = messages;
    offered.extend(mark);
    assert_prefixes(order, &stored, &offered);
    Verdict::Held
}

/// A session that is closed with work on its way lets it arrive.
pub async fn a_clean_close_lets_what_is_on_its_way_arrive<H: Harness>() -> Verdict {
    let broker = H::start(Sharing::Shared).await;
    let route = broker.route(1).await;
    let messages = messages(&route, 1_000);
    let mut session = broker.publisher(Duration::from_secs(30)).await;
    let order = session.capabilities().order;
    let mut pending = Vec::new();
    for chunk in messages.chunks(CHUNK) {
        pending.push(session.offer(batch(chunk)).await);
    }

    session.close(Duration::from_secs(30)).await;

    for receipts in pending {
        assert_all_confirmed(&finish(receipts).await);
    }
    let expected = all_but(&messages, &BTreeSet::new());
    assert_stores(order, &broker.stored(&route).await, &expected);
    Verdict::Held
}

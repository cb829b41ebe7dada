//! Partitions that pass from one member to another.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use onceward_core::{Acker, Arrival, Order, Publisher, Subscriber};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::consuming::{DEADLINE, member, publish};
use crate::journey::{
    PATIENCE, assert_all_confirmed, assert_unacked_came, batch, finish, ids_by_key, in_any, message,
};
use crate::reading::{Seen, ack, read, read_and_ack, read_and_ack_until, read_until};
use crate::{Harness, Member, Sharing, Verdict};

/// A second member gets nothing while the first one owns the partition; when the first one vanishes with work in flight, the
/// second gets everything from the oldest unacked message on, in order.
pub async fn a_takeover_begins_at_the_oldest_unacked_message<H: Harness>() -> Verdict {
    let broker = H::start(Sharing::Shared).await;
    let route = broker.route(1).await;
    let mut ids = publish(&broker, &route, 0, 8).await;
    let member = member("takeover", &route);
    let mut first = broker.subscriber(&member).await.expect("opens");
    if first.capabilities().order == Order::None {
        return Verdict::not_promised("order per key");
    }
    let seen = read(&mut first, 8).await;
    let mut second = broker.subscriber(&member).await.expect("opens");
    let acked = [ids[0].clone(), ids[2].clone()];
    ack(&first.acker(), seen.tokens(&acked)).await;
    // The first one lives on for as long as a silent one would be waited for, asked for messages or not. What it has in work
    // and has a deadline it extends, as a consumer does.
    let mut early = Seen::new();
    let acker = first.acker();
    let with_deadline = seen.deliveries.iter().filter(|d| d.deadline.is_some());
    let in_work: Vec<_> = with_deadline.map(|d| d.token.clone()).collect();
    let mut extend = tokio::time::interval(member.hold / 4);
    let owned = tokio::time::timeout(member.hold * 2, async {
        loop {
            tokio::select! {
                arrivals = first.next(10) => { drop(arrivals); }
                arrivals = second.next(10) => {
                    arrivals.expect("reads").into_iter().for_each(|arrival| early.take(arrival));
                }
                _ = extend.tick(), if !in_work.is_empty() => {
                    acker.extend(in_work.clone()).await.expect("extends");
                }
            }
        }
    });
    // It ends by its time only.
    owned.await.unwrap_or(());
    assert_eq!(early.ids(), Vec::<String>::new(), "two owners");

    drop(first);
    ids.extend(publish(&broker, &route, 8, 12).await);
    let last = ids[11].clone();
    let mut seen = Seen::new();
    read_and_ack_until(&mut second, &mut seen, "the last message", |seen| {
        seen.ids().contains(&last)
    })
    .await;

    assert_unacked_came(Order::PerKey, &seen.ids(), &ids, &acked);
    Verdict::Held
}

/// A member that closes cleanly with work in flight gives it to the next one, at once and in order.
pub async fn a_clean_close_with_work_in_flight_gives_it_on<H: Harness>() -> Verdict {
    let broker = H::start(Sharing::Shared).await;
    let route = broker.route(1).await;
    let ids = publish(&broker, &route, 0, 6).await;
    let member = Member {
        hold: Duration::from_secs(20),
        ..member("close", &route)
    };
    let mut first = broker.subscriber(&member).await.expect("opens");
    if first.capabilities().order == Order::None {
        return Verdict::not_promised("order per key, and with it one owner at a time");
    }
    let mut second = broker.subscriber(&member).await.expect("opens");
    let mut seen = Seen::new();
    let (owner_is_first, acked) = {
        let first_seen = tokio::select! {
            seen = read(&mut first, 6) => Some(seen),
            () = read_until(&mut second, &mut seen, "six messages", |seen| seen.ids().len() == 6) => None,
        };
        let acked = vec![ids[0].clone(), ids[1].clone()];
        match first_seen {
            Some(seen) => {
                ack(&first.acker(), seen.tokens(&acked)).await;
                (true, acked)
            }
            None => {
                ack(&second.acker(), seen.tokens(&acked)).await;
                (false, acked)
            }
        }
    };
    let (owner, mut next) = if owner_is_first {
        (first, second)
    } else {
        (second, first)
    };

    owner.close(Duration::from_secs(5)).await;
    let begin = std::time::Instant::now();
    let seen = read_and_ack(&mut next, 4).await;

    let took = begin.elapsed();
    assert!(took < Duration::from_secs(15), "waited {took:?}");
    assert_eq!(seen.ids(), ids[acked.len()..]);
    Verdict::Held
}

/// What the members of a rebalance have settled, as marks in a database would have it.
#[derive(Debug, Default)]
struct Marks {
    settled: BTreeSet<String>,
    /// Ids in the order in which they were first settled, by key.
    order: BTreeMap<String, Vec<String>>,
}

type Shared = Arc<Mutex<Marks>>;

/// Handles whatever comes until told to stop, settling before it acks.
async fn work<S: Subscriber>(
    mut reader: S,
    marks: Shared,
    count: watch::Sender<usize>,
    mut stop: watch::Receiver<bool>,
    crash: bool,
) {
    let acker = reader.acker();
    loop {
        let arrivals = tokio::select! {
            arrivals = reader.next(7) => arrivals,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let Ok(arrivals) = arrivals else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        for arrival in arrivals {
            if let Arrival::Delivery(delivery) = arrival {
                let message = delivery
                    .message
                    .expect("the suite's own messages are readable");
                let key = message.key.map_or_else(String::new, |key| key.to_string());
                let settled = {
                    let mut marks = marks.lock().unwrap_or_else(PoisonError::into_inner);
                    if marks.settled.insert(message.id.to_string()) {
                        let order = marks.order.entry(key).or_default();
                        order.push(message.id.to_string());
                    }
                    marks.settled.len()
                };
                count.send_replace(settled);
                // A lost ack is a delivery that comes again.
                acker.ack(vec![delivery.token]).await.ok();
            }
        }
    }
    if !crash {
        reader.close(Duration::from_secs(5)).await;
    }
}

/// Three members that come and go while messages flow: all is settled, first in order per key.
pub async fn a_rebalance_among_three_members_keeps_order<H: Harness>() -> Verdict {
    let broker = H::start(Sharing::Shared).await;
    let routes = vec![broker.route(3).await, broker.route(3).await];
    let group = Member {
        group: "rebalance".to_owned(),
        routes: routes.clone(),
        hold: Duration::from_secs(4),
    };
    let messages: Vec<_> = (0..900_u32)
        .map(|n| message(&routes[n as usize % 2], Some(&format!("key-{}", n % 30)), n))
        .collect();
    let mut session = broker.publisher(DEADLINE).await;
    let order = session.capabilities().order;
    let marks = Shared::default();
    let (count, mut settled) = watch::channel(0);
    let (stop, _) = watch::channel(false);
    let mut members = JoinSet::new();
    let mut stops = Vec::new();

    for (round, chunk) in messages.chunks(100).enumerate() {
        assert_all_confirmed(&finish(session.offer(batch(chunk)).await).await);
        if matches!(round, 0 | 2 | 4) {
            let reader = broker.subscriber(&group).await.expect("opens");
            let (own, told) = watch::channel(false);
            stops.push(own);
            let crash = round == 2;
            members.spawn(work(reader, marks.clone(), count.clone(), told, crash));
        }
        // One leaves in good order, another one vanishes.
        if matches!(round, 6 | 7) {
            stops[round - 6].send_replace(true);
        }
        let some = round * 100 / 3;
        let progress = settled.wait_for(|count| *count >= some);
        let progressed = tokio::time::timeout(PATIENCE, progress).await;
        assert!(progressed.is_ok(), "stuck in round {round}");
    }
    let all = settled.wait_for(|count| *count == messages.len());
    let done = tokio::time::timeout(PATIENCE * 2, all).await.is_ok();
    drop(stop);
    members.shutdown().await;

    let marks = marks.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(
        done,
        "settled {} of {}",
        marks.settled.len(),
        messages.len()
    );
    let settled = in_any(order, marks.order.clone());
    assert_eq!(settled, in_any(order, ids_by_key(&messages)));
    Verdict::Held
}

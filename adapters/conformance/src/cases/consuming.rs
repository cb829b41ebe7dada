//! What comes again and what does not, to one member at a time.

use std::time::Duration;

use onceward_core::{Publisher, Route, SubscribeErrorKind, Subscriber};

use crate::journey::{
    PATIENCE, assert_all_confirmed, assert_unacked_came, batch, finish, ids_by_key, message,
};
use crate::reading::{
    Seen, ack, assert_nothing_comes, hear_of_a_partition, read, read_and_ack_until,
};
use crate::{Control, Harness, Member, Offer, Sharing, Verdict};

/// Nobody waits for its end: below the time in which an offer must be answered.
pub(crate) const DEADLINE: Duration = Duration::from_secs(35);

pub(crate) fn member(group: &str, route: &Route) -> Member {
    Member {
        group: group.to_owned(),
        routes: vec![route.clone()],
        hold: Duration::from_secs(4),
    }
}

/// One whose deliveries do not run out while a slow machine takes its time to ack them.
fn patient_member(group: &str, route: &Route) -> Member {
    Member {
        hold: Duration::from_secs(30),
        ..member(group, route)
    }
}

/// Publishes messages `from..to` of one key and gives their ids.
pub(crate) async fn publish<H: Harness>(
    broker: &H,
    route: &Route,
    from: u32,
    to: u32,
) -> Vec<String> {
    let mut session = broker.publisher(DEADLINE).await;
    let messages: Vec<_> = (from..to).map(|n| message(route, Some("k"), n)).collect();
    assert_all_confirmed(&finish(session.offer(batch(&messages)).await).await);
    session.close(Duration::from_secs(5)).await;
    ids_by_key(&messages).remove("k").unwrap_or_default()
}

/// What a member took and did not ack comes to the next one, from the oldest unacked delivery on, in order.
pub async fn what_is_not_acked_comes_again<H: Harness>() -> Verdict {
    let broker = H::start(Sharing::Shared).await;
    let route = broker.route(1).await;
    let ids = publish(&broker, &route, 0, 10).await;
    let member = member("again", &route);
    let mut first = broker.subscriber(&member).await.expect("opens");
    let order = first.capabilities().order;
    let seen = read(&mut first, 10).await;
    assert_unacked_came(order, &seen.ids(), &ids, &[]);
    let acked = [ids[0].clone(), ids[1].clone(), ids[3].clone()];
    ack(&first.acker(), seen.tokens(&acked)).await;
    first.close(Duration::from_secs(5)).await;

    let mut second = broker.subscriber(&member).await.expect("opens");
    let mut seen = Seen::new();
    let unacked: Vec<_> = ids.iter().filter(|id| !acked.contains(id)).collect();
    read_and_ack_until(&mut second, &mut seen, "all that is not acked", |seen| {
        let came = seen.ids();
        unacked.iter().all(|id| came.contains(id))
    })
    .await;

    assert_unacked_came(order, &seen.ids(), &ids, &acked);
    Verdict::Held
}

/// A member without room is told what it owns, and gets its messages once there is room.
pub async fn a_member_without_room_hears_what_it_owns<H: Harness>() -> Verdict {
    let broker = H::start(Sharing::Shared).await;
    let route = broker.route(1).await;
    let ids = publish(&broker, &route, 0, 5).await;
    let member = member("no-room", &route);
    let mut reader = broker.subscriber(&member).await.expect("opens");
    let order = reader.capabilities().order;

    let mut seen = Seen::new();
    hear_of_a_partition(&mut reader, &mut seen).await;
    assert_eq!(seen.ids(), Vec::<String>::new());
    assert_nothing_comes(&mut reader, 0, Duration::from_secs(1)).await;

    let seen = read(&mut reader, 5).await;
    assert_unacked_came(order, &seen.ids(), &ids, &[]);
    Verdict::Held
}

/// What is acked before a clean close does not come again.
pub async fn what_is_acked_does_not_come_again<H: Harness>() -> Verdict {
    let broker = H::start(Sharing::Shared).await;
    let route = broker.route(1).await;
    let ids = publish(&broker, &route, 0, 10).await;
    let member = patient_member("acked", &route);
    let mut first = broker.subscriber(&member).await.expect("opens");
    let seen = read(&mut first, 10).await;
    ack(&first.acker(), seen.tokens(&ids)).await;
    first.close(Duration::from_secs(5)).await;

    let more = publish(&broker, &route, 10, 12).await;
    let mut second = broker.subscriber(&member).await.expect("opens");
    let order = second.capabilities().order;
    let seen = read(&mut second, 2).await;

    assert_unacked_came(order, &seen.ids(), &more, &[]);
    Verdict::Held
}

/// Tokens of a connection that broke meanwhile: whether their ack still counts or not, nothing is lost, and what came again
/// can be acked.
pub async fn an_ack_after_a_reconnect_loses_nothing<H: Harness>() -> Verdict {
    let broker = H::start(Sharing::Own).await;
    let route = broker.route(1).await;
    let ids = publish(&broker, &route, 0, 10).await;
    let member = member("reconnect", &route);
    let mut reader = broker.subscriber(&member).await.expect("opens");
    let before = read(&mut reader, 10).await;
    if broker.control(Control::Stop).await == Offer::NotOffered {
        return Verdict::not_promised("a broker that can be stopped");
    }
    let _done = broker.control(Control::Start).await;

    let acker = reader.acker();
    // Whether it counts is the broker's to say; then those messages come no more.
    let _may_fail = acker_of(&acker, before.tokens(&ids[..5])).await;
    let more = publish(&broker, &route, 10, 12).await;
    // A member that still owns its partition and may hold deliveries for ever has them in its hands: they come to nobody again.
    let for_ever = before.deliveries.iter().all(|d| d.deadline.is_none());
    let order = reader.capabilities().order;
    let mut seen = Seen::new();
    read_and_ack_until(&mut reader, &mut seen, "what is not acked", |seen| {
        let came = seen.ids();
        let still_held = for_ever && seen.assigned.is_empty();
        let unacked = ids[5..].iter().filter(|_| !still_held);
        unacked.chain(&more).all(|id| came.contains(id))
    })
    .await;

    let came = seen.ids();
    let mut all = ids.clone();
    all.extend(more);
    let settled = if for_ever && seen.assigned.is_empty() {
        &ids[..]
    } else {
        &ids[..5]
    };
    assert_unacked_came(order, &came, &all, settled);
    ack(&acker, seen.tokens(&came)).await;
    ack(&acker, before.tokens(&ids)).await;
    reader.close(Duration::from_secs(5)).await;
    what_comes_again_can_be_acked(&broker, &member, &route, all).await;
    Verdict::Held
}

/// A member to which the trouble of the one before it may still bring messages again, and one to which it may not.
async fn what_comes_again_can_be_acked<H: Harness>(
    broker: &H,
    member: &Member,
    route: &Route,
    mut all: Vec<String>,
) {
    let fresh = publish(broker, route, 12, 13).await;
    let settled = all.clone();
    all.extend_from_slice(&fresh);
    let mut calm = broker.subscriber(member).await.expect("opens");
    let order = calm.capabilities().order;
    let mut seen = Seen::new();
    read_and_ack_until(&mut calm, &mut seen, "the fresh message", |seen| {
        seen.ids().contains(&fresh[0])
    })
    .await;
    assert_unacked_came(order, &seen.ids(), &all, &settled);
    calm.close(Duration::from_secs(5)).await;

    let last = publish(broker, route, 13, 14).await;
    let mut next = broker.subscriber(member).await.expect("opens");
    assert_eq!(read(&mut next, 1).await.ids(), last);
}

async fn acker_of<A: onceward_core::Acker>(acker: &A, tokens: Vec<A::Token>) -> bool {
    acker.ack(tokens).await.is_ok()
}

/// A paused partition delivers nothing more beyond what was taken, and goes on where it stopped.
pub async fn a_paused_partition_goes_on_where_it_stopped<H: Harness>() -> Verdict {
    let broker = H::start(Sharing::Shared).await;
    let route = broker.route(1).await;
    let mut ids = publish(&broker, &route, 0, 5).await;
    let member = member("pause", &route);
    let mut reader = broker.subscriber(&member).await.expect("opens");
    let order = reader.capabilities().order;
    let mut seen = read(&mut reader, 5).await;
    let partition = seen.deliveries[0].origin.partition.clone();

    reader.pause(&partition, true);
    ids.extend(publish(&broker, &route, 5, 10).await);
    assert_nothing_comes(&mut reader, 50, member.hold * 2).await;
    reader.pause(&partition, false);

    read_and_ack_until(&mut reader, &mut seen, "ten messages", |seen| {
        seen.ids().len() == 10
    })
    .await;
    assert_unacked_came(order, &seen.ids(), &ids, &[]);
    Verdict::Held
}

/// The backlog counts what is not acked, and is empty once all is.
pub async fn the_backlog_counts_what_is_not_acked<H: Harness>() -> Verdict {
    let broker = H::start(Sharing::Shared).await;
    let route = broker.route(1).await;
    let ids = publish(&broker, &route, 0, 10).await;
    let member = patient_member("backlog", &route);
    let mut reader = broker.subscriber(&member).await.expect("opens");
    let seen = read(&mut reader, 10).await;

    wait_for_backlog(&mut reader, 10, true).await;
    ack(&reader.acker(), seen.tokens(&ids[..4])).await;
    wait_for_backlog(&mut reader, 6, true).await;
    ack(&reader.acker(), seen.tokens(&ids[4..])).await;

    wait_for_backlog(&mut reader, 0, false).await;
    Verdict::Held
}

async fn wait_for_backlog<S: Subscriber>(reader: &mut S, count: u64, has_oldest: bool) {
    let mut last = None;
    let waiting = async {
        loop {
            let backlog = reader.backlog().await.expect("the broker tells");
            let sum: u64 = backlog.iter().map(|partition| partition.count).sum();
            let oldest = backlog.iter().any(|partition| partition.oldest.is_some());
            last = Some(backlog);
            // Some brokers do not tell when the oldest was sent; none tells of one that is not there.
            if sum == count && (has_oldest || !oldest) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(waited.is_ok(), "waited for {count}; last: {last:?}");
}

/// Messages that retention removed before they were delivered are told of, and what is left is delivered.
pub async fn a_jump_by_retention_is_told<H: Harness>() -> Verdict {
    let broker = H::start(Sharing::Own).await;
    let route = broker.route(1).await;
    let ids = publish(&broker, &route, 0, 5).await;
    let member = member("retention", &route);
    let mut first = broker.subscriber(&member).await.expect("opens");
    if !first.capabilities().positions {
        return Verdict::not_promised("positions");
    }
    let seen = read(&mut first, 5).await;
    ack(&first.acker(), seen.tokens(&ids)).await;
    first.close(Duration::from_secs(5)).await;
    let more = publish(&broker, &route, 5, 25).await;
    let forget = Control::Forget {
        route: &route,
        keep: 5,
    };
    if broker.control(forget).await == Offer::NotOffered {
        return Verdict::not_promised("retention that a test can bring about");
    }

    let mut second = broker.subscriber(&member).await.expect("opens");
    let seen = read(&mut second, 5).await;

    assert_eq!(seen.ids(), more[15..]);
    assert_eq!(seen.jumps.len(), 1, "{:?}", seen.jumps);
    let first = seen.deliveries[0].origin.position;
    assert_eq!(Some(seen.jumps[0].1), first);
    assert_eq!(seen.jumps[0].1 - seen.jumps[0].0, 15);
    Verdict::Held
}

/// A group that is set up to lose messages or order is refused, with what to change.
pub async fn a_dangerous_setup_is_refused<H: Harness>() -> Verdict {
    let broker = H::start(Sharing::Shared).await;
    let route = broker.route(1).await;
    let member = member("dangerous", &route);
    if broker.control(Control::Misconfigure(&member)).await == Offer::NotOffered {
        return Verdict::not_promised("a group that can be set up wrongly");
    }

    let error = match broker.subscriber(&member).await {
        Err(error) => error,
        Ok(mut reader) => {
            let next = tokio::time::timeout(PATIENCE, reader.next(1)).await;
            let next = next.expect("a refusal does not take long");
            next.err().expect("a dangerous setup is refused")
        }
    };

    assert_eq!(error.kind, SubscribeErrorKind::Misconfigured, "{error:?}");
    Verdict::Held
}

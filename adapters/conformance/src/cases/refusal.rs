//! Messages and moments that the broker refuses.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use onceward_core::{ErrorKind, Fault, Order, Outcome, Outgoing, Publisher, Receipts, Route};

use crate::journey::{
    all_but, assert_all_confirmed, assert_prefixes, assert_stores, batch, finish, message, noise,
    with_payload,
};
use crate::relay::{Relay, session_in_use};
use crate::{Control, Harness, Offer, Sharing, Verdict};

const DEADLINE: Duration = Duration::from_secs(15);
const CHUNK: usize = 30;
const LIMIT: u32 = 20_000;
const TOO_LARGE: usize = 50_000;

/// Twelve messages of one key, of which the sixth is too large, and some of others.
fn with_one_too_large(route: &Route) -> (Vec<Outgoing>, String) {
    let mut messages: Vec<_> = (0..12_u32)
        .map(|n| match n {
            5 => with_payload(route, Some("victim"), noise(TOO_LARGE)),
            _ => message(route, Some("victim"), n),
        })
        .collect();
    let guilty = messages[5].message.id.to_string();
    messages.extend((0..6).map(|n| message(route, Some("bystander"), n)));
    (messages, guilty)
}

/// Nobody but the guilty one is blamed for itself.
fn assert_blames_only(receipts: &Receipts, offered: &[Outgoing], guilty: &str) {
    for (outgoing, outcome) in offered.iter().zip(receipts.outcomes()) {
        if let Outcome::Failed(error) = outcome
            && error.kind.fault() == Fault::Message
        {
            assert_eq!(outgoing.message.id.to_string(), guilty, "{error:?}");
        }
    }
}

/// What follows the refusal of a batch for one of its messages: nobody else is blamed, what went out first is there, and a relay that
/// searches finds the guilty one and loses nothing else. `before` was confirmed, and `refused` offered behind it, with these receipts.
pub(super) async fn assert_harms_nobody<H: Harness>(
    broker: &H,
    session: H::Publisher,
    route: &Route,
    before: &[Outgoing],
    (refused, receipts): (&[Outgoing], &Receipts),
    guilty: String,
) {
    let order = session.capabilities().order;
    assert_blames_only(receipts, refused, &guilty);
    let offered = [before, refused].concat();
    assert_prefixes(order, &broker.stored(route).await, &offered);
    session.close(Duration::from_secs(1)).await;

    let mut relay = Relay::of(refused);
    relay.note(refused, receipts);
    relay.finish(broker, DEADLINE).await;

    assert_eq!(relay.parked, BTreeSet::from([guilty]));
    let expected = all_but(&offered, &relay.parked);
    assert_stores(order, &broker.stored(route).await, &expected);
}

/// A message that is refused for itself, alone in its request, is named; what was offered before it is unharmed.
pub async fn a_refused_message_alone_in_its_request_is_named<H: Harness>() -> Verdict {
    let broker = H::start(Sharing::Own).await;
    let route = broker.route(1).await;
    let mut session = broker.publisher(DEADLINE).await;
    let order = session.capabilities().order;
    let before = [message(&route, Some("a"), 1)];
    assert_all_confirmed(&finish(session.offer(batch(&before)).await).await);
    let limit = Control::Limit {
        route: &route,
        bytes: LIMIT,
    };
    if broker.control(limit).await == Offer::NotOffered {
        return Verdict::not_promised("a limit on the size of messages");
    }

    let guilty = [with_payload(&route, Some("a"), noise(TOO_LARGE))];
    let receipts = finish(session.offer(batch(&guilty)).await).await;

    let [Outcome::Failed(error)] = receipts.outcomes() else {
        panic!("the message is not named: {receipts:?}");
    };
    assert_eq!(error.kind, ErrorKind::TooLarge, "{error:?}");
    assert_prefixes(order, &broker.stored(&route).await, &before);
    Verdict::Held
}

/// A message refused for itself in the middle of a batch: nothing of its key passes it in that session, nobody else is
/// blamed, and a relay that searches finds it and loses nothing else.
pub async fn a_permanent_refusal_in_the_middle_harms_no_other_message<H: Harness>() -> Verdict {
    let broker = H::start(Sharing::Own).await;
    let route = broker.route(1).await;
    let mut session = broker.publisher(DEADLINE).await;
    // The session has spoken with the broker before the limit is set behind its back.
    let first = [message(&route, Some("first"), 0)];
    assert_all_confirmed(&finish(session.offer(batch(&first)).await).await);
    let limit = Control::Limit {
        route: &route,
        bytes: LIMIT,
    };
    if broker.control(limit).await == Offer::NotOffered {
        return Verdict::not_promised("a limit on the size of messages");
    }
    let (messages, guilty) = with_one_too_large(&route);

    let receipts = finish(session.offer(batch(&messages)).await).await;

    let refused = (&messages[..], &receipts);
    assert_harms_nobody(&broker, session, &route, &first, refused, guilty).await;
    Verdict::Held
}

/// After any outcome but confirmed, nothing more of that key is stored by the session, however often it is offered.
pub async fn a_session_sends_nothing_more_of_a_key_that_was_refused<H: Harness>() -> Verdict {
    let broker = H::start(Sharing::Own).await;
    let route = broker.route(1).await;
    let limit = Control::Limit {
        route: &route,
        bytes: LIMIT,
    };
    if broker.control(limit).await == Offer::NotOffered {
        return Verdict::not_promised("a limit on the size of messages");
    }
    let mut session = broker.publisher(DEADLINE).await;
    if session.capabilities().order == Order::None {
        return Verdict::not_promised("order per key");
    }
    let guilty = [with_payload(&route, Some("a"), noise(TOO_LARGE))];
    let refused = finish(session.offer(batch(&guilty)).await).await;
    assert!(!refused.all_confirmed(), "{refused:?}");

    let follower = [message(&route, Some("a"), 1)];
    let receipts = finish(session.offer(batch(&follower)).await).await;

    assert!(matches!(receipts.outcomes(), [Outcome::Unconfirmed]));
    assert_eq!(broker.stored(&route).await, []);
    Verdict::Held
}

/// A route that is full for moments, again and again, and then until a batch is refused, while batches are offered: no session leaves
/// a gap, no message is blamed, and in the end all are stored in order.
pub async fn a_transient_refusal_in_the_middle_leaves_no_gap<H: Harness>() -> Verdict {
    let broker = H::start(Sharing::Own).await;
    let route = broker.route(1).await;
    if broker.control(full(&route, false)).await == Offer::NotOffered {
        return Verdict::not_promised("a route that is full for a moment");
    }
    let before = [message(&route, None, 0)];
    // A broker's client may itself wait out what is full, until the deadline.
    let mut session = session_in_use(&broker, Duration::from_secs(5), &before).await;
    let order = session.capabilities().order;
    let mut line = Line::of(&route);

    assert_all_confirmed(line.offer(&mut session).await);
    offer_while_full_at_moments(&broker, &mut line, &mut session).await;
    let _done = broker.control(full(&route, true)).await;
    let mut tries = 0;
    while line.offer(&mut session).await.all_confirmed() {
        tries += 1;
        assert!(tries < 300, "a route that is full refused nothing");
    }
    let _done = broker.control(full(&route, false)).await;
    for _ in 0..5 {
        line.offer(&mut session).await;
    }

    let offered = [&before[..], &line.offered[..]].concat();
    assert_prefixes(order, &broker.stored(&route).await, &offered);
    let mut relay = Relay::of(&line.offered);
    for (chunk, receipts) in line.offered.chunks(CHUNK).zip(&line.receipts) {
        relay.note(chunk, receipts);
    }
    relay.finish(&broker, DEADLINE).await;
    assert_eq!(relay.parked, BTreeSet::new());
    let expected = all_but(&offered, &relay.parked);
    assert_stores(order, &broker.stored(&route).await, &expected);
    Verdict::Held
}

fn full(route: &Route, full: bool) -> Control<'_> {
    Control::Full { route, full }
}

/// Batches of some keys, each offered when the one before is answered.
struct Line<'r> {
    route: &'r Route,
    offered: Vec<Outgoing>,
    receipts: Vec<Receipts>,
}

impl<'r> Line<'r> {
    fn of(route: &'r Route) -> Self {
        Self {
            route,
            offered: Vec::new(),
            receipts: Vec::new(),
        }
    }

    async fn offer<P: Publisher>(&mut self, session: &mut P) -> &Receipts {
        let first = self.receipts.len() * CHUNK;
        let next = (first..first + CHUNK).filter_map(|n| u32::try_from(n).ok());
        let next: Vec<_> = next
            .map(|n| message(self.route, Some(&format!("key-{}", n % 7)), n))
            .collect();
        let receipts = finish(session.offer(batch(&next)).await).await;
        self.offered.extend(next);
        self.receipts.push(receipts);
        self.receipts.last().expect("it was pushed")
    }
}

/// Ten batches while the route is full for moments. Whether those hit a batch depends on chance.
async fn offer_while_full_at_moments<H: Harness>(
    broker: &H,
    line: &mut Line<'_>,
    session: &mut H::Publisher,
) {
    let route = line.route;
    let offered = AtomicBool::new(false);
    let offering = async {
        for _ in 0..10 {
            line.offer(session).await;
        }
        offered.store(true, Ordering::Relaxed);
    };
    // To its end: a change that is under way when it is dropped could come after those that follow.
    let flapping = async {
        while !offered.load(Ordering::Relaxed) {
            let _done = broker.control(full(route, true)).await;
            tokio::task::yield_now().await;
            let _done = broker.control(full(route, false)).await;
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    };
    tokio::join!(offering, flapping);
}

/// A route that nobody made is named by `check`, and an offer to it is neither confirmed nor blamed on the message.
pub async fn an_unknown_route_is_named<H: Harness>() -> Verdict {
    let broker = H::start(Sharing::Shared).await;
    let known = broker.route(1).await;
    let unknown = Route::new(&format!("{known}-nobody-made-this"));
    let mut session = broker.publisher(Duration::from_secs(5)).await;

    let reports = session.check(&[known.clone(), unknown.clone()]).await;

    assert!(reports[0].state.is_ok(), "{reports:?}");
    let kind = reports[1].state.as_ref().map_err(|error| error.kind);
    assert_eq!(kind.err(), Some(ErrorKind::UnknownTopic), "{reports:?}");
    let lost = [message(&unknown, Some("a"), 1)];
    let receipts = finish(session.offer(batch(&lost)).await).await;
    match receipts.outcomes() {
        [Outcome::Failed(error) | Outcome::Suspect(error)] => {
            assert_eq!(error.kind, ErrorKind::UnknownTopic, "{error:?}");
        }
        [Outcome::Unconfirmed] => {}
        outcomes => panic!("{outcomes:?}"),
    }
    Verdict::Held
}

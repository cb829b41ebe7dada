//! A message that the broker refuses, in a batch that goes out in several requests.

use std::time::Duration;

use onceward_core::{Fault, InFlightPerKey, Order, Outcome, Outgoing, Publisher, Receipts, Route};

use super::refusal::assert_harms_nobody;
use crate::journey::{assert_all_confirmed, batch, finish, message, noise, with_payload};
use crate::{Control, Harness, Offer, Sharing, Verdict};

const DEADLINE: Duration = Duration::from_secs(15);

/// What the route takes when the session begins: a request for it is no larger.
const AT_FIRST: u32 = 100_000;
/// What it takes afterwards: three of the others together, and not the guilty one.
const LATER: u32 = 85_000;
const GUILTY: usize = 95_000;
const OTHER: usize = 25_000;

/// Where the guilty one stands among the messages of its key.
const PLACE: usize = 12;
/// How many messages its key has. More than a call of ten holds, and six times the bytes of a request.
const VICTIMS: usize = 24;

/// The messages of one key with the guilty one in the middle, and between them some of two other keys.
fn with_one_too_large(route: &Route) -> Vec<Outgoing> {
    let victims = (0..VICTIMS).map(|place| match place {
        PLACE => with_payload(route, Some("victim"), noise(GUILTY)),
        _ => with_payload(route, Some("victim"), noise(OTHER)),
    });
    let bystanders = (0..).map(|n| {
        let key = if n % 2 == 0 { "bystander" } else { "passer-by" };
        message(route, Some(key), n)
    });
    victims
        .zip(bystanders)
        .flat_map(|(victim, bystander)| [victim, bystander])
        .collect()
}

fn is_of_the_victim(outgoing: &Outgoing) -> bool {
    let key = outgoing.message.key.as_ref();
    key.is_some_and(|key| key.as_str() == "victim")
}

/// Of the key with the guilty message: what came before it is confirmed, it is refused for itself, and nothing passes it where the
/// broker keeps order. `alone`: it is named, whoever is in its request.
fn assert_refused_in_place(order: Order, alone: bool, offered: &[Outgoing], receipts: &Receipts) {
    let outcomes = offered.iter().zip(receipts.outcomes());
    let outcomes: Vec<&Outcome> = outcomes
        .filter(|(outgoing, _)| is_of_the_victim(outgoing))
        .map(|(_, outcome)| outcome)
        .collect();
    let is_confirmed = |outcome: &&Outcome| matches!(outcome, Outcome::Confirmed);
    match outcomes[PLACE] {
        Outcome::Failed(error) => assert_eq!(error.kind.fault(), Fault::Message, "{error:?}"),
        Outcome::Suspect(error) => {
            assert_eq!(error.kind.fault(), Fault::Message, "{error:?}");
            assert!(!alone, "the guilty message is not named: {receipts:?}");
        }
        Outcome::Confirmed | Outcome::Unconfirmed => panic!("it is not refused: {receipts:?}"),
    }
    match order {
        Order::PerKey => {
            assert!(outcomes[..PLACE].iter().all(is_confirmed), "{receipts:?}");
            assert!(
                !outcomes[PLACE..].iter().any(is_confirmed),
                "one passed the refused one: {receipts:?}"
            );
        }
        // Each is judged by itself.
        Order::None => {
            let confirmed = outcomes.iter().copied().filter(|one| is_confirmed(one));
            assert_eq!(confirmed.count(), VICTIMS - 1, "{receipts:?}");
        }
    }
}

/// A message refused for itself in a batch that no one request holds: what went out before it stays confirmed, nothing of its key
/// passes it in that session, nobody else is blamed, and a relay finds it and loses nothing else.
pub async fn a_permanent_refusal_in_one_of_several_requests_harms_no_other_message<H: Harness>()
-> Verdict {
    let broker = H::start(Sharing::Own).await;
    let route = broker.route(1).await;
    let limit = |bytes| Control::Limit {
        route: &route,
        bytes,
    };
    if broker.control(limit(AT_FIRST)).await == Offer::NotOffered {
        return Verdict::not_promised("a limit on the size of messages");
    }
    let mut session = broker.publisher(DEADLINE).await;
    let capabilities = session.capabilities();
    let alone = match capabilities.in_flight_per_key {
        // A small one of another key may be in its request.
        InFlightPerKey::Any => false,
        InFlightPerKey::One => true,
    };
    let first = [message(&route, Some("first"), 0)];
    assert_all_confirmed(&finish(session.offer(batch(&first)).await).await);
    let _done = broker.control(limit(LATER)).await;
    let messages = with_one_too_large(&route);
    let guilty = messages[2 * PLACE].message.id.to_string();

    let receipts = finish(session.offer(batch(&messages)).await).await;

    assert_refused_in_place(capabilities.order, alone, &messages, &receipts);
    let refused = (&messages[..], &receipts);
    assert_harms_nobody(&broker, session, &route, &first, refused, guilty).await;
    Verdict::Held
}

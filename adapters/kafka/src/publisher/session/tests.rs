use onceward_core::{MAX_PAYLOAD, Message, Outgoing};
use proptest::prelude::*;

use super::*;

const TIMES: Duration = Duration::from_secs(30);

fn batch(routes: &[&str]) -> Arc<Batch> {
    let messages = routes.iter().map(|route| Outgoing {
        route: Route::new(route),
        message: Message::bytes(route, "x")
            .finish(MAX_PAYLOAD)
            .unwrap()
            .message,
        replay: None,
    });
    Arc::new(Batch {
        messages: messages.collect(),
    })
}

fn offered(session: &mut Session, routes: &[&str]) -> (usize, oneshot::Receiver<Receipts>) {
    let (done, receipts) = oneshot::channel();
    let first = session.take(batch(routes), Instant::now() + TIMES, done);
    (first, receipts)
}

fn kinds(receipts: &Receipts) -> String {
    let letters = receipts.outcomes().iter().map(|outcome| match outcome {
        Outcome::Confirmed => 'c',
        Outcome::Failed(_) => 'f',
        Outcome::Suspect(_) => 's',
        Outcome::Unconfirmed => 'u',
    });
    letters.collect()
}

#[test]
fn an_offer_is_answered_once_all_its_messages_are_reported() {
    let mut session = Session::new();
    let (_, mut one) = offered(&mut session, &["a", "a"]);
    let (_, mut two) = offered(&mut session, &["a"]);

    assert!(session.confirm(2));
    assert!(!session.confirm(0));
    assert!(one.try_recv().is_err());
    assert!(session.confirm(1));

    assert!(one.try_recv().unwrap().all_confirmed());
    let two = two.try_recv().unwrap();
    assert!(two.all_confirmed() && two.session_over().is_none());
}

#[test]
fn a_request_refused_in_company_makes_suspects_and_the_rest_is_unconfirmed() {
    let mut session = Session::new();
    let (_, mut receipts) = offered(&mut session, &["a"; 5]);

    session.confirm(0);
    session.refuse(1, 0, Code::MessageSizeTooLarge);
    session.refuse(2, 0, Code::MessageSizeTooLarge);
    session.refuse(3, 0, Code::PurgeQueue);
    assert!(!session.goes_on(Instant::now()));
    session.settle();

    let receipts = receipts.try_recv().unwrap();
    assert_eq!(kinds(&receipts), "cssuu");
    assert_eq!(receipts.session_over().unwrap().kind, ErrorKind::TooLarge);
}

#[test]
fn a_message_that_is_alone_in_its_topic_is_named() {
    let mut session = Session::new();
    let (_, mut receipts) = offered(&mut session, &["a", "b"]);

    session.refuse(0, 0, Code::MessageSizeTooLarge);
    session.refuse(1, 0, Code::PurgeInflight);
    session.settle();

    assert_eq!(kinds(&receipts.try_recv().unwrap()), "fu");
}

#[test]
fn a_message_refused_after_its_neighbours_is_not_alone() {
    let mut session = Session::new();
    let (_, mut receipts) = offered(&mut session, &["a", "a"]);

    session.refuse(0, 0, Code::MessageSizeTooLarge);
    session.refuse(1, 0, Code::MessageSizeTooLarge);
    session.settle();

    assert_eq!(kinds(&receipts.try_recv().unwrap()), "ss");
}

#[test]
fn a_message_that_is_not_sent_lets_those_before_it_be_confirmed_and_stops_those_behind() {
    let mut session = Session::new();
    let (_, mut receipts) = offered(&mut session, &["a"; 4]);
    let why = Reason::new(ErrorKind::TooLarge, "too large");

    session.cut(2, Outcome::Failed(why.error()), why);
    assert!(session.goes_on(Instant::now()));
    session.confirm(0);
    session.confirm(1);

    assert!(!session.goes_on(Instant::now()));
    let receipts = receipts.try_recv().unwrap();
    assert_eq!(kinds(&receipts), "ccfu");
    assert_eq!(receipts.session_over().unwrap().kind, ErrorKind::TooLarge);
}

#[test]
fn a_session_is_idle_only_while_it_takes_offers_and_has_none() {
    let mut session = Session::new();
    assert!(session.is_idle());

    let (_, _receipts) = offered(&mut session, &["a"]);
    assert!(!session.is_idle());
    session.confirm(0);
    assert!(session.is_idle());

    session.drain(Reason::new(ErrorKind::Unavailable, "closed"));
    assert!(!session.is_idle());
}

#[test]
fn a_session_whose_client_has_failed_is_not_idle_until_it_ends() {
    let mut session = Session::new();
    let mut trouble = Reason::new(ErrorKind::Unavailable, "fatal");
    trouble.code = Some(Code::Fatal);

    session.note(trouble, Instant::now());

    assert!(!session.is_idle());
}

#[test]
fn a_lost_deadline_ends_the_session_and_tells_what_the_client_complained_of() {
    let mut session = Session::new();
    let (_, mut receipts) = offered(&mut session, &["a"]);
    let mut trouble = Reason::new(ErrorKind::Unauthorized, "wrong password");
    trouble.code = Some(Code::Authentication);

    session.note(trouble, Instant::now());
    assert!(session.goes_on(Instant::now()));
    assert!(!session.goes_on(Instant::now() + TIMES));
    session.settle();

    let receipts = receipts.try_recv().unwrap();
    assert_eq!(kinds(&receipts), "u");
    let over = receipts.session_over().unwrap();
    assert_eq!(over.kind, ErrorKind::Unauthorized);
}

#[test]
fn a_client_that_failed_for_good_ends_the_session_after_its_last_reports() {
    let mut session = Session::new();
    let mut trouble = Reason::new(ErrorKind::Unavailable, "fatal");
    trouble.code = Some(Code::Fatal);

    session.note(trouble, Instant::now());

    assert!(session.goes_on(Instant::now()));
    assert!(!session.goes_on(Instant::now() + LAST_REPORTS));
}

proptest! {
    #[test]
    fn every_offer_is_answered_once_and_nothing_is_confirmed_that_was_not_reported(
        sizes in proptest::collection::vec(1..5_usize, 1..6),
        reports in proptest::collection::vec((0..25_usize, 0..4_u8), 0..40),
    ) {
        let mut session = Session::new();
        let mut receivers: Vec<_> = sizes
            .iter()
            .map(|size| offered(&mut session, &vec!["a"; *size]))
            .collect();
        let messages: usize = sizes.iter().sum();
        let mut reported = vec![None; messages];

        for (number, report) in reports {
            // A message has one report; what is not known is ignored.
            if reported.get(number).is_some_and(Option::is_none) {
                reported[number] = Some(report);
                match report {
                    0..=2 => {
                        session.confirm(number);
                    }
                    _ => session.refuse(number, 0, Code::MessageSizeTooLarge),
                }
            } else if number >= messages {
                session.confirm(number);
            }
        }
        session.settle();

        for (first, receiver) in &mut receivers {
            let receipts = receiver.try_recv().unwrap();
            for (index, outcome) in receipts.outcomes().iter().enumerate() {
                let confirmed = matches!(reported[*first + index], Some(0..=2));
                prop_assert_eq!(matches!(outcome, Outcome::Confirmed), confirmed);
            }
        }
    }
}

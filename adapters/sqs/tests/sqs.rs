//! What is particular to SQS, on a real server behind a gate that refuses and loses what a test says.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use onceward_core::{
    Acker as _, Arrival, Batch, Delivery, ErrorKind, MAX_PAYLOAD, Message, Order, Outcome,
    Outgoing, Publisher as _, Receipts, Route, SubscribeErrorKind, Subscriber as _,
};
use onceward_sqs::{Sqs, SqsConfig, SqsPublisher, SqsSubscriber, SqsToken, SubscriberConfig};
use onceward_testkit::sqs::{Act, Gate, Sqs as Server};
use onceward_testkit::{unique, wait};

const PATIENCE: Duration = Duration::from_secs(30);

struct Stage {
    server: &'static Server,
    gate: Gate,
    queue: String,
}

impl Stage {
    /// A FIFO queue that nobody else uses.
    async fn fifo() -> Self {
        let stage = Self::without_queue().await;
        stage.server.create_queue(&stage.queue, &[]).await;
        stage
    }

    async fn without_queue() -> Self {
        let server = Server::shared().await;
        Self {
            server,
            gate: Gate::to(server.port()).await,
            queue: format!("{}.fifo", unique("own")),
        }
    }

    fn sqs(&self) -> Sqs {
        Sqs::new(SqsConfig::emulator(self.gate.url()))
    }

    async fn session(&self) -> SqsPublisher {
        self.sqs().publisher().await.unwrap()
    }

    async fn member(&self, visibility: Duration) -> SqsSubscriber {
        let mut config = SubscriberConfig::new([&self.queue]);
        config.visibility = visibility;
        config.wait = Duration::from_secs(1);
        self.sqs().subscriber(config).await.unwrap()
    }

    fn message(&self, key: &str, payload: impl Into<Vec<u8>>) -> Outgoing {
        let draft = Message::bytes("orders.created", payload.into()).key(key);
        Outgoing {
            route: Route::new(&self.queue),
            message: draft.finish(4 * MAX_PAYLOAD).unwrap().message,
            replay: None,
        }
    }

    fn bodies(&self) -> Vec<String> {
        let stored = self.gate.stored(&self.queue);
        stored.into_iter().map(|one| one.body).collect()
    }
}

async fn offer(session: &mut SqsPublisher, messages: &[Outgoing]) -> Receipts {
    let messages = messages.to_vec();
    let pending = session.offer(Arc::new(Batch { messages })).await;
    tokio::time::timeout(PATIENCE, pending).await.unwrap()
}

fn kind(outcome: &Outcome) -> Option<ErrorKind> {
    match outcome {
        Outcome::Failed(error) | Outcome::Suspect(error) => Some(error.kind),
        Outcome::Confirmed | Outcome::Unconfirmed => None,
    }
}

/// Reads until so many deliveries have come.
async fn read(member: &mut SqsSubscriber, count: usize) -> Vec<Delivery<SqsToken>> {
    let mut deliveries = Vec::new();
    let reading = async {
        while deliveries.len() < count {
            for arrival in member.next(count - deliveries.len()).await.unwrap() {
                if let Arrival::Delivery(delivery) = arrival {
                    deliveries.push(delivery);
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.unwrap();
    deliveries
}

#[tokio::test]
async fn an_entry_that_fails_alone_is_named_and_its_followers_wait_for_another_session() {
    let stage = Stage::fifo().await;
    stage.gate.script(|call| {
        let guilty = |entry: &&serde_json::Value| entry["MessageBody"] == "guilty";
        let id = call
            .entries()
            .iter()
            .find(guilty)
            .map(|entry| entry["Id"].as_str().unwrap());
        id.map_or(Act::Pass, |id| Act::fail([id.to_owned()]))
    });
    let mut messages: Vec<_> = (0..12)
        .map(|n| stage.message(&format!("k{n}"), n.to_string()))
        .collect();
    messages[5] = stage.message("k5", "guilty");
    messages.push(stage.message("k5", "follower"));
    messages.push(stage.message("k4", "peaceful"));
    let mut session = stage.session().await;

    let receipts = offer(&mut session, &messages).await;

    for (n, outcome) in receipts.outcomes().iter().enumerate() {
        match n {
            5 => assert!(matches!(outcome, Outcome::Failed(e) if e.kind == ErrorKind::Unavailable)),
            12 => assert!(matches!(outcome, Outcome::Unconfirmed), "{outcome:?}"),
            _ => assert!(matches!(outcome, Outcome::Confirmed), "{n}: {outcome:?}"),
        }
    }
    assert!(receipts.session_over().is_none());
    let bodies: BTreeSet<_> = stage.bodies().into_iter().collect();
    assert!(!bodies.contains("guilty") && !bodies.contains("follower"));
    assert_eq!(bodies.len(), 12);
}

#[tokio::test]
async fn no_call_holds_two_messages_of_a_group() {
    let stage = Stage::fifo().await;
    let (tell, told) = std::sync::mpsc::channel();
    stage.gate.script(move |call| {
        if call.action == "SendMessageBatch" {
            let groups = call
                .entries()
                .iter()
                .map(|entry| entry["MessageGroupId"].to_string());
            tell.send(groups.collect::<Vec<_>>()).unwrap();
        }
        Act::Pass
    });
    let messages: Vec<_> = (0..60)
        .map(|n| stage.message(&format!("k{}", n % 4), n.to_string()))
        .collect();

    let receipts = offer(&mut stage.session().await, &messages).await;

    assert!(receipts.all_confirmed(), "{receipts:?}");
    for groups in told.try_iter() {
        let different: BTreeSet<_> = groups.iter().collect();
        assert_eq!(different.len(), groups.len(), "{groups:?}");
    }
}

#[tokio::test]
async fn a_lost_answer_ends_the_session_and_another_one_completes_it_without_copies() {
    let stage = Stage::fifo().await;
    let mut lost = false;
    stage.gate.script(move |call| {
        let first = call.action == "SendMessageBatch" && !std::mem::replace(&mut lost, true);
        if first { Act::LoseAnswer } else { Act::Pass }
    });
    let messages: Vec<_> = (0..30)
        .map(|n| stage.message(&format!("k{}", n % 3), n.to_string()))
        .collect();
    let mut session = stage.session().await;

    let receipts = offer(&mut session, &messages).await;
    assert!(receipts.session_over().is_some(), "{receipts:?}");
    assert!(
        receipts.outcomes().iter().all(|o| kind(o).is_none()),
        "{receipts:?}"
    );
    let unknown: Vec<_> = messages
        .iter()
        .zip(receipts.outcomes())
        .filter(|(_, outcome)| !matches!(outcome, Outcome::Confirmed))
        .map(|(message, _)| message.clone())
        .collect();
    let again = offer(&mut stage.session().await, &unknown).await;

    assert!(again.all_confirmed(), "{again:?}");
    let mut by_key = [Vec::new(), Vec::new(), Vec::new()];
    for body in stage.bodies() {
        let n: usize = body.parse().unwrap();
        by_key[n % 3].push(n);
    }
    for (key, came) in by_key.iter().enumerate() {
        let sent: Vec<_> = (0..30).filter(|n| n % 3 == key).collect();
        assert_eq!(*came, sent);
    }
}

#[tokio::test]
async fn what_no_queue_takes_is_refused_and_large_messages_share_no_call() {
    let stage = Stage::fifo().await;
    let mut messages: Vec<_> = (0..5)
        .map(|n| stage.message(&format!("k{n}"), "x".repeat(400_000)))
        .collect();
    messages.push(stage.message("huge", "x".repeat(1_100_000)));

    let receipts = offer(&mut stage.session().await, &messages).await;

    let (huge, others) = receipts.outcomes().split_last().unwrap();
    assert!(
        matches!(huge, Outcome::Failed(error) if error.kind == ErrorKind::TooLarge),
        "{huge:?}"
    );
    assert!(
        others.iter().all(|o| matches!(o, Outcome::Confirmed)),
        "{others:?}"
    );
}

#[tokio::test]
async fn a_call_that_is_refused_whole_makes_its_messages_suspect_and_one_alone_is_named() {
    let stage = Stage::fifo().await;
    stage.gate.throttle(&stage.queue, true);
    let many: Vec<_> = (0..5)
        .map(|n| stage.message(&format!("k{n}"), "x"))
        .collect();
    let one = [stage.message("alone", "x")];

    let together = offer(&mut stage.session().await, &many).await;
    let alone = offer(&mut stage.session().await, &one).await;

    for outcome in together.outcomes() {
        assert!(matches!(outcome, Outcome::Suspect(_)), "{outcome:?}");
        assert_eq!(kind(outcome), Some(ErrorKind::Throttled));
    }
    assert!(matches!(alone.outcomes(), [Outcome::Failed(e)] if e.kind == ErrorKind::Throttled));
    assert!(together.session_over().is_none());
}

#[tokio::test]
async fn sixty_four_headers_and_long_keys_come_back_as_they_were() {
    let stage = Stage::fifo().await;
    let long = "ä".repeat(500);
    let mut messages: Vec<_> = (0..5)
        .map(|n| stage.message(&long, n.to_string()))
        .collect();
    messages.extend((0..5).map(|n| stage.message("two words", n.to_string())));
    for message in &mut messages {
        for n in 0..64 {
            message
                .message
                .headers
                .insert(&format!("h{n}"), "ä <&> \t\"v\"")
                .unwrap();
        }
    }
    let receipts = offer(&mut stage.session().await, &messages).await;
    assert!(receipts.all_confirmed(), "{receipts:?}");

    let came = read(&mut stage.member(Duration::from_secs(30)).await, 10).await;

    for key in [&long, "two words"] {
        let of_key = |message: &Message| message.key.as_ref().unwrap().as_str() == key;
        let sent: Vec<_> = messages
            .iter()
            .map(|one| &one.message)
            .filter(|m| of_key(m))
            .collect();
        let came = came.iter().map(|one| one.message.as_ref().unwrap());
        let came: Vec<_> = came.filter(|m| of_key(m)).collect();
        assert_eq!(came, sent);
        assert_eq!(came[0].headers, sent[0].headers);
    }
}

#[tokio::test]
async fn a_queue_that_is_missing_is_named_and_used_once_it_is_there() {
    let stage = Stage::without_queue().await;
    let message = [stage.message("k", "x")];
    let mut session = stage.session().await;

    let missing = offer(&mut session, &message).await;
    let reports = session.check(&[Route::new(&stage.queue)]).await;
    stage.server.create_queue(&stage.queue, &[]).await;
    let there = offer(&mut stage.session().await, &message).await;

    assert_eq!(
        kind(&missing.outcomes()[0]),
        Some(ErrorKind::UnknownTopic),
        "{missing:?}"
    );
    let report = reports[0].state.as_ref().unwrap_err();
    assert!(report.what.contains(&stage.queue), "{report}");
    assert!(there.all_confirmed(), "{there:?}");
}

#[tokio::test]
async fn a_check_tells_the_limit_what_is_dangerous_and_what_is_no_queue_of_this_destination() {
    let stage = Stage::fifo().await;
    stage.gate.limit(&stage.queue, 1_024);
    let routes = [&stage.queue, "orders", "orders.created"].map(Route::new);

    let reports = stage.session().await.check(&routes).await;

    let queue = reports[0].state.as_ref().unwrap();
    assert_eq!(queue.max_message, Some(1_024));
    assert!(!queue.warnings.is_empty());
    let standard = reports[1].state.as_ref().unwrap_err().what.clone();
    assert!(standard.contains("standard queue"), "{standard}");
    let dots = reports[2].state.as_ref().unwrap_err().what.clone();
    assert!(dots.contains("`routes`"), "{dots}");
}

#[tokio::test]
async fn credentials_that_run_out_end_the_session_and_new_ones_go_on() {
    let stage = Stage::fifo().await;
    let messages: Vec<_> = (0..3)
        .map(|n| stage.message(&format!("k{n}"), "x"))
        .collect();
    let mut member = stage.member(Duration::from_secs(30)).await;
    stage
        .gate
        .script(|_| Act::refuse(403, "com.amazon.coral.service#ExpiredTokenException"));

    let receipts = offer(&mut stage.session().await, &messages).await;
    let refused = async {
        loop {
            if let Err(error) = member.next(1).await {
                return error.kind;
            }
        }
    };
    let refused = tokio::time::timeout(PATIENCE, refused).await.unwrap();
    stage.gate.script(|_| Act::Pass);
    let again = offer(&mut stage.session().await, &messages).await;

    assert_eq!(
        receipts.session_over().map(|e| e.kind),
        Some(ErrorKind::Unauthorized)
    );
    assert!(
        receipts
            .outcomes()
            .iter()
            .all(|o| matches!(o, Outcome::Unconfirmed))
    );
    assert_eq!(refused, SubscribeErrorKind::Unauthorized);
    assert!(again.all_confirmed(), "{again:?}");
    let mut came = 0;
    let reading = async {
        while came < 3 {
            // It may have one more refusal to tell.
            came += member.next(3).await.map_or(0, |arrivals| arrivals.len());
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.unwrap();
}

#[tokio::test]
async fn a_delivery_that_ran_out_comes_again_and_its_old_ack_is_ignored() {
    let stage = Stage::fifo().await;
    offer(&mut stage.session().await, &[stage.message("k", "x")]).await;
    let mut member = stage.member(Duration::from_secs(1)).await;

    let first = read(&mut member, 1).await.remove(0);
    let second = read(&mut member, 1).await.remove(0);

    assert_eq!(first.origin.redelivered, Some(0));
    assert_eq!(second.origin.redelivered, Some(1));
    assert!(first.origin.sent_at.is_some());
    let acker = member.acker();
    acker.ack(vec![first.token.clone()]).await.unwrap();
    acker
        .give_back(vec![first.token], Duration::ZERO)
        .await
        .unwrap();
    acker.ack(vec![second.token.clone()]).await.unwrap();
    // Once more, as after an answer that was lost.
    acker.ack(vec![second.token]).await.unwrap();
    let empty = || async { member_backlog(&stage).await == 0 };
    wait::until_true(PATIENCE, "an empty queue", empty).await;
}

async fn member_backlog(stage: &Stage) -> u64 {
    let mut member = stage.member(Duration::from_secs(1)).await;
    member.backlog().await.unwrap()[0].count
}

#[tokio::test]
async fn what_waits_in_a_member_does_not_run_out_and_what_is_extended_neither() {
    let stage = Stage::fifo().await;
    offer(
        &mut stage.session().await,
        &[stage.message("a", "x"), stage.message("b", "y")],
    )
    .await;
    let visibility = Duration::from_secs(2);
    let mut member = stage.member(visibility).await;
    let acker = member.acker();

    let in_work = read(&mut member, 1).await.remove(0);
    let mut deadline = in_work.deadline.unwrap();
    let twice = std::time::Instant::now() + visibility * 2;
    // Time itself is what is waited for here: the first deadline has to pass.
    while deadline < twice + visibility / 2 {
        tokio::time::sleep_until((deadline - visibility / 2).into()).await;
        deadline = acker.extend(vec![in_work.token.clone()]).await.unwrap()[0].unwrap();
    }
    let waited = read(&mut member, 1).await.remove(0);

    assert_eq!(waited.origin.redelivered, Some(0));
    assert!(waited.deadline.unwrap() > std::time::Instant::now());
    acker.ack(vec![in_work.token, waited.token]).await.unwrap();
    let left = member.backlog().await.unwrap()[0].count;
    assert_eq!(left, 0);
}

#[tokio::test]
async fn an_ack_that_sqs_refuses_for_now_is_told_and_tried_again() {
    let stage = Stage::fifo().await;
    let messages: Vec<_> = (0..3)
        .map(|n| stage.message(&format!("k{n}"), "x"))
        .collect();
    offer(&mut stage.session().await, &messages).await;
    let mut member = stage.member(Duration::from_secs(30)).await;
    let tokens: Vec<_> = read(&mut member, 3)
        .await
        .into_iter()
        .map(|one| one.token)
        .collect();
    stage.gate.script(|call| match call.action.as_str() {
        "DeleteMessageBatch" => Act::fail(["1".to_owned()]),
        _ => Act::Pass,
    });
    let acker = member.acker();

    let refused = acker.ack(tokens.clone()).await;
    stage.gate.script(|_| Act::Pass);
    acker.ack(tokens).await.unwrap();

    assert_eq!(refused.unwrap_err().kind, SubscribeErrorKind::Unavailable);
    assert_eq!(member.backlog().await.unwrap()[0].count, 0);
}

#[tokio::test]
async fn a_member_is_refused_a_queue_that_does_not_exist_or_keeps_no_order() {
    let stage = Stage::without_queue().await;
    let join = |queue: String| {
        let sqs = stage.sqs();
        async move {
            sqs.subscriber(SubscriberConfig::new([queue]))
                .await
                .map(drop)
        }
    };

    let missing = join(stage.queue.clone()).await.unwrap_err();
    let standard = join("orders".to_owned()).await.unwrap_err();

    assert_eq!(missing.kind, SubscribeErrorKind::Misconfigured);
    assert!(missing.what.contains(&stage.queue), "{missing}");
    assert_eq!(standard.kind, SubscribeErrorKind::Misconfigured);
}

#[tokio::test]
async fn a_member_of_a_standard_queue_promises_no_order() {
    let stage = Stage::without_queue().await;
    let queue = unique("standard");
    stage.server.create_queue(&queue, &[]).await;
    let mut config = SqsConfig::emulator(stage.gate.url());
    config.order = Order::None;

    let member = Sqs::new(config)
        .subscriber(SubscriberConfig::new([queue]))
        .await;

    assert_eq!(member.unwrap().capabilities().order, Order::None);
}

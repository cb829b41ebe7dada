use std::collections::BTreeSet;
use std::time::Duration;

use onceward_core::{ErrorKind, Message, Outcome, Publisher as _, Route};
use onceward_sqs::{Sqs, SqsConfig};
use onceward_testkit::proxy::Proxy;
use onceward_testkit::sqs::{Act, Failure};

use crate::{Stage, kind, offer, read};

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
async fn a_message_that_sqs_finds_an_attribute_too_many_in_is_rejected_alone() {
    let stage = Stage::fifo().await;
    stage.gate.script(|call| {
        let failures = call.entries().iter().filter(|entry| {
            let others = &entry["MessageAttributes"]["onceward-headers"]["StringValue"];
            others.as_str().is_some_and(|all| all.contains("tenant"))
        });
        let failures = failures.map(|entry| Failure {
            id: entry["Id"].as_str().unwrap().to_owned(),
            code: "InvalidParameterValue",
            message: "Number of message attributes [11] exceeds the allowed maximum [10].",
            sender_fault: true,
        });
        Act::FailEntries(failures.collect())
    });
    let mut messages = ["a", "b", "c", "b"].map(|key| stage.message(key, "x"));
    messages[1]
        .message
        .headers
        .insert("tenant", "acme")
        .unwrap();

    let receipts = offer(&mut stage.session().await, &messages).await;

    match receipts.outcomes() {
        [
            Outcome::Confirmed,
            Outcome::Failed(error),
            Outcome::Confirmed,
            Outcome::Unconfirmed,
        ] => {
            assert_eq!(error.kind, ErrorKind::Rejected);
        }
        outcomes => panic!("{outcomes:?}"),
    }
    assert!(receipts.session_over().is_none());
}

#[tokio::test]
async fn a_message_without_a_key_goes_to_a_fifo_queue_as_a_group_of_its_own() {
    let stage = Stage::fifo().await;
    let mut messages = ["a", "b"].map(|key| stage.message(key, "x"));
    for message in &mut messages {
        message.message.key = None;
    }

    let receipts = offer(&mut stage.session().await, &messages).await;
    let came = read(&mut stage.member(Duration::from_secs(30)).await, 2).await;

    assert!(receipts.all_confirmed(), "{receipts:?}");
    let groups = stage.gate.stored(&stage.queue).into_iter();
    let groups: BTreeSet<_> = groups.map(|stored| stored.group.unwrap()).collect();
    let ids = messages.iter().map(|one| one.message.id.to_string());
    assert_eq!(groups, ids.collect());
    for one in came {
        assert_eq!(one.message.unwrap().key, None);
    }
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
async fn a_backlog_of_one_key_is_not_taken_for_a_broker_that_does_not_answer() {
    let stage = Stage::fifo().await;
    let proxy = Proxy::to(stage.server.port()).await;
    let mut config = SqsConfig::emulator(format!("http://{}", proxy.addr()));
    config.deadline = Duration::from_secs(8);
    let mut session = Sqs::new(config).publisher().await.unwrap();
    // One by one they take longer than the deadline.
    proxy.delay(Duration::from_millis(15));
    let backlog: Vec<_> = (0..400)
        .map(|n| stage.message("hot", n.to_string()))
        .collect();

    let receipts = offer(&mut session, &backlog).await;
    let other = offer(&mut session, &[stage.message("other", "x")]).await;

    let outcomes = receipts.outcomes();
    let confirmed = |outcome: &&Outcome| matches!(outcome, Outcome::Confirmed);
    let count = outcomes.iter().take_while(confirmed).count();
    assert!((1..400).contains(&count), "{count}");
    let unknown = |outcome: &Outcome| matches!(outcome, Outcome::Unconfirmed);
    assert!(outcomes[count..].iter().all(unknown), "{receipts:?}");
    assert!(receipts.session_over().is_none(), "{receipts:?}");
    assert!(other.all_confirmed(), "{other:?}");
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
        matches!(huge, Outcome::Failed(error) if error.kind == ErrorKind::TooLarge
            && error.what.contains("bytes on the wire, and the queue takes 1048576")),
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
    let told = format!("there is no queue {}; make it", stage.queue);
    assert!(
        report.what.starts_with(&told) && report.source.is_none(),
        "{report:?}"
    );
    assert!(there.all_confirmed(), "{there:?}");
}

#[tokio::test]
async fn a_check_tells_the_limit_what_is_dangerous_and_what_is_no_queue_of_this_destination() {
    let stage = Stage::without_queue().await;
    let delay = [("DelaySeconds", "5")];
    stage.server.create_queue(&stage.queue, &delay).await;
    stage.gate.limit(&stage.queue, 1_024);
    let routes = [&stage.queue, "orders", "orders.created"].map(Route::new);

    let reports = stage.session().await.check(&routes).await;

    let queue = reports[0].state.as_ref().unwrap();
    assert_eq!(queue.max_message, Some(1_024));
    let [warning] = &queue.warnings[..] else {
        panic!("{queue:?}");
    };
    assert!(
        warning.contains("keeps each message back for 5s"),
        "{warning}"
    );
    let standard = reports[1].state.as_ref().unwrap_err().what.clone();
    assert!(standard.contains("standard queue"), "{standard}");
    let dots = reports[2].state.as_ref().unwrap_err().what.clone();
    assert!(dots.contains("`routes`"), "{dots}");
}

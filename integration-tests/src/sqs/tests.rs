use std::time::Duration;

use super::*;

async fn send(sqs: &str, queue: &str, bodies: &[&str]) -> Result<Value, CallError> {
    let entries: Vec<Value> = bodies
        .iter()
        .enumerate()
        .map(|(n, body)| {
            json!({
                "Id": n.to_string(), "MessageBody": body, "MessageGroupId": "g",
                "MessageDeduplicationId": format!("{body}-{n}"),
                "MessageAttributes": { "who": { "DataType": "String", "StringValue": "me" } },
            })
        })
        .collect();
    let body = json!({ "QueueUrl": queue, "Entries": entries });
    call::call(sqs, "SendMessageBatch", &body).await
}

fn bodies(stored: &[Stored]) -> Vec<&str> {
    stored.iter().map(|one| one.body.as_str()).collect()
}

#[tokio::test]
async fn what_was_stored_survives_a_kill_and_a_stop() {
    let sqs = Sqs::start_with_storage().await;
    let url = sqs.create_queue("kept.fifo", &[]).await;
    send(sqs.url(), &url, &["1", "2"]).await.unwrap();

    sqs.kill();
    assert!(sqs.try_call("ListQueues", json!({})).await.is_err());
    sqs.start_again().await;
    send(sqs.url(), &url, &["3"]).await.unwrap();
    sqs.stop().await;
    sqs.start_again().await;

    let stored = sqs.drain("kept.fifo").await;
    assert_eq!(bodies(&stored), ["1", "2", "3"]);
    assert_eq!(stored[0].group.as_deref(), Some("g"));
    assert_eq!(stored[0].attributes["who"], "me");
}

#[tokio::test]
async fn a_gate_records_what_the_server_has_confirmed_and_nothing_else() {
    let sqs = Sqs::shared().await;
    let queue = format!("{}.fifo", crate::unique("gate"));
    let url = sqs.create_queue(&queue, &[]).await;
    let gate = Gate::to(sqs.port()).await;
    gate.script(|call| match call.ids().len() {
        3 => Act::fail(["1".to_owned()]),
        4 => Act::LoseAnswer,
        5 => Act::refuse(400, "com.amazonaws.sqs#RequestThrottled"),
        _ => Act::Pass,
    });

    let partly = send(&gate.url(), &url, &["a", "b", "c"]).await.unwrap();
    let lost = send(&gate.url(), &url, &["d", "e", "f", "g"]).await;
    let refused = send(&gate.url(), &url, &["h", "h", "h", "h", "h"]).await;
    gate.limit(&queue, 20);
    let limited = send(&gate.url(), &url, &["far too large", "i"])
        .await
        .unwrap();
    send(&gate.url(), &url, &["a"]).await.unwrap();

    assert_eq!(partly["Failed"][0]["Id"], "1");
    assert!(matches!(lost, Err(CallError::NoAnswer(_))), "{lost:?}");
    assert!(
        matches!(refused, Err(CallError::Refused { status: 400, .. })),
        "{refused:?}"
    );
    assert_eq!(limited["Failed"].as_array().map(Vec::len), Some(1));
    let recorded = gate.stored(&queue);
    assert_eq!(bodies(&recorded), ["a", "c", "d", "e", "f", "g", "i"]);
    assert_eq!(sqs.drain(&queue).await, recorded);
}

#[tokio::test]
async fn a_gate_that_withholds_lets_requests_through_and_no_answers() {
    let sqs = Sqs::shared().await;
    let queue = format!("{}.fifo", crate::unique("gate"));
    let url = sqs.create_queue(&queue, &[]).await;
    let gate = Gate::to(sqs.port()).await;
    gate.withhold(true);

    let endpoint = gate.url();
    let sending = send(&endpoint, &url, &["a"]);
    let answer = tokio::time::timeout(Duration::from_secs(1), sending).await;
    gate.withhold(false);

    assert!(answer.is_err(), "an answer came through");
    assert_eq!(bodies(&sqs.drain(&queue).await), ["a"]);
}

//! Messages that cannot be told apart, read or given to anybody.

use onceward_consumer::{Schema, dead_letter};

use crate::common::{Stage, write_effect};

#[tokio::test]
async fn a_message_without_an_id_is_handled_once_per_position() {
    let stage = Stage::new().await;
    stage.broker.drop_acks(true);
    stage.put(&[], br#"{"order": 1}"#);
    stage.put(&[], br#"{"order": 1}"#);

    let first = stage.run(stage.builder().on("*", write_effect));
    stage.settled(2).await;
    first.kill().await;
    stage.broker.drop_acks(false);
    stage.put(&[], br#"{"order": 2}"#);
    let second = stage.run(stage.builder().on("*", write_effect));
    stage.settled(3).await;
    second.stop().await;

    let mut effects = stage.effects().await;
    effects.sort_unstable();
    assert_eq!(
        effects,
        [1, 1, 2],
        "two publications are two messages, redeliveries none"
    );
}

#[tokio::test]
async fn two_sources_with_the_same_id_are_two_messages_and_two_copies_are_one() {
    for id in [&b"1"[..], b"018f4e3a-5b6c-7d8e-9f00-112233445566"] {
        let stage = Stage::new().await;
        for (source, order) in [("/a", 1), ("/b", 2), ("/a", 1), ("/b", 2)] {
            let payload = format!(r#"{{"order": {order}}}"#);
            stage.put(
                &[
                    ("ce-id", id),
                    ("ce_id", id),
                    ("ce-source", source.as_bytes()),
                    ("ce_source", source.as_bytes()),
                ],
                payload.as_bytes(),
            );
        }
        stage.publish(3, None);

        let running = stage.run(stage.builder().on("*", write_effect));
        stage.settled(3).await;
        running.stop().await;

        let mut effects = stage.effects().await;
        effects.sort_unstable();
        assert_eq!(effects, [1, 2, 3]);
    }
}

#[tokio::test]
async fn what_cannot_be_read_becomes_a_dead_letter_that_has_all_of_it() {
    let stage = Stage::new().await;
    stage.put(&[("tenant", b"\xff"), ("nul", b"a\0b")], b"\xff\0body");
    stage.publish(1, None);

    let running = stage.run(stage.builder().on("*", write_effect));
    stage.settled(2).await;
    running.stop().await;

    assert_eq!(stage.effects().await, [1]);
    let pool = stage.pool();
    let schema = Schema::default();
    let list = dead_letter::list(pool, &schema, &dead_letter::Filter::default())
        .await
        .unwrap();
    let letter = dead_letter::show(pool, &schema, list[0].id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(letter.summary.reason, "undecodable");
    assert!(
        letter.summary.error.contains("tenant"),
        "{}",
        letter.summary.error
    );
    assert_eq!(letter.headers["nul"], "a\u{fffd}b");
    assert_eq!(letter.origin["broker"], "memory");
    assert_eq!(
        letter.payload,
        dead_letter::Payload::Base64("/wBib2R5".to_owned())
    );
    assert!(letter.history.is_empty());
}

#[tokio::test]
async fn a_payload_that_the_handler_does_not_expect_becomes_a_dead_letter_at_once() {
    let stage = Stage::new().await;
    stage.put(&[], b"no json at all");
    stage.put(&[], br#"{"order": "seventeen"}"#);

    let running = stage.run(stage.builder().on("*", write_effect));
    stage.settled(2).await;
    running.stop().await;

    let letters = stage.letters().await;
    let reasons: Vec<_> = letters
        .iter()
        .map(|(reason, _, n)| (reason.as_str(), *n))
        .collect();
    assert_eq!(reasons, [("payload", 1), ("payload", 1)]);
}

#[tokio::test]
async fn a_type_without_a_handler_becomes_a_dead_letter_unless_it_is_ignored() {
    let stage = Stage::new().await;
    stage.publish(1, None);
    stage.put(
        &[("ce_type", b"audit.seen"), ("ce-type", b"audit.seen")],
        b"{}",
    );

    let builder = stage
        .builder()
        .on("payments.*", write_effect)
        .ignore("audit.*");
    let running = stage.run(builder);
    stage.settled(2).await;
    running.stop().await;

    let mut outcomes = stage.outcomes().await;
    outcomes.sort_unstable();
    assert_eq!(outcomes, [2, 4], "dead and ignored");
    let letters = stage.letters().await;
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].0.as_str(), letters[0].2), ("no_handler", 0));
    assert!(letters[0].1.contains("orders.created"));
}

use std::collections::BTreeMap;

use aws_sdk_sqs::primitives::Blob;
use onceward_core::{Headers, Route, Source, UndecodableReason};

use super::*;

fn outgoing(headers: &[(&str, &str)]) -> Outgoing {
    let draft = Message::bytes("orders.created", "{}").key("17");
    let mut message = draft.finish(100).unwrap().message;
    let headers = headers
        .iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
    message.headers = Headers::received(headers.collect());
    message.source = Some(Source::received("/shop"));
    message.seq = Some(42);
    Outgoing {
        route: Route::new("orders.fifo"),
        message,
        replay: None,
    }
}

/// What SQS would deliver of it.
fn delivered(entry: Entry, group: Option<&str>) -> Received {
    let attributes = Entry::attribute_values(entry.attributes).unwrap();
    let mut received = Received::builder()
        .message_id("m-1")
        .body(entry.body)
        .set_message_attributes(Some(attributes));
    if let Some(group) = group {
        received = received.attributes(MessageSystemAttributeName::MessageGroupId, group);
    }
    received.build()
}

#[test]
fn a_message_survives_the_way_with_and_without_a_key() {
    for key in [Some("17"), Some("two words ä"), None] {
        let mut sent = outgoing(&[
            ("tenant", "acme"),
            ("traceparent", "00-1-2-01"),
            ("umlaut", "ä"),
        ]);
        sent.message.key = key.map(onceward_core::Key::received);

        let entry = encode(&sent).unwrap();
        let group = group(&sent);
        let got = decode("orders.fifo", delivered(entry, Some(&group))).unwrap();

        assert_eq!(got, sent.message);
        assert_eq!(got.key, sent.message.key);
        assert_eq!(got.headers, sent.message.headers);
    }
}

#[test]
fn however_many_headers_there_are_ten_attributes_are_enough() {
    let many: BTreeMap<String, String> =
        (0..64).map(|n| (format!("h{n}"), "v".to_owned())).collect();
    let mut sent = outgoing(&[]);
    sent.message.headers = Headers::received(many);
    sent.message.payload = vec![0].into();
    sent.message.content_type = Some("a/b".to_owned());
    sent.message.time = Some(std::time::SystemTime::UNIX_EPOCH.into());

    let entry = encode(&sent).unwrap();

    assert_eq!(entry.attributes.len(), 10, "{:?}", entry.attributes);
    assert_eq!(
        decode("orders.fifo", delivered(entry, None)).unwrap(),
        sent.message
    );
}

#[test]
fn hostile_headers_are_carried_as_they_are_or_refused() {
    for (name, value) in [
        ("x", "a\r\nforged: 1"),
        ("a\r\nb", "v"),
        ("", "v"),
        ("x", ""),
        ("nul\0", "\0\u{fffe}\u{ffff}"),
        ("ä", "\u{1b}[0m"),
    ] {
        let sent = outgoing(&[(name, value)]);

        let entry = encode(&sent).unwrap();

        for (_, value) in &entry.attributes {
            assert!(
                !value.is_empty() && body::is_legal(value),
                "{name:?}: {value:?}"
            );
        }
        let got = decode("orders.fifo", delivered(entry, None)).unwrap();
        assert_eq!(got.headers, sent.message.headers, "{name:?}");
    }
    for name in [
        "ce-id",
        "onceward-headers",
        "onceward-encoding",
        "onceward-seq",
    ] {
        let error = encode(&outgoing(&[(name, "other")])).unwrap_err();

        assert_eq!(error.kind, ErrorKind::Rejected, "{name}");
    }
}

#[test]
fn the_size_is_what_sqs_counts() {
    let entry = Entry {
        body: "12345".to_owned(),
        attributes: vec![("ab", "cde".to_owned())],
    };

    assert_eq!(entry.size(), 5 + 2 + 6 + 3);
}

#[test]
fn a_foreign_message_keeps_order_by_its_group_and_has_the_id_of_its_position() {
    let received = Received::builder()
        .message_id("m-1")
        .body("bare")
        .attributes(MessageSystemAttributeName::MessageGroupId, "g");

    let got = decode("orders.fifo", received.build()).unwrap();

    assert_eq!(got.key.unwrap().as_str(), "g");
    assert_eq!(
        got.id,
        MessageId::from_position("sqs", "orders.fifo", "m-1")
    );
}

#[test]
fn bytes_that_are_no_text_make_a_delivery_undecodable_and_keep_it_whole() {
    let value = MessageAttributeValue::builder()
        .data_type("Binary")
        .binary_value(Blob::new(vec![0xff]))
        .build()
        .unwrap();
    let received = Received::builder().body("b").message_attributes("x", value);

    let error = decode("orders", received.build()).unwrap_err();

    assert_eq!(
        error.reason,
        UndecodableReason::HeaderNotUtf8("x".to_owned())
    );
    assert_eq!(&error.payload[..], b"b");
}

#[test]
fn deduplication_goes_by_the_replay_too_and_is_always_legal() {
    let mut sent = outgoing(&[]);
    let first = dedupe(&sent);
    sent.replay = Some(uuid_of(7));
    let again = dedupe(&sent);
    sent.route = Route::new(&format!(
        "https://sqs.eu-west-1.amazonaws.com/1/{}",
        "q".repeat(75)
    ));

    assert_eq!(first, format!("orders.fifo:{}", sent.message.id));
    assert_ne!(first, again);
    assert!(dedupe(&sent).len() <= 128);
}

fn uuid_of(n: u128) -> uuid::Uuid {
    uuid::Uuid::from_u128(n)
}

//! What a message may hold, and how it comes back.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use onceward_core::wire::SEQUENCE;
use onceward_core::{
    Headers, Message, MessageId, Outcome, Outgoing, Publisher, Route, Source, UndecodableReason,
};

use crate::journey::{assert_all_confirmed, batch, finish, message, noise, text, with_payload};
use crate::reading::{read, read_and_ack};
use crate::{Control, Harness, Member, Offer, Record, Sharing, Verdict};

const DEADLINE: Duration = Duration::from_secs(15);

fn member(route: &Route) -> Member {
    Member {
        group: "readers".to_owned(),
        routes: vec![route.clone()],
        hold: Duration::from_secs(10),
    }
}

/// Empty payloads, binary ones and a text of 1 MB, with and without key, come back as they were, with all that is said about them.
pub async fn payloads_and_attributes_come_back_unchanged<H: Harness>() -> Verdict {
    let broker = H::start(Sharing::Shared).await;
    let route = broker.route(1).await;
    let mut messages = vec![
        with_payload(&route, Some("k"), Vec::new()),
        with_payload(&route, Some("k"), (0..=255).collect()),
        // As large as fits where bytes that are no text have to travel in base64.
        with_payload(&route, Some("k"), noise(700_000)),
        with_payload(&route, Some("k"), text(1_000_000)),
        with_payload(&route, None, b"\r\n\r\n\0".to_vec()),
        with_payload(&route, Some("k\u{e4}\u{1f600} \"'%"), b"{}".to_vec()),
    ];
    for (seq, outgoing) in (1_i64..).zip(&mut messages) {
        let message = &mut outgoing.message;
        message.source = Some(Source::received("/conformance"));
        message.seq = Some(seq);
        message.content_type = Some("application/x-noise".to_owned());
        message.headers.insert("tenant", "acme").expect("valid");
        if message.key.is_some() {
            let number = (seq * 1_000_000_007).to_string();
            message.headers.insert(SEQUENCE, &number).expect("valid");
        }
        message.headers.insert("umlaut", "\u{e4}").expect("valid");
    }
    let mut session = broker.publisher(DEADLINE).await;
    assert_all_confirmed(&finish(session.offer(batch(&messages)).await).await);

    let mut reader = broker.subscriber(&member(&route)).await.expect("opens");
    let seen = read(&mut reader, messages.len()).await;

    for outgoing in &messages {
        let same = seen.deliveries.iter().find_map(|delivery| {
            let message = delivery.message.as_ref().ok()?;
            (message.id == outgoing.message.id).then_some(message)
        });
        let came = same.expect("it came");
        let bytes = outgoing.message.payload.len();
        assert!(came.payload == outgoing.message.payload, "{bytes} bytes");
        assert_eq!(came, &outgoing.message);
        // The debug form above leaves out what may be personal; the headers must be the same too.
        assert_eq!(came.headers, outgoing.message.headers);
        assert_eq!(came.key, outgoing.message.key);
    }
    Verdict::Held
}

/// Headers made to break a protocol are refused or carried as they are: no panic, nothing forged, and the session's other
/// keys go on.
pub async fn hostile_headers_neither_panic_nor_forge<H: Harness>() -> Verdict {
    let broker = H::start(Sharing::Shared).await;
    let route = broker.route(1).await;
    let hostile = [
        ("x", "a\r\nforged: yes"),
        ("x", "a\n\nforged"),
        ("a\r\nforged", "yes"),
        ("a:b", "v"),
        ("a b", "v"),
        ("", "v"),
        ("nul\0", "v"),
        ("x", "nul\0"),
        ("\u{e4}", "v"),
    ];
    for (n, (name, value)) in (0_u32..).zip(hostile) {
        let mut session = broker.publisher(DEADLINE).await;
        let mut bad = message(&route, Some("hostile"), n);
        let header = (name.to_owned(), value.to_owned());
        bad.message.headers = Headers::received(BTreeMap::from([header]));
        let good = message(&route, Some("peaceful"), n);

        let receipts = finish(session.offer(batch(&[bad.clone()])).await).await;

        let over = receipts.session_over().is_some();
        match receipts.outcomes() {
            [Outcome::Confirmed] => {
                let stored = broker.stored(&route).await;
                let carried = stored
                    .iter()
                    .any(|record| carries(record, &bad, name, value));
                assert!(carried, "{name:?} {value:?} is stored as something else");
            }
            [Outcome::Failed(_)] => {}
            outcomes => panic!("{name:?} {value:?}: {outcomes:?}"),
        }
        if !over {
            assert_all_confirmed(&finish(session.offer(batch(&[good])).await).await);
        }
    }
    let forged = |record: &Record| record.headers.iter().any(|(name, _)| name == "forged");
    assert!(!broker.stored(&route).await.iter().any(forged));
    Verdict::Held
}

fn carries(record: &Record, outgoing: &Outgoing, name: &str, value: &str) -> bool {
    record.text("id") == Some(outgoing.message.id.to_string())
        && record
            .headers
            .iter()
            .any(|(n, v)| n == name && v == value.as_bytes())
}

/// Messages of other producers: without an id, with an id that is no uuid, with bytes that are no text. Each comes, and one that
/// cannot be read comes whole.
pub async fn foreign_messages_come_whole<H: Harness>() -> Verdict {
    let broker = H::start(Sharing::Shared).await;
    let route = broker.route(1).await;
    let header = |name: &str, value: &'static [u8]| (name.to_owned(), Bytes::from_static(value));
    let records = [
        Record {
            payload: Bytes::from_static(b"bare"),
            ..Record::default()
        },
        // In both styles, of which each broker reads its own.
        Record {
            headers: vec![header("ce-id", b"order 17"), header("ce_id", b"order 17")],
            payload: Bytes::from_static(b"named"),
            ..Record::default()
        },
        Record {
            headers: vec![header("x", b"\xff\xfe")],
            payload: Bytes::from_static(b"unreadable"),
            ..Record::default()
        },
        Record {
            payload: Bytes::from_static(b"last"),
            ..Record::default()
        },
    ];
    for record in &records {
        let put = Control::Put {
            route: &route,
            record,
        };
        if broker.control(put).await == Offer::NotOffered {
            return Verdict::not_promised("messages of other producers");
        }
    }

    let mut reader = broker.subscriber(&member(&route)).await.expect("opens");
    let seen = read_and_ack(&mut reader, records.len()).await;

    let came: BTreeMap<&[u8], &Result<Message, _>> = seen
        .deliveries
        .iter()
        .map(|delivery| match &delivery.message {
            Ok(message) => (&message.payload[..], &delivery.message),
            Err(undecodable) => (&undecodable.payload[..], &delivery.message),
        })
        .collect();
    let id = |payload: &[u8]| came[payload].as_ref().map(|message| message.id.clone());
    assert!(matches!(id(b"bare"), Ok(MessageId::Position(_))));
    assert_eq!(id(b"named"), Ok(MessageId::Foreign("order 17".into())));
    let unreadable = came[&b"unreadable"[..]].as_ref().err();
    let reason = unreadable.map(|undecodable| undecodable.reason.clone());
    assert_eq!(
        reason,
        Some(UndecodableReason::HeaderNotUtf8("x".to_owned()))
    );
    assert_ne!(id(b"bare"), id(b"last"));
    Verdict::Held
}

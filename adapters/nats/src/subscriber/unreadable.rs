//! Messages whose headers async-nats cannot read: found and read by the server's JSON interface, which carries bytes as base64.

use std::time::SystemTime;

use async_nats::header::HeaderName;
use async_nats::jetstream::Context;
use async_nats::jetstream::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use onceward_core::wire::{self, Raw, Style};
use onceward_core::{Delivery, MessageId, Origin, SubscribeError};
use serde::Deserialize;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::acker::{Acked, NatsToken};
use super::durable::{self, Durable, no_answer, unavailable};
use crate::headers::BROKER;

/// How far the search goes: more than any member has on its way.
const SEARCHED: usize = 2_000;
/// The server's code for "no message found".
const NO_MESSAGE: u64 = 10_037;

/// A message that async-nats cannot read.
#[derive(Debug)]
pub(crate) struct Unreadable {
    pub(crate) sequence: u64,
    /// How many messages that can be read come before it and are not acked for sure.
    pub(crate) readable_before: usize,
    subject: String,
    headers: Vec<u8>,
    payload: Bytes,
    stored_at: Option<SystemTime>,
}

#[derive(Debug, Deserialize)]
struct Got {
    message: Stored,
}

#[derive(Debug, Deserialize)]
struct Stored {
    subject: String,
    seq: u64,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
    #[serde(default)]
    time: String,
}

/// The first unreadable message behind the oldest unacked one, if it is near.
pub(crate) async fn first(
    context: &Context,
    durable: &Durable,
) -> Result<Option<Unreadable>, SubscribeError> {
    let info = durable::info(context, &durable.stream, &durable.name).await?;
    let info = info.ok_or_else(|| unavailable("the durable was deleted".to_owned()))?;
    let mut next = info.ack_floor.stream_sequence + 1;
    for readable_before in 0..SEARCHED {
        let Some(stored) = message_from(context, durable, next).await? else {
            return Ok(None);
        };
        next = stored.seq + 1;
        let headers = STANDARD.decode(&stored.hdrs).map_err(no_answer)?;
        if readable(&headers) {
            continue;
        }
        let time = OffsetDateTime::parse(&stored.time, &Rfc3339).ok();
        return Ok(Some(Unreadable {
            sequence: stored.seq,
            readable_before,
            subject: stored.subject,
            headers,
            payload: STANDARD.decode(&stored.data).map_err(no_answer)?.into(),
            stored_at: time.map(Into::into),
        }));
    }
    Ok(None)
}

/// The first message of the durable at or behind `from`.
async fn message_from(
    context: &Context,
    durable: &Durable,
    from: u64,
) -> Result<Option<Stored>, SubscribeError> {
    let everything = [">".to_owned()];
    let filters = match durable.filters.as_slice() {
        [] => everything.as_slice(),
        filters => filters,
    };
    let mut first: Option<Stored> = None;
    for filter in filters {
        let subject = format!("STREAM.MSG.GET.{}", durable.stream);
        let request = json!({ "seq": from, "next_by_subj": filter });
        let found: Option<Got> = match context.request(subject, &request).await {
            Ok(Response::Ok(got)) => Some(got),
            Ok(Response::Err { error }) if error.error_code().0 == NO_MESSAGE => None,
            Ok(Response::Err { error }) => return Err(no_answer(error)),
            Err(error) => return Err(no_answer(error)),
        };
        let nearer = |got: &Got| first.as_ref().is_none_or(|f| got.message.seq < f.seq);
        if let Some(got) = found.filter(nearer) {
            first = Some(got.message);
        }
    }
    Ok(first)
}

/// Whether async-nats can read these headers, by its own rules.
fn readable(headers: &[u8]) -> bool {
    if headers.is_empty() {
        return true;
    }
    let Ok(text) = std::str::from_utf8(headers) else {
        return false;
    };
    let mut lines = text.lines();
    let version = lines.next().and_then(|line| line.strip_prefix("NATS/1.0"));
    let status = version.map(str::trim).is_some_and(|status| {
        let code = status.split(' ').next().unwrap_or_default();
        code.is_empty()
            || code
                .parse::<u16>()
                .is_ok_and(|code| (100..1000).contains(&code))
    });
    let named = |line: &str| {
        let folded = line.starts_with(char::is_whitespace);
        let name = line.split_once(':').map(|(name, _)| name);
        folded || name.is_some_and(|name| name.parse::<HeaderName>().is_ok())
    };
    status && lines.filter(|line| !line.is_empty()).all(named)
}

/// The delivery of such a message.
pub(crate) fn delivery(
    found: Unreadable,
    durable: &Durable,
    number: usize,
    ownership: u64,
) -> Delivery<NatsToken> {
    let position = found.sequence.to_string();
    let names: Vec<(String, &[u8])> = lines(&found.headers);
    let raw = Raw {
        route: &found.subject,
        key: None,
        headers: names.iter().map(|(n, v)| (n.as_str(), *v)).collect(),
        payload: found.payload,
        position_id: MessageId::from_position(BROKER, &durable.stream, &position),
    };
    Delivery {
        message: wire::decode(raw, Style::Dash),
        origin: Origin {
            broker: BROKER,
            partition: durable.partition.clone(),
            position: Some(found.sequence),
            redelivered: None,
            sent_at: found.stored_at,
        },
        deadline: None,
        token: NatsToken {
            place: Acked::ByMember(found.sequence),
            ownership,
            number,
        },
    }
}

/// Names and values, as far as lines have both. A name that is no text is shown with its bytes replaced.
fn lines(headers: &[u8]) -> Vec<(String, &[u8])> {
    let lines = headers.split(|byte| *byte == b'\n').skip(1);
    lines
        .filter_map(|line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            let (name, value) = line.split_at(colon);
            let name = String::from_utf8_lossy(name).trim().to_owned();
            Some((name, value.get(1..)?.trim_ascii()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_library_would_choke_on_is_found() {
        for (headers, expected) in [
            (&b""[..], true),
            (b"NATS/1.0\r\n\r\n", true),
            (b"NATS/1.0\r\na: b\r\nc:\r\n\r\n", true),
            (b"NATS/1.0 503\r\n\r\n", true),
            (b"NATS/1.0\r\na: \xff\r\n\r\n", false),
            (b"NATS/1.0\r\nno colon\r\n\r\n", false),
            (b"NATS/1.0\r\n\xc3\xa4: b\r\n\r\n", false),
            (b"NATS/1.0 what\r\n\r\n", false),
            (b"HTTP/1.1\r\n\r\n", false),
        ] {
            let shown = String::from_utf8_lossy(headers);

            assert_eq!(readable(headers), expected, "{shown:?}");
        }
    }

    #[test]
    fn its_headers_are_kept_as_bytes() {
        let read = lines(b"NATS/1.0\r\nce-id: 17\r\nx: \xff\xfe\r\nno colon\r\n\r\n");

        let expected: Vec<(String, &[u8])> =
            vec![("ce-id".to_owned(), b"17"), ("x".to_owned(), b"\xff\xfe")];
        assert_eq!(read, expected);
    }
}

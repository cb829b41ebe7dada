//! What of a foreign message the log takes.

use onceward_core::{Headers, Key, Kind, wire};
use serde_json::{Map, Value};

use crate::stored::Stored;

/// Headers that enqueueing takes, and the content type if it is one. Others are left out: those that are ours or the
/// broker's, and what no broker can carry.
pub(crate) fn headers(stored: &Map<String, Value>) -> (Map<String, Value>, Option<String>) {
    let mut taken = Headers::new();
    // Room for those that we add.
    let mut room = onceward_core::MAX_HEADER_BYTES - 4_096;
    // Its number is that of the message it was, which is settled.
    for (name, value) in stored.iter().filter(|(name, _)| *name != wire::SEQUENCE) {
        let Some(value) = value.as_str() else {
            continue;
        };
        let bytes = name.len() + value.len();
        if bytes <= room
            && taken.len() < onceward_core::MAX_HEADERS - 8
            && taken.insert(name, value).is_ok()
        {
            room -= bytes;
        }
    }
    let headers = taken
        .iter()
        .map(|(n, v)| (n.to_owned(), v.into()))
        .collect();
    let content_type = stored.get(wire::CONTENT_TYPE).and_then(Value::as_str);
    let content_type = content_type.filter(|text| wire::is_content_type(text));
    (headers, content_type.map(str::to_owned))
}

/// The key, if enqueueing takes it.
pub(crate) fn key(stored: &Stored) -> Option<&str> {
    let key = stored.key.as_deref();
    key.filter(|key| Key::try_from(*key).is_ok())
}

/// The type, if enqueueing takes it.
pub(crate) fn kind(stored: &Stored) -> Option<&str> {
    let kind = stored.kind.as_deref();
    kind.filter(|kind| Kind::try_from(*kind).is_ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn headers_that_the_log_would_refuse_are_left_out() {
        let stored = json!({
            "tenant": "acme", "ce_subject": "x", "Nats-Msg-Id": "1", "onceward-topic": "t", "a b": "c", "onceward-sequence": "7",
            "content-type": "text/plain", "long": "x".repeat(20_000),
        });

        let (headers, content_type) = headers(stored.as_object().unwrap());

        assert_eq!(Value::Object(headers), json!({ "tenant": "acme" }));
        assert_eq!(content_type.as_deref(), Some("text/plain"));
    }
}

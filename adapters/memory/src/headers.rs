//! Headers to and from the form on the wire.

use bytes::Bytes;
use onceward_core::wire::{self, Raw, Style};
use onceward_core::{ErrorKind, Headers, Message, MessageId, Outgoing, PublishError, Undecodable};

use crate::MemoryRecord;

/// The broker's name in ids, metrics and logs.
pub(crate) const BROKER: &str = "memory";

/// The headers of a message. What a real broker's protocol could not carry is refused here too, so that a test in
/// memory finds it.
pub(crate) fn encode(outgoing: &Outgoing) -> Result<Vec<(String, Bytes)>, PublishError> {
    let mut valid = Headers::new();
    for (name, value) in outgoing.message.headers.iter() {
        valid.insert(name, value).map_err(|invalid| {
            PublishError::with_source(ErrorKind::Rejected, "a header is refused", invalid)
        })?;
    }
    let headers = wire::encode(outgoing, Style::Dash).into_iter();
    Ok(headers
        .map(|(name, value)| (name.to_owned(), Bytes::from(value.into_owned())))
        .collect())
}

/// The message of a record.
pub(crate) fn decode(topic: &str, record: &MemoryRecord) -> Result<Message, Box<Undecodable>> {
    let headers = record.headers.iter();
    let raw = Raw {
        route: topic,
        key: None,
        headers: headers.map(|(n, v)| (n.as_str(), v.as_ref())).collect(),
        payload: record.payload.clone(),
        position_id: MessageId::from_position(BROKER, topic, &record.position.to_string()),
    };
    wire::decode(raw, Style::Dash)
}

//! Messages as Kafka records: CloudEvents headers, and the exact size of a record on its own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use onceward_core::wire::{self, Raw, Style};
use onceward_core::{
    ErrorKind, Message, MessageId, Origin, Outgoing, Partition, PublishError, Undecodable,
    UndecodableReason,
};
use rdkafka::message::{
    BorrowedHeaders, BorrowedMessage, Header, Headers as _, Message as _, OwnedHeaders,
};

/// The broker's name in origins, metrics and dead letters.
pub(crate) const BROKER: &str = "kafka";

/// A message's headers, and the bytes of a request's batch that holds it alone and uncompressed.
pub(crate) struct Encoded {
    pub(crate) headers: OwnedHeaders,
    pub(crate) alone: u64,
}

/// Makes the headers of a message.
///
/// # Errors
/// [`ErrorKind::Rejected`] for a header name that librdkafka would cut off.
pub(crate) fn encode(outgoing: &Outgoing) -> Result<Encoded, PublishError> {
    let wire = wire::encode(outgoing, Style::Underscore);
    if let Some((name, _)) = wire.iter().find(|(name, _)| name.contains('\0')) {
        let what = format!("the header name {name:?} holds a NUL");
        return Err(PublishError::new(ErrorKind::Rejected, what));
    }
    let key = outgoing.message.key.as_ref().map(|key| key.as_str().len());
    let lengths = wire.iter().map(|(name, value)| (name.len(), value.len()));
    let alone = batch_bytes(key, outgoing.message.payload.len(), lengths);
    let mut headers = OwnedHeaders::new_with_capacity(wire.len());
    for (name, value) in &wire {
        headers = headers.insert(Header {
            key: name,
            value: Some(value.as_bytes()),
        });
    }
    Ok(Encoded { headers, alone })
}

/// Bytes of a record batch of one record, as a broker compares them with `max.message.bytes`.
///
/// Source: Kafka protocol guide, "Record Batch" (61 bytes) and "Record".
fn batch_bytes(
    key: Option<usize>,
    payload: usize,
    headers: impl ExactSizeIterator<Item = (usize, usize)>,
) -> u64 {
    let field = |bytes: usize| varint(bytes) + bytes;
    // Attributes, and the deltas of time and offset, which are zero for the first record.
    let mut record = 3 + key.map_or(1, field) + field(payload) + varint(headers.len());
    for (name, value) in headers {
        record += field(name) + field(value);
    }
    (61 + field(record)) as u64
}

/// Bytes of a length as a zigzag varint.
const fn varint(length: usize) -> usize {
    let bits = usize::BITS - (length << 1).leading_zeros();
    if bits == 0 {
        1
    } else {
        bits.div_ceil(7) as usize
    }
}

/// Where a record came from.
pub(crate) fn origin(record: &BorrowedMessage<'_>, partition: &Partition) -> Origin {
    let millis = record.timestamp().to_millis();
    let since_epoch = millis.and_then(|millis| u64::try_from(millis).ok());
    Origin {
        broker: BROKER,
        partition: partition.clone(),
        position: u64::try_from(record.offset()).ok(),
        redelivered: None,
        sent_at: since_epoch
            .and_then(|millis| SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis))),
    }
}

/// Reads a record.
pub(crate) fn decode(
    record: &BorrowedMessage<'_>,
    partition: &Partition,
) -> Result<Message, Box<Undecodable>> {
    let (headers, unreadable) = record.headers().map(read).unwrap_or_default();
    let position = record.offset().to_string();
    let raw = Raw {
        route: record.topic(),
        key: record.key(),
        headers,
        payload: Bytes::copy_from_slice(record.payload().unwrap_or_default()),
        position_id: MessageId::from_position(BROKER, partition.as_str(), &position),
    };
    let message = wire::decode(raw, Style::Underscore)?;
    match unreadable {
        None => Ok(message),
        Some(index) => Err(Box::new(without_a_name(record, message, index))),
    }
}

/// Names and values, and the index of the first name that is no text.
fn read(headers: &BorrowedHeaders) -> (Vec<(&str, &[u8])>, Option<usize>) {
    let mut texts = Vec::with_capacity(headers.count());
    let mut unreadable = None;
    for index in 0..headers.count() {
        // The library panics over a name that is no UTF-8; a foreign producer must not end the consumer.
        let header = catch_unwind(AssertUnwindSafe(|| headers.try_get(index)));
        match header {
            Ok(Some(header)) => texts.push((header.key, header.value.unwrap_or_default())),
            Ok(None) => {}
            Err(_) => {
                unreadable.get_or_insert(index);
            }
        }
    }
    (texts, unreadable)
}

fn without_a_name(record: &BorrowedMessage<'_>, message: Message, index: usize) -> Undecodable {
    let texts = message.headers.iter();
    Undecodable {
        reason: UndecodableReason::HeaderNotUtf8(format!("number {index}, whose name is no text")),
        id: message.id,
        source_name: message.source,
        topic: message.topic,
        key: record.key().map(Bytes::copy_from_slice),
        headers: texts.map(|(n, v)| (n.to_owned(), v.to_owned())).collect(),
        payload: message.payload,
    }
}

#[cfg(test)]
mod tests {
    use onceward_core::{MAX_PAYLOAD, Route};

    use super::*;

    fn outgoing() -> Outgoing {
        let draft = Message::bytes("orders", "payload")
            .key("k")
            .header("x", "y");
        Outgoing {
            route: Route::new("orders"),
            message: draft.finish(MAX_PAYLOAD).unwrap().message,
            replay: None,
        }
    }

    #[test]
    fn a_header_name_with_a_nul_is_refused_and_not_cut_off() {
        let mut hostile = outgoing();
        let names = [("a\0b".to_owned(), "v".to_owned())].into();
        hostile.message.headers = onceward_core::Headers::received(names);

        let error = encode(&hostile).err().unwrap();

        assert_eq!(error.kind, ErrorKind::Rejected);
    }

    #[test]
    fn headers_are_written_in_order_with_the_users_own_last() {
        let encoded = encode(&outgoing()).unwrap();

        let names: Vec<_> = encoded.headers.iter().map(|h| h.key.to_owned()).collect();

        assert_eq!(names.first().unwrap(), "ce_specversion");
        assert_eq!(names.last().unwrap(), "x");
    }

    #[test]
    fn lengths_grow_by_a_byte_at_each_power_of_the_varint() {
        let lengths = [0, 63, 64, 8_191, 8_192, 1_048_575, 1_048_576];

        assert_eq!(lengths.map(varint), [1, 1, 2, 2, 3, 3, 4]);
    }

    #[test]
    fn an_empty_record_has_seven_bytes_in_its_batch() {
        assert_eq!(batch_bytes(None, 0, [].into_iter()), 61 + 7);
    }
}

//! The form of a message on SQS, there and back: body, attributes, group and deduplication id. Pure.

mod body;
mod group;

use std::collections::HashMap;

use aws_sdk_sqs::types::{Message as Received, MessageAttributeValue, MessageSystemAttributeName};
use onceward_core::wire::{self, CONTENT_TYPE, Raw, SEQ, Style};
use onceward_core::{ErrorKind, Message, MessageId, Outgoing, PublishError, Undecodable};
use serde_json::{Map, Value};

pub(crate) use group::group;

/// The broker's name in ids, metrics and logs.
pub(crate) const BROKER: &str = "sqs";

/// The attribute with all headers that have none of their own: SQS takes ten.
const REST: &str = "onceward-headers";
/// The attribute that says how the body holds the payload, where that is not as it is.
const ENCODING: &str = "onceward-encoding";
const BASE64: &str = "base64";

/// Headers with an attribute of their own. With the two above these are the ten that SQS takes.
const OWN: [&str; 8] = [
    "ce-specversion",
    "ce-id",
    "ce-type",
    "ce-source",
    "ce-time",
    "ce-partitionkey",
    CONTENT_TYPE,
    SEQ,
];

const STRING: &str = "String";

/// A message as SQS takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) body: String,
    pub(crate) attributes: Vec<(&'static str, String)>,
}

impl Entry {
    /// Bytes as SQS counts them: the body, and name, type and value of each attribute.
    pub(crate) fn size(&self) -> u64 {
        let attributes = self.attributes.iter();
        let attributes: usize = attributes
            .map(|(name, value)| name.len() + STRING.len() + value.len())
            .sum();
        (self.body.len() + attributes) as u64
    }

    /// How its payload is in its body, for people, if not as it is.
    pub(crate) fn form(&self) -> &'static str {
        if self.attributes.iter().any(|(name, _)| *name == ENCODING) {
            " (payload in base64)"
        } else {
            ""
        }
    }

    /// The attributes as the client takes them.
    pub(crate) fn attribute_values(
        attributes: Vec<(&'static str, String)>,
    ) -> Result<HashMap<String, MessageAttributeValue>, PublishError> {
        let mut values = HashMap::with_capacity(attributes.len());
        for (name, value) in attributes {
            let value = MessageAttributeValue::builder()
                .data_type(STRING)
                .string_value(value)
                .build()
                .map_err(|error| {
                    let what = "an attribute cannot be built";
                    PublishError::with_source(ErrorKind::Rejected, what, error)
                })?;
            values.insert(name.to_owned(), value);
        }
        Ok(values)
    }
}

/// The form of a message.
///
/// # Errors
/// [`PublishError`] of kind `Rejected` for a header whose name is one of ours.
pub(crate) fn encode(outgoing: &Outgoing) -> Result<Entry, PublishError> {
    let (body, encoded) = body::encode(&outgoing.message.payload);
    let mut attributes: Vec<(&'static str, String)> = Vec::with_capacity(OWN.len() + 2);
    let mut rest = Map::new();
    for (name, value) in wire::encode(outgoing, Style::Dash) {
        let own = OWN.into_iter().find(|own| *own == name);
        let taken = rest.contains_key(name)
            || attributes.iter().any(|(taken, _)| *taken == name)
            || [REST, ENCODING].contains(&name);
        if taken {
            return Err(PublishError::new(
                ErrorKind::Rejected,
                format!("the header name {name:?} is not the user's to set"),
            ));
        }
        match own {
            // An attribute is neither empty nor anything but legal text.
            Some(own) if !value.is_empty() && body::is_legal(&value) => {
                attributes.push((own, value.into_owned()));
            }
            Some(_) | None => {
                rest.insert(name.to_owned(), Value::String(value.into_owned()));
            }
        }
    }
    if encoded {
        attributes.push((ENCODING, BASE64.to_owned()));
    }
    if !rest.is_empty() {
        attributes.push((REST, body::escape(&Value::Object(rest).to_string())));
    }
    Ok(Entry { body, attributes })
}

/// The message of a delivery from the queue of that name.
pub(crate) fn decode(queue: &str, received: Received) -> Result<Message, Box<Undecodable>> {
    let attributes = received.message_attributes.unwrap_or_default();
    let bytes = |value: &MessageAttributeValue| -> Option<Vec<u8>> {
        match (&value.string_value, &value.binary_value) {
            (Some(text), _) => Some(text.as_bytes().to_vec()),
            (None, Some(blob)) => Some(blob.as_ref().to_vec()),
            (None, None) => None,
        }
    };
    let mut headers: Vec<(String, Vec<u8>)> = Vec::with_capacity(attributes.len());
    let mut encoded = false;
    for (name, value) in &attributes {
        let Some(value) = bytes(value) else { continue };
        match name.as_str() {
            ENCODING => encoded = value == BASE64.as_bytes(),
            REST => match unpack(&value) {
                Some(rest) => headers.extend(rest),
                None => headers.push((name.clone(), value)),
            },
            _ => headers.push((name.clone(), value)),
        }
    }
    let system = received.attributes.unwrap_or_default();
    let group = system.get(&MessageSystemAttributeName::MessageGroupId);
    let id = headers.iter().find(|(name, _)| name == "ce-id");
    // A message of ours without a key is a group by itself; of anybody else's the group is what keeps order.
    let alone = group.is_some_and(|group| {
        let of_id = id.and_then(|(_, id)| std::str::from_utf8(id).ok());
        of_id.is_some_and(|id| group::legal(id) == *group)
    });
    let message_id = received.message_id.unwrap_or_default();
    let raw = Raw {
        route: queue,
        key: group.filter(|_| !alone).map(|group| group.as_bytes()),
        headers: headers
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_slice()))
            .collect(),
        payload: body::decode(received.body.unwrap_or_default(), encoded),
        position_id: MessageId::from_position(BROKER, queue, &message_id),
    };
    wire::decode(raw, Style::Dash)
}

/// Names and values of the attribute that holds many.
fn unpack(value: &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
    let rest: Map<String, Value> = serde_json::from_slice(value).ok()?;
    let texts = rest.into_iter().map(|(name, value)| match value {
        Value::String(text) => Some((name, text.into_bytes())),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            None
        }
    });
    texts.collect()
}

/// The deduplication id of a message.
pub(crate) fn dedupe(outgoing: &Outgoing) -> String {
    group::legal(&outgoing.dedupe_id())
}

#[cfg(test)]
mod tests;

//! A delivery that is no message.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{MessageId, Source, Topic};

/// A delivery that could not be read as a message, kept whole for the dead letter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Undecodable {
    /// Why.
    pub reason: UndecodableReason,
    /// Its id, or that of its position.
    pub id: MessageId,
    /// Its source, where it has a readable one.
    pub source_name: Option<Source>,
    /// The broker's name of where it came from.
    pub topic: Topic,
    /// The key's bytes.
    pub key: Option<Bytes>,
    /// All headers as they came; bytes that are no UTF-8 are replaced.
    pub headers: BTreeMap<String, String>,
    /// The payload.
    pub payload: Bytes,
}

/// Why a delivery is no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UndecodableReason {
    /// A header's value is no UTF-8.
    #[error("the value of header {0:?} is not valid UTF-8")]
    HeaderNotUtf8(String),
    /// The key is no UTF-8.
    #[error("the key is not valid UTF-8")]
    KeyNotUtf8,
    /// The id is empty or longer than 1,024 bytes.
    #[error("the id has {0} bytes; 1 to 1024 are allowed")]
    IdLength(usize),
}

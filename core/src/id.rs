//! The identity of a message, which decides what is a duplicate.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

/// What a message is told apart by, everywhere.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum MessageId {
    /// A uuid. Onceward's own are of version 7.
    Uuid(Uuid),
    /// Any other text that a foreign producer chose; unique per source only.
    Foreign(Arc<str>),
    /// The message came without an id: this one stands for its position at the broker. It drops
    /// redeliveries but not a second publication.
    Position(Uuid),
}

impl MessageId {
    /// A new uuid of version 7: ordered by time, unique without coordination.
    #[must_use]
    pub fn new() -> Self {
        Self::Uuid(Uuid::now_v7())
    }

    /// The id in a header of a message on the wire.
    #[must_use]
    pub fn received(text: &str) -> Self {
        Uuid::try_parse(text).map_or_else(|_| Self::Foreign(text.into()), Self::Uuid)
    }

    /// The id of a message that came without one: the same position gives the same id.
    #[must_use]
    pub fn from_position(broker: &str, partition: &str, position: &str) -> Self {
        let name = format!("{broker}\0{partition}\0{position}");
        Self::Position(Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()))
    }

    /// The uuid, unless the id is a foreign text.
    #[must_use]
    pub fn as_uuid(&self) -> Option<Uuid> {
        match self {
            Self::Uuid(id) | Self::Position(id) => Some(*id),
            Self::Foreign(_) => None,
        }
    }
}

impl Default for MessageId {
    fn default() -> Self {
        Self::new()
    }
}

impl From<Uuid> for MessageId {
    fn from(id: Uuid) -> Self {
        Self::Uuid(id)
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uuid(id) | Self::Position(id) => id.fmt(f),
            Self::Foreign(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_on_the_wire_is_a_uuid_and_anything_else_is_foreign() {
        let id = MessageId::new();

        assert_eq!(MessageId::received(&id.to_string()), id);
        assert_eq!(
            MessageId::received("order 17"),
            MessageId::Foreign("order 17".into())
        );
    }

    #[test]
    fn one_position_has_one_id() {
        let a = MessageId::from_position("kafka", "orders/0", "17");

        assert_eq!(a, MessageId::from_position("kafka", "orders/0", "17"));
        assert_ne!(a, MessageId::from_position("kafka", "orders/0", "18"));
        assert_ne!(a, MessageId::from_position("kafka", "orders/1", "17"));
    }
}

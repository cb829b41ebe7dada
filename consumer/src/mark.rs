//! The mark's key and digest: what decides whether a delivery was settled before. Pure.

use onceward_core::{Message, MessageId, Source, Undecodable};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// What a delivery is marked by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The key, unique with the consumer's name.
    pub(crate) id: Uuid,
    /// Of type and payload: the same id with another digest is another message. None: it is not known.
    pub(crate) digest: Option<[u8; 16]>,
}

/// Slots of the ring of marks, a day each.
const SLOTS: u128 = 12;
const DAY_MS: u128 = 86_400_000;

impl Mark {
    pub(crate) fn of(message: &Message) -> Self {
        Self {
            id: Self::id_of(message),
            digest: Some(digest(message.kind.as_str(), &message.payload)),
        }
    }

    /// The key alone.
    pub(crate) fn id_of(message: &Message) -> Uuid {
        // Ours carries its number in the log. Anybody else's id is unique per source only, even if it is a uuid.
        let ours = message.seq.is_some();
        key(&message.id, message.source.as_ref(), ours)
    }

    pub(crate) fn of_undecodable(delivery: &Undecodable) -> Self {
        Self {
            id: key(&delivery.id, delivery.source_name.as_ref(), false),
            digest: Some(digest("", &delivery.payload)),
        }
    }

    /// Where in the ring of marks it lies.
    pub(crate) fn slot(&self) -> i16 {
        slot_of(self.id)
    }

    /// What a delivery is settled by whose mark is there with another digest: the same for each copy of it.
    pub(crate) fn of_conflict(&self) -> Self {
        Self {
            id: Uuid::new_v5(&self.id, &self.digest.unwrap_or_default()),
            digest: self.digest,
        }
    }

    /// Whether the digest beside a mark is that of another message. One that is not known is not.
    pub(crate) fn conflicts_with(&self, stored: Option<&[u8]>) -> bool {
        match (&self.digest, stored) {
            (Some(ours), Some(stored)) => ours[..] != *stored,
            (None, _) | (_, None) => false,
        }
    }
}

/// As the schema's function `mark_slot`, which the server need not call then: the day of a uuid of version 7; any other is spread by its
/// last four bytes. The schema's version says how many slots there are.
pub(crate) fn slot_of(id: Uuid) -> i16 {
    let bits = id.as_u128();
    let is_version_7 = (bits >> 76) & 0xf == 7 && (bits >> 62) & 0b11 == 0b10;
    let spread = if is_version_7 {
        (bits >> 80) / DAY_MS
    } else {
        bits & 0xffff_ffff
    };
    // Below `SLOTS`, and so a byte.
    let [slot, ..] = (spread % SLOTS).to_le_bytes();
    i16::from(slot)
}

fn key(id: &MessageId, source: Option<&Source>, ours: bool) -> Uuid {
    match id {
        MessageId::Position(id) => *id,
        MessageId::Uuid(id) if ours => *id,
        MessageId::Uuid(_) | MessageId::Foreign(_) => {
            let source = source.map_or("", Source::as_str);
            let name = format!("{source}\0{id}");
            Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes())
        }
    }
}

fn digest(kind: &str, payload: &[u8]) -> [u8; 16] {
    let length = u64::try_from(kind.len()).unwrap_or(u64::MAX);
    let hash = Sha256::new()
        .chain_update(length.to_be_bytes())
        .chain_update(kind)
        .chain_update(payload)
        .finalize();
    let mut short = [0; 16];
    short.copy_from_slice(&hash[..16]);
    short
}

#[cfg(test)]
mod tests {
    use onceward_core::MAX_PAYLOAD;

    use super::*;

    fn message(id: MessageId, source: Option<&str>, seq: Option<i64>) -> Message {
        let draft = Message::bytes("orders", "payload");
        let mut message = draft.finish(MAX_PAYLOAD).unwrap().message;
        message.id = id;
        message.source = source.map(Source::received);
        message.seq = seq;
        message
    }

    #[test]
    fn our_own_message_is_marked_by_its_own_id() {
        let id = Uuid::now_v7();

        let mark = Mark::of(&message(MessageId::Uuid(id), Some("/shop"), Some(7)));

        assert_eq!(mark.id, id);
    }

    #[test]
    fn two_sources_with_one_id_are_two_messages() {
        for id in [
            MessageId::received("1"),
            MessageId::received("018f4e3a-5b6c-7d8e-9f00-112233445566"),
        ] {
            let a = Mark::of(&message(id.clone(), Some("/a"), None));
            let b = Mark::of(&message(id.clone(), Some("/b"), None));
            let none = Mark::of(&message(id.clone(), None, None));

            assert_ne!(a.id, b.id);
            assert_ne!(a.id, none.id);
            assert_eq!(a, Mark::of(&message(id, Some("/a"), None)));
        }
    }

    #[test]
    fn a_message_without_an_id_is_marked_by_its_position() {
        let id = MessageId::from_position("kafka", "orders/0", "17");

        let mark = Mark::of(&message(id.clone(), Some("/a"), None));

        assert_eq!(Some(mark.id), id.as_uuid());
    }

    #[test]
    fn the_same_id_with_another_payload_is_another_message() {
        let id = MessageId::Uuid(Uuid::now_v7());
        let first = message(id.clone(), Some("/shop"), Some(7));
        let mut second = first.clone();
        second.payload = bytes::Bytes::from_static(b"other");
        let (first, second) = (Mark::of(&first), Mark::of(&second));

        assert_eq!(first.id, second.id);
        assert!(second.conflicts_with(first.digest.as_ref().map(|digest| &digest[..])));
        assert!(!second.conflicts_with(None));
        assert_ne!(second.of_conflict().id, second.id);
        assert_ne!(second.of_conflict().id, first.of_conflict().id);
    }

    #[test]
    fn type_and_payload_make_the_digest_and_cannot_be_mistaken_for_one_another() {
        assert_ne!(digest("a", b"b"), digest("ab", b""));
        assert_ne!(digest("a", b"b"), digest("a", b"c"));
        assert_eq!(digest("a", b"b"), digest("a", b"b"));
    }
}

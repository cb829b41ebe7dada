//! A line: the messages that wait for one another in the database, those of one topic and key. Pure.

use onceward_core::Message;
use uuid::Uuid;

/// The line of a message, for keys of any length. A message without a key is a line of its own, known by its mark:
/// nobody waits behind it.
pub(crate) fn line(topic: &str, key: Option<&str>, mark: Uuid) -> Uuid {
    match key {
        Some(key) => Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{topic}\0{key}").as_bytes()),
        None => mark,
    }
}

pub(crate) fn line_of(message: &Message, mark: Uuid) -> Uuid {
    let key = message.key.as_ref().map(onceward_core::Key::as_str);
    line(message.topic.as_str(), key, mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_and_key_make_the_line_and_messages_without_a_key_have_one_each() {
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));

        assert_eq!(line("t", Some("k"), a), line("t", Some("k"), b));
        assert_ne!(line("t", Some("k"), a), line("u", Some("k"), a));
        assert_ne!(line("t", Some("k"), a), line("t", Some("l"), a));
        assert_ne!(line("t", None, a), line("t", None, b));
    }
}

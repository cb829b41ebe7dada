//! Ids as SQS takes them for groups and for deduplication: 1 to 128 printable ASCII characters without spaces. Pure.

use std::fmt::Write as _;

use onceward_core::Outgoing;
use sha2::{Digest as _, Sha256};

const LONGEST: usize = 128;

/// What a message keeps order with in a FIFO queue: its key; without one itself alone.
pub(crate) fn group(outgoing: &Outgoing) -> String {
    match &outgoing.message.key {
        Some(key) => legal(key.as_str()),
        None => legal(&outgoing.message.id.to_string()),
    }
}

/// A text as it is if SQS takes it, else `sha256:` and its digest in hexadecimal: the same text gives the same id.
pub(super) fn legal(text: &str) -> String {
    let fits = (1..=LONGEST).contains(&text.len());
    if fits && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return text.to_owned();
    }
    let mut id = "sha256:".to_owned();
    for byte in Sha256::digest(text.as_bytes()) {
        // Writing to a text does not fail.
        write!(id, "{byte:02x}").ok();
    }
    id
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_legal_key_is_its_own_group_and_another_one_a_digest() {
        for legal_key in ["order-17", "a:b/c{}~!\"", &"k".repeat(128)] {
            assert_eq!(legal(legal_key), legal_key);
        }
        for key in ["two words", "ä", &"k".repeat(129)] {
            let group = legal(key);

            assert_eq!((group.len(), &group[..7]), (71, "sha256:"), "{key}");
            assert_eq!(group, legal(key));
        }
        assert_ne!(legal("ä"), legal("ö"));
        // As any other program computes it.
        assert_eq!(legal("two words"), format!("sha256:{TWO_WORDS}"));
    }

    const TWO_WORDS: &str = "a03f1d611645eb53ad16c1af546ca0792dc884505bab57ede80f4dad6b911d3a";

    proptest! {
        #[test]
        fn every_text_becomes_a_legal_id(text in ".{1,300}") {
            let id = legal(&text);

            prop_assert!((1..=LONGEST).contains(&id.len()));
            prop_assert!(id.bytes().all(|byte| byte.is_ascii_graphic()));
        }
    }
}

//! The payload as a body: SQS takes text of the characters of XML 1.0, and no empty one. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

/// The payload as it is, or in base64 where it cannot be a body; and whether that is so.
pub(super) fn encode(payload: &[u8]) -> (String, bool) {
    match std::str::from_utf8(payload) {
        Ok(text) if !text.is_empty() && is_legal(text) => (text.to_owned(), false),
        Ok(_) | Err(_) => (alone(STANDARD.encode(payload)), true),
    }
}

/// Of an empty payload nothing is left to send, and that SQS refuses too: a line break stands for it.
fn alone(encoded: String) -> String {
    if encoded.is_empty() {
        "\n".to_owned()
    } else {
        encoded
    }
}

/// The payload of a body. One that says it is base64 and is not comes as it is.
pub(super) fn decode(body: String, encoded: bool) -> Bytes {
    if encoded && let Ok(payload) = STANDARD.decode(body.trim_ascii()) {
        return payload.into();
    }
    body.into()
}

/// Whether SQS takes all characters of a text.
pub(super) fn is_legal(text: &str) -> bool {
    text.chars().all(is_legal_character)
}

fn is_legal_character(character: char) -> bool {
    matches!(character,
        '\t' | '\n' | '\r' | '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..='\u{10ffff}')
}

/// JSON in which the characters that SQS refuses are escaped. The writer escapes all of them but two.
pub(super) fn escape(json: &str) -> String {
    json.replace('\u{fffe}', "\\ufffe")
        .replace('\u{ffff}', "\\uffff")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn legal_text_goes_as_it_is_and_anything_else_as_base64() {
        for (payload, encoded) in [
            (&b"{\"a\": 1}"[..], false),
            ("ä\u{1f600}\t\r\n".as_bytes(), false),
            (b"", true),
            (b"nul\0", true),
            (b"\xff\xfe", true),
            ("\u{ffff}".as_bytes(), true),
            (b"\x1b[0m", true),
        ] {
            let (body, is_encoded) = encode(payload);

            assert_eq!(is_encoded, encoded, "{payload:?}");
            assert!(!body.is_empty() && is_legal(&body), "{payload:?}");
            assert_eq!(decode(body, is_encoded), payload);
        }
    }

    #[test]
    fn a_body_that_only_says_it_is_base64_comes_as_it_is() {
        assert_eq!(&decode("not base64!".to_owned(), true)[..], b"not base64!");
    }

    proptest! {
        #[test]
        fn every_payload_comes_back(payload in prop::collection::vec(any::<u8>(), 0..200)) {
            let (body, encoded) = encode(&payload);

            prop_assert!(is_legal(&body) && !body.is_empty());
            prop_assert_eq!(decode(body, encoded), payload);
        }
    }
}

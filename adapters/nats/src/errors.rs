//! What NATS answers, as kinds of errors. Pure. What is not known is `Unavailable`.

use async_nats::jetstream::ErrorCode;
use async_nats::{Message, StatusCode};
use onceward_core::{ErrorKind, PublishError};
use serde::Deserialize;

/// The server's answer to a publish.
#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(default)]
    error: Option<Refusal>,
    /// The stream that has the message.
    #[serde(default)]
    stream: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// Reads the answer to a publish. One that says "duplicate" is a confirmation: the stream has the message.
pub(crate) fn answer(message: &Message) -> Result<(), PublishError> {
    if message.status == Some(StatusCode::NO_RESPONDERS) {
        return Err(PublishError::new(
            ErrorKind::UnknownTopic,
            "no stream takes this subject now",
        ));
    }
    let answer: Answer = serde_json::from_slice(&message.payload).map_err(|error| {
        PublishError::with_source(
            ErrorKind::Unavailable,
            "NATS answered something unreadable",
            error,
        )
    })?;
    match (answer.error, answer.stream) {
        (Some(refusal), _) => Err(PublishError::new(
            kind(ErrorCode(refusal.err_code), &refusal.description),
            format!(
                "NATS refuses: {} ({})",
                refusal.description, refusal.err_code
            ),
        )),
        (None, Some(_)) => Ok(()),
        (None, None) => Err(PublishError::new(
            ErrorKind::Unavailable,
            "something that is no stream answered on this subject",
        )),
    }
}

/// The kind of a JetStream error.
pub(crate) fn kind(code: ErrorCode, description: &str) -> ErrorKind {
    match code {
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM => {
            ErrorKind::TooLarge
        }
        ErrorCode::STREAM_STORE_FAILED if description.contains("maximum") => ErrorKind::Throttled,
        ErrorCode::INSUFFICIENT_RESOURCES
        | ErrorCode::STORAGE_RESOURCES_EXCEEDED
        | ErrorCode::MEMORY_RESOURCES_EXCEEDED
        | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
        | ErrorCode::STREAM_TOO_MANY_REQUESTS => ErrorKind::Throttled,
        ErrorCode::STREAM_NOT_FOUND => ErrorKind::UnknownTopic,
        ErrorCode::STREAM_SEALED => ErrorKind::Unauthorized,
        _ => ErrorKind::Unavailable,
    }
}

/// The subject that we may not publish to, if that is what the server told.
pub(crate) fn forbidden_subject(told: &str) -> Option<&str> {
    let text = told.trim_matches('\'');
    let rest = text.strip_prefix("Permissions Violation for Publish to ")?;
    Some(rest.trim_matches('"'))
}

/// Whether the server told that we may not do something that everything depends on.
pub(crate) fn forbids_all(told: &str) -> bool {
    let text = told.trim_matches('\'').to_ascii_lowercase();
    text.starts_with("permissions violation for subscription")
        || text.starts_with("authorization violation")
        || text.starts_with("user authentication expired")
        || text.starts_with("user authentication revoked")
        || text.starts_with("account authentication expired")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(status: Option<StatusCode>, payload: &str) -> Message {
        Message {
            subject: "inbox".into(),
            reply: None,
            payload: payload.to_owned().into(),
            headers: None,
            status,
            description: None,
            length: 0,
        }
    }

    fn refused(code: u64, description: &str) -> ErrorKind {
        let text = format!(
            r#"{{"error":{{"code":400,"err_code":{code},"description":"{description}"}},"stream":"s","seq":0}}"#
        );
        answer(&said(None, &text)).unwrap_err().kind
    }

    #[test]
    fn a_stored_message_and_a_duplicate_are_confirmed() {
        for text in [
            r#"{"stream":"s","seq":7}"#,
            r#"{"stream":"s","seq":7,"duplicate":true}"#,
        ] {
            assert!(answer(&said(None, text)).is_ok(), "{text}");
        }
    }

    #[test]
    fn refusals_are_told_apart_by_whose_fault_they_are() {
        for (code, description, kind) in [
            (
                10_054,
                "message size exceeds maximum allowed",
                ErrorKind::TooLarge,
            ),
            (10_077, "maximum messages exceeded", ErrorKind::Throttled),
            (10_077, "maximum bytes exceeded", ErrorKind::Throttled),
            (10_077, "disk is broken", ErrorKind::Unavailable),
            (10_023, "insufficient resources", ErrorKind::Throttled),
            (10_059, "stream not found", ErrorKind::UnknownTopic),
            (
                10_158,
                "duplicate message id is in process",
                ErrorKind::Unavailable,
            ),
            (
                10_109,
                "invalid operation on sealed stream",
                ErrorKind::Unauthorized,
            ),
            (99_999, "something new", ErrorKind::Unavailable),
        ] {
            assert_eq!(refused(code, description), kind, "{code} {description}");
        }
    }

    #[test]
    fn an_answer_that_is_not_a_streams_confirms_nothing() {
        for text in ["", "ok", "{}", "[]"] {
            let error = answer(&said(None, text)).unwrap_err();

            assert_eq!(error.kind, ErrorKind::Unavailable, "{text:?}");
        }
        let nobody = answer(&said(Some(StatusCode::NO_RESPONDERS), "")).unwrap_err();
        assert_eq!(nobody.kind, ErrorKind::UnknownTopic);
    }

    #[test]
    fn a_forbidden_subject_is_read_from_what_the_server_tells() {
        let told = r#"'Permissions Violation for Publish to "orders.created"'"#;

        assert_eq!(forbidden_subject(told), Some("orders.created"));
        assert_eq!(forbidden_subject("Slow Consumer"), None);
        assert!(forbids_all(
            "Permissions Violation for Subscription to \"_INBOX.x\""
        ));
        assert!(!forbids_all(told));
    }
}

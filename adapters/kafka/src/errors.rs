//! What Kafka's errors mean to us. One table; an error that stands in none of its rows is `Unavailable`.

use onceward_core::{ErrorKind, PublishError, SubscribeError, SubscribeErrorKind};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// Why a Kafka configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KafkaConfigError {
    /// No broker is given.
    #[error("no brokers are given; set host:port of one or more, separated by commas")]
    NoBrokers,
    /// A broker is given with a user, which Kafka does not read there.
    #[error(
        "a broker is host:port; a user and a password are the properties sasl.username and sasl.password"
    )]
    UserInBrokers,
    /// The deadline is zero.
    #[error("the deadline must be longer than zero")]
    NoDeadline,
    /// A property is not for teams to set.
    #[error("the property {name:?} cannot be set: {why}")]
    Refused {
        /// Its name.
        name: String,
        /// Why not.
        why: &'static str,
    },
    /// librdkafka knows no such property.
    #[error("librdkafka knows no property {0:?}")]
    Unknown(String),
    /// librdkafka does not take a value.
    #[error("the property {name:?} is not valid: {what}")]
    Invalid {
        /// Its name.
        name: String,
        /// What librdkafka says; never the value of a secret.
        what: String,
    },
    /// librdkafka does not take the properties together.
    #[error("librdkafka refuses the properties together: {0}")]
    Together(String),
    /// No consumer group is given.
    #[error("no consumer group is given")]
    NoGroup,
    /// No topics are given.
    #[error("no topics are given")]
    NoTopics,
    /// A topic to read has a name that Kafka does not allow.
    #[error("{0:?} is no Kafka topic; allowed are A-Z a-z 0-9 . _ -")]
    Topic(String),
}

const TOO_LARGE: [Code; 3] = [
    Code::MessageSizeTooLarge,
    Code::MessageBatchTooLarge,
    Code::InvalidMessageSize,
];

const REJECTED: [Code; 2] = [Code::InvalidRecord, Code::PolicyViolation];

const UNKNOWN_TOPIC: [Code; 4] = [
    Code::UnknownTopic,
    Code::UnknownPartition,
    Code::UnknownTopicOrPartition,
    Code::InvalidTopic,
];

const UNAUTHORIZED: [Code; 11] = [
    Code::Authentication,
    Code::SaslAuthenticationFailed,
    Code::UnsupportedSASLMechanism,
    Code::IllegalSASLState,
    Code::SecurityDisabled,
    Code::TopicAuthorizationFailed,
    Code::GroupAuthorizationFailed,
    Code::ClusterAuthorizationFailed,
    Code::TransactionalIdAuthorizationFailed,
    Code::DelegationTokenAuthorizationFailed,
    Code::DelegationTokenExpired,
];

/// What a topic says to every message of it for now, also where it is the relay's clock or the topic's format that must change: a record's
/// time stamp is the time of publishing, so no message is guilty of it.
const THROTTLED: [Code; 3] = [
    Code::ThrottlingQuotaExceeded,
    Code::InvalidTimestamp,
    Code::UnsupportedForMessageFormat,
];

/// Errors after which a member cannot go on as it is set up.
const MISCONFIGURED: [Code; 6] = [
    Code::InconsistentGroupProtocol,
    Code::InvalidGroupId,
    Code::InvalidSessionTimeout,
    Code::FencedInstanceId,
    Code::GroupMaxSizeReached,
    Code::UnsupportedVersion,
];

/// What a publisher's error means.
pub(crate) fn kind(code: Code) -> ErrorKind {
    let rows: [(&[Code], ErrorKind); 5] = [
        (&TOO_LARGE, ErrorKind::TooLarge),
        (&REJECTED, ErrorKind::Rejected),
        (&UNKNOWN_TOPIC, ErrorKind::UnknownTopic),
        (&UNAUTHORIZED, ErrorKind::Unauthorized),
        (&THROTTLED, ErrorKind::Throttled),
    ];
    let row = rows.iter().find(|(codes, _)| codes.contains(&code));
    row.map_or(ErrorKind::Unavailable, |(_, kind)| *kind)
}

/// Whether the error says that the session ended before the message got an answer.
pub(crate) fn is_unanswered(code: Code) -> bool {
    const UNANSWERED: [Code; 8] = [
        Code::PurgeQueue,
        Code::PurgeInflight,
        Code::Fatal,
        Code::GaplessGuarantee,
        Code::BrokerDestroy,
        Code::MessageTimedOut,
        Code::OutOfOrderSequenceNumber,
        Code::Inconsistent,
    ];
    UNANSWERED.contains(&code)
}

/// A publisher's error.
pub(crate) fn publish_error(what: impl Into<String>, error: KafkaError) -> PublishError {
    let kind = error
        .rdkafka_error_code()
        .map_or(ErrorKind::Unavailable, kind);
    PublishError::with_source(kind, what, error)
}

/// A subscriber's error.
pub(crate) fn subscribe_error(what: impl Into<String>, error: KafkaError) -> SubscribeError {
    let kind = match error.rdkafka_error_code() {
        Some(code) if UNAUTHORIZED.contains(&code) => SubscribeErrorKind::Unauthorized,
        Some(code) if MISCONFIGURED.contains(&code) => SubscribeErrorKind::Misconfigured,
        _ => SubscribeErrorKind::Unavailable,
    };
    SubscribeError::with_source(kind, what, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_is_not_known_blames_nobody() {
        for code in [Code::Unknown, Code::KafkaStorageError, Code::Fail] {
            assert_eq!(kind(code), ErrorKind::Unavailable, "{code:?}");
        }
    }

    #[test]
    fn each_fault_has_its_kind() {
        assert_eq!(kind(Code::MessageSizeTooLarge), ErrorKind::TooLarge);
        assert_eq!(kind(Code::InvalidRecord), ErrorKind::Rejected);
        assert_eq!(kind(Code::UnknownTopicOrPartition), ErrorKind::UnknownTopic);
        assert_eq!(
            kind(Code::TopicAuthorizationFailed),
            ErrorKind::Unauthorized
        );
        assert_eq!(kind(Code::ThrottlingQuotaExceeded), ErrorKind::Throttled);
    }

    #[test]
    fn no_message_is_guilty_of_the_relays_clock_or_of_the_format_of_its_topic() {
        for code in [Code::InvalidTimestamp, Code::UnsupportedForMessageFormat] {
            assert_eq!(kind(code), ErrorKind::Throttled, "{code:?}");
        }
    }

    #[test]
    fn what_was_purged_was_not_answered() {
        assert!(is_unanswered(Code::PurgeInflight));
        assert!(!is_unanswered(Code::MessageSizeTooLarge));
    }
}

//! Decides which messages a refusal is about. Pure: no clock, no I/O.

use onceward_core::{ErrorKind, Fault, Route};
use rdkafka::error::RDKafkaErrorCode as Code;

use crate::errors;

/// A report that says no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The message's number in its session.
    pub(super) number: usize,
    /// The topic and the partition whose request was refused.
    pub(super) partition: (Route, i32),
    /// What the broker, or librdkafka, says.
    pub(super) code: Code,
}

/// What a refusal says about one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    /// It is about this message.
    Itself(ErrorKind),
    /// It is about this message or another of the same request.
    Anyone(ErrorKind),
    /// It is not about this message.
    Nobody,
}

/// What `refusal` says about its message, given all refusals of the session, and whether the message was the only one of its
/// topic that had no report when the first of them came.
///
/// A broker names the guilty records of a request, and librdkafka passes it on if there are at least two: then the innocent get an
/// answer of their own, and any other answer names the guilty. With one guilty record librdkafka 2.12 blames all.
pub(super) fn blame(refusal: &Refusal, all: &[Refusal], alone: bool) -> Blame {
    if refusal.code == Code::InvalidDifferentRecord || errors::is_unanswered(refusal.code) {
        return Blame::Nobody;
    }
    let kind = errors::kind(refusal.code);
    // Sizes are judged for a request as a whole, so that a broker never names a record for its size.
    let named = refusal.code == Code::InvalidRecord
        && all.iter().any(|other| {
            other.partition == refusal.partition && other.code == Code::InvalidDifferentRecord
        });
    match kind.fault() {
        // Every message of the topic would get this answer.
        Fault::Topic => Blame::Itself(kind),
        Fault::Message | Fault::Destination if alone || named => Blame::Itself(kind),
        Fault::Message | Fault::Destination => Blame::Anyone(kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(number: usize, code: Code) -> Refusal {
        Refusal {
            number,
            partition: (Route::new("orders"), 0),
            code,
        }
    }

    #[test]
    fn a_request_of_several_blames_anyone() {
        let all = [4, 5, 6].map(|n| refusal(n, Code::MessageSizeTooLarge));

        for one in &all {
            assert_eq!(blame(one, &all, false), Blame::Anyone(ErrorKind::TooLarge));
        }
    }

    #[test]
    fn a_request_of_one_blames_it() {
        let all = [refusal(4, Code::MessageSizeTooLarge)];

        assert_eq!(
            blame(&all[0], &all, true),
            Blame::Itself(ErrorKind::TooLarge)
        );
    }

    #[test]
    fn a_broker_that_names_the_guilty_spares_the_others() {
        let all = [
            refusal(4, Code::InvalidDifferentRecord),
            refusal(5, Code::InvalidRecord),
            refusal(6, Code::InvalidDifferentRecord),
        ];

        assert_eq!(blame(&all[0], &all, false), Blame::Nobody);
        assert_eq!(
            blame(&all[1], &all, false),
            Blame::Itself(ErrorKind::Rejected)
        );
        assert_eq!(blame(&all[2], &all, false), Blame::Nobody);
    }

    #[test]
    fn names_in_one_partition_say_nothing_about_another() {
        let all = [
            refusal(4, Code::InvalidDifferentRecord),
            Refusal {
                partition: (Route::new("orders"), 1),
                ..refusal(5, Code::InvalidRecord)
            },
        ];

        assert_eq!(
            blame(&all[1], &all, false),
            Blame::Anyone(ErrorKind::Rejected)
        );
    }

    #[test]
    fn a_request_refused_for_its_size_blames_anyone_even_beside_one_with_names() {
        let all = [
            refusal(4, Code::InvalidDifferentRecord),
            refusal(5, Code::InvalidRecord),
            refusal(6, Code::MessageSizeTooLarge),
        ];

        assert_eq!(
            blame(&all[2], &all, false),
            Blame::Anyone(ErrorKind::TooLarge)
        );
    }

    #[test]
    fn what_ended_with_its_session_blames_nobody() {
        for code in [Code::PurgeQueue, Code::PurgeInflight, Code::Fatal] {
            let all = [refusal(4, code)];

            assert_eq!(blame(&all[0], &all, true), Blame::Nobody, "{code:?}");
        }
    }

    #[test]
    fn a_missing_topic_is_the_same_for_all_its_messages() {
        let all = [4, 5].map(|n| refusal(n, Code::UnknownTopic));

        assert_eq!(
            blame(&all[0], &all, false),
            Blame::Itself(ErrorKind::UnknownTopic)
        );
    }
}

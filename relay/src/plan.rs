//! Decides what becomes of a message after a publish attempt. Pure: no clock, no I/O.

use onceward_core::{Chain, ErrorKind, Fault, Outcome, PublishError};

/// What becomes of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The broker has it: its place in the log may be passed.
    Done,
    /// Nothing is known or nothing was wrong with it: offer it again in the next session.
    Again,
    /// It was refused in company: offer it again alone, to learn whether it is guilty.
    Search,
    /// It is refused for itself: set it aside before any follower of its key is offered.
    Park(Refusal),
    /// Its topic cannot be published to now: offer it again once that has changed.
    PauseTopic(Refusal),
    /// The destination cannot be published to now.
    PauseDestination(Refusal),
}

/// Why something was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// What is decided by.
    pub(crate) kind: ErrorKind,
    /// What people read.
    pub(crate) what: String,
}

impl From<&PublishError> for Refusal {
    fn from(error: &PublishError) -> Self {
        Self {
            kind: error.kind,
            what: chain(error),
        }
    }
}

/// What becomes of a message with this outcome. What a check of the destination says is judged by the same fault.
#[must_use]
pub(crate) fn fate(outcome: &Outcome) -> Fate {
    let (error, alone) = match outcome {
        Outcome::Confirmed => return Fate::Done,
        Outcome::Unconfirmed => return Fate::Again,
        Outcome::Failed(error) => (error, true),
        Outcome::Suspect(error) => (error, false),
    };
    let refusal = Refusal::from(error);
    match (error.kind.fault(), alone) {
        (Fault::Destination, _) => Fate::PauseDestination(refusal),
        (Fault::Topic, _) => Fate::PauseTopic(refusal),
        (Fault::Message, true) => Fate::Park(refusal),
        (Fault::Message, false) => Fate::Search,
    }
}

/// An error and what lies behind it, in one line.
#[must_use]
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    Chain(error).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [ErrorKind; 6] = [
        ErrorKind::Unavailable,
        ErrorKind::Throttled,
        ErrorKind::Unauthorized,
        ErrorKind::UnknownTopic,
        ErrorKind::TooLarge,
        ErrorKind::Rejected,
    ];

    fn error(kind: ErrorKind) -> PublishError {
        PublishError::new(kind, "no")
    }

    #[test]
    fn only_a_message_that_was_refused_alone_for_itself_is_parked() {
        for kind in KINDS {
            let alone = fate(&Outcome::Failed(error(kind)));
            let together = fate(&Outcome::Suspect(error(kind)));

            let guilty = matches!(kind, ErrorKind::TooLarge | ErrorKind::Rejected);
            assert_eq!(matches!(alone, Fate::Park(_)), guilty, "{kind:?}");
            assert!(!matches!(together, Fate::Park(_)), "{kind:?}");
        }
    }

    #[test]
    fn a_message_refused_in_company_for_itself_is_searched() {
        assert_eq!(
            fate(&Outcome::Suspect(error(ErrorKind::TooLarge))),
            Fate::Search
        );
    }

    #[test]
    fn the_destinations_own_trouble_pauses_and_parks_nothing() {
        let fate_of = |kind| fate(&Outcome::Failed(error(kind)));
        assert!(matches!(
            fate_of(ErrorKind::Unavailable),
            Fate::PauseDestination(_)
        ));
        for kind in [
            ErrorKind::Throttled,
            ErrorKind::Unauthorized,
            ErrorKind::UnknownTopic,
        ] {
            let fate = fate(&Outcome::Failed(error(kind)));

            assert!(matches!(fate, Fate::PauseTopic(_)), "{kind:?}");
        }
    }

    #[test]
    fn what_is_not_known_is_offered_again() {
        assert_eq!(fate(&Outcome::Unconfirmed), Fate::Again);
        assert_eq!(fate(&Outcome::Confirmed), Fate::Done);
    }
}

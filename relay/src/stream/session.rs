//! Decides what a stream does with its session next. Pure: no clock, no I/O.

/// What a stream knows about its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    /// Where the session stands.
    pub(super) stage: Stage,
    /// Offers whose receipts have not come.
    pub(super) pending: usize,
    /// The session must end: something was not confirmed.
    pub(super) ending: Option<Ending>,
    /// Messages that must be parked before anything more is offered.
    pub(super) parks: bool,
    /// The stream is stopping.
    pub(super) draining: bool,
    /// The destination is not paused, or its time has come.
    pub(super) destination_due: bool,
    /// The destination is paused and has not been asked since.
    pub(super) destination_unchecked: bool,
    /// A paused topic's time has come.
    pub(super) topic_due: bool,
    /// Somebody asked for a parked message to be published again.
    pub(super) replay: bool,
    /// The message on offer is a replay.
    pub(super) replaying: bool,
    /// Some message may be guilty.
    pub(super) searching: bool,
    /// There is something to publish, or to ask the destination about.
    pub(super) wanted: bool,
}

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// There is none.
    Closed,
    /// It can be used.
    Ready,
    /// It is being opened, used or ended.
    Busy,
}

/// Why a session must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Something was not confirmed; what else is on its way may still arrive.
    Gently,
    /// The session itself is over: nothing more will come of it.
    AtOnce,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing now.
    Wait,
    /// Open a session.
    Open,
    /// End the session.
    End,
    /// Ask about the paused destination.
    CheckDestination,
    /// Ask about paused topics.
    CheckTopics,
    /// Publish a parked message again, alone.
    OfferReplay,
    /// Offer one message alone, to find a guilty one; if none may go, what others there are.
    OfferSuspect,
    /// Offer what waits.
    Offer,
}

/// What to do with the session next.
pub(super) fn next(facts: &Facts) -> Next {
    match facts.stage {
        Stage::Busy => Next::Wait,
        Stage::Closed => closed(facts),
        Stage::Ready => ready(facts),
    }
}

/// A new session starts at the oldest unconfirmed message: only when all receipts of the one before are in, and
/// only when what is to be parked is parked.
fn closed(facts: &Facts) -> Next {
    let settled = facts.pending == 0 && !facts.parks;
    if settled && facts.destination_due && facts.wanted && !facts.draining {
        Next::Open
    } else {
        Next::Wait
    }
}

fn ready(facts: &Facts) -> Next {
    match facts.ending {
        Some(Ending::AtOnce) => return Next::End,
        Some(Ending::Gently) if facts.pending == 0 => return Next::End,
        Some(Ending::Gently) => return Next::Wait,
        None => {}
    }
    if facts.draining {
        return if facts.pending == 0 {
            Next::End
        } else {
            Next::Wait
        };
    }
    if facts.parks || facts.replaying {
        return Next::Wait;
    }
    if facts.destination_unchecked {
        return if facts.destination_due {
            Next::CheckDestination
        } else {
            Next::Wait
        };
    }
    if facts.topic_due {
        return Next::CheckTopics;
    }
    // A replay and a search want the session for themselves.
    let alone = facts.pending == 0;
    match (facts.searching, facts.replay) {
        (true, _) if alone => Next::OfferSuspect,
        (false, true) if alone => Next::OfferReplay,
        (true, _) | (_, true) => Next::Wait,
        (false, false) => Next::Offer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: Facts = Facts {
        stage: Stage::Ready,
        pending: 0,
        ending: None,
        parks: false,
        draining: false,
        destination_due: true,
        destination_unchecked: false,
        topic_due: false,
        replay: false,
        replaying: false,
        searching: false,
        wanted: true,
    };

    #[test]
    fn a_new_session_waits_for_the_receipts_and_the_parking_of_the_old_one() {
        let closed = Facts {
            stage: Stage::Closed,
            ..READY
        };

        assert_eq!(next(&closed), Next::Open);
        assert_eq!(
            next(&Facts {
                pending: 1,
                ..closed
            }),
            Next::Wait
        );
        assert_eq!(
            next(&Facts {
                parks: true,
                ..closed
            }),
            Next::Wait
        );
    }

    #[test]
    fn a_session_that_is_over_ends_at_once_and_a_failed_one_once_its_receipts_are_in() {
        let over = Facts {
            ending: Some(Ending::AtOnce),
            pending: 3,
            ..READY
        };
        let failed = Facts {
            ending: Some(Ending::Gently),
            ..over
        };

        assert_eq!(next(&over), Next::End);
        assert_eq!(next(&failed), Next::Wait);
        assert_eq!(
            next(&Facts {
                pending: 0,
                ..failed
            }),
            Next::End
        );
    }

    #[test]
    fn nothing_is_offered_while_something_is_to_be_parked() {
        assert_eq!(
            next(&Facts {
                parks: true,
                ..READY
            }),
            Next::Wait
        );
        assert_eq!(next(&READY), Next::Offer);
    }

    #[test]
    fn searches_and_replays_have_the_session_for_themselves() {
        let search = Facts {
            searching: true,
            ..READY
        };
        let replay = Facts {
            replay: true,
            ..READY
        };

        assert_eq!(next(&search), Next::OfferSuspect);
        assert_eq!(
            next(&Facts {
                pending: 1,
                ..search
            }),
            Next::Wait
        );
        assert_eq!(next(&replay), Next::OfferReplay);
        assert_eq!(
            next(&Facts {
                pending: 1,
                ..replay
            }),
            Next::Wait
        );
    }

    #[test]
    fn a_paused_destination_is_asked_before_anything_is_offered() {
        let paused = Facts {
            destination_unchecked: true,
            ..READY
        };

        assert_eq!(next(&paused), Next::CheckDestination);
        let early = Facts {
            destination_due: false,
            ..paused
        };
        assert_eq!(next(&early), Next::Wait);
    }

    #[test]
    fn a_stopping_stream_opens_nothing_and_ends_when_its_receipts_are_in() {
        let draining = Facts {
            draining: true,
            ..READY
        };

        assert_eq!(next(&draining), Next::End);
        assert_eq!(
            next(&Facts {
                pending: 1,
                ..draining
            }),
            Next::Wait
        );
        let closed = Facts {
            stage: Stage::Closed,
            ..draining
        };
        assert_eq!(next(&closed), Next::Wait);
    }
}

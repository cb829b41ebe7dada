//! Decides what is written under the lease next. Pure: no clock, no I/O.

use std::time::Instant;

/// What a stream knows about what it has to store.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    /// The time.
    pub(super) now: Instant,
    /// Messages wait to be parked.
    pub(super) to_park: bool,
    /// A replay ended and its row waits to be told so.
    pub(super) replayed: bool,
    /// Topics that have been paused for long wait for a detour.
    pub(super) to_open: bool,
    /// Detours have come to where their parents stand.
    pub(super) to_close: bool,
    /// Some key is held: then what it waits for is looked at.
    pub(super) waiting_at: Option<Instant>,
    /// Cursors or notes wait to be stored.
    pub(super) to_store: bool,
    /// Not before this are cursors stored again: a hot row is slow while an old snapshot is held.
    pub(super) store_at: Instant,
    /// What is paused differs from what is stored about it.
    pub(super) paused: bool,
    /// Then the parked rows that nobody needs any more are removed.
    pub(super) sweep_at: Instant,
    /// By then the lease is renewed.
    pub(super) renew_at: Instant,
    /// Then the rows that became due are loaded.
    pub(super) replays_at: Instant,
    /// How a stop stands.
    pub(super) stop: Stop,
}

/// When what is written from time to time is due.
#[derive(Debug, Clone, Copy)]
pub(super) struct Due {
    pub(super) store: Instant,
    pub(super) renew: Instant,
    pub(super) replays: Instant,
    pub(super) sweep: Instant,
    /// Looking which held keys still wait.
    pub(super) waiting: Instant,
}

impl Due {
    pub(super) const fn all_at(now: Instant) -> Self {
        Self {
            store: now,
            renew: now,
            replays: now,
            sweep: now,
            waiting: now,
        }
    }
}

/// How a stop stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// Nobody asked for one.
    No,
    /// Something is still in flight.
    Draining,
    /// All that was in flight is done or given up.
    Drained,
}

/// What to write next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing now.
    Wait,
    /// Set messages aside: before any follower of their keys is offered.
    Park,
    /// Tell the row of a replay how it ended.
    Replayed,
    /// Give topics a detour: only then may their stream pass them.
    OpenDetours,
    /// Let the main cursors read again what detours have read.
    CloseDetours,
    /// Look which held keys still wait for a decision.
    LoadWaiting,
    /// Store cursors and notes.
    Checkpoint,
    /// Renew the lease.
    Renew,
    /// Tell what is paused.
    StorePaused,
    /// Remove parked rows that nobody needs any more.
    Sweep,
    /// Load rows that became due.
    LoadReplays,
    /// Give the lease back.
    Release,
}

/// What to write next, while nothing is being written.
pub(super) fn next(facts: &Facts) -> Next {
    let stopping = facts.stop != Stop::No;
    if facts.to_park {
        Next::Park
    } else if facts.replayed {
        Next::Replayed
    } else if facts.to_open && !stopping {
        Next::OpenDetours
    } else if facts.to_store && (facts.store_at <= facts.now || facts.stop == Stop::Drained) {
        Next::Checkpoint
    } else if facts.stop == Stop::Drained {
        Next::Release
    } else if facts.renew_at <= facts.now {
        Next::Renew
    } else if facts.to_close && !stopping {
        Next::CloseDetours
    } else if facts.paused {
        Next::StorePaused
    } else if facts.waiting_at.is_some_and(|at| at <= facts.now) && !stopping {
        Next::LoadWaiting
    } else if facts.replays_at <= facts.now && !stopping {
        Next::LoadReplays
    } else if facts.sweep_at <= facts.now && !stopping {
        Next::Sweep
    } else {
        Next::Wait
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn idle() -> Facts {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        Facts {
            now,
            to_park: false,
            replayed: false,
            to_open: false,
            to_close: false,
            waiting_at: None,
            to_store: false,
            store_at: later,
            paused: false,
            sweep_at: later,
            renew_at: later,
            replays_at: later,
            stop: Stop::No,
        }
    }

    #[test]
    fn parking_comes_before_everything_else() {
        let facts = idle();
        let busy = Facts {
            to_park: true,
            to_store: true,
            store_at: facts.now,
            renew_at: facts.now,
            ..facts
        };

        assert_eq!(next(&busy), Next::Park);
        assert_eq!(next(&facts), Next::Wait);
    }

    #[test]
    fn a_detour_is_opened_before_the_stream_passes_its_topic() {
        let facts = Facts {
            to_open: true,
            to_close: true,
            to_store: true,
            store_at: idle().now,
            ..idle()
        };

        assert_eq!(next(&facts), Next::OpenDetours);
        let stopping = Facts {
            stop: Stop::Draining,
            ..facts
        };
        assert_eq!(next(&stopping), Next::Checkpoint);
    }

    #[test]
    fn checkpoints_keep_their_distance_until_the_stream_stops() {
        let facts = Facts {
            to_store: true,
            ..idle()
        };

        assert_eq!(next(&facts), Next::Wait);
        let due = Facts {
            store_at: facts.now,
            ..facts
        };
        assert_eq!(next(&due), Next::Checkpoint);
        let drained = Facts {
            stop: Stop::Drained,
            ..facts
        };
        assert_eq!(next(&drained), Next::Checkpoint);
    }

    #[test]
    fn the_lease_is_given_back_last() {
        let drained = Facts {
            stop: Stop::Drained,
            ..idle()
        };

        assert_eq!(next(&drained), Next::Release);
        let draining = Facts {
            stop: Stop::Draining,
            renew_at: drained.now,
            ..drained
        };
        assert_eq!(next(&draining), Next::Renew);
    }
}

//! Planted bugs and failpoints, to show that the tests would find them. Only with the feature `faults`, which no release has.

#![cfg_attr(
    not(feature = "faults"),
    expect(unreachable_pub, dead_code, reason = "public with the feature only")
)]

/// A bug that can be planted. Each has a name that `ONCEWARD_FAULTS`, a list with commas, understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// `ack-before-commit`: a delivery is acked when its handler starts.
    AckBeforeCommit,
    /// `dedupe-outside-the-transaction`: marks are looked up before the handler and written after its commit.
    DedupeOutside,
    /// `commit-without-proof`: nothing asks before the commit whether the transaction is still the mark's, nor whether it has failed.
    CommitWithoutProof,
    /// `ack-before-durable`: commits are acked before they are on disk.
    AckBeforeDurable,
    /// `keys-in-memory`: no delivery looks in the database whether its key is held.
    KeysInMemory,
    /// `followers-forgotten`: a message that leaves its line ends it, whoever waits behind it.
    FollowersForgotten,
    /// `neighbours-counted`: a message that was in work when its process died counts as what killed it.
    NeighboursCounted,
    /// `marks-in-order-of-arrival`: a batch inserts its marks as they came, not by id.
    MarksInOrderOfArrival,
    /// `position-of-the-newest`: what is noted as settled is the newest position, whatever is open before it.
    PositionOfTheNewest,
    /// `gaps-forgotten`: of a key's numbers only the highest counts.
    GapsForgotten,
    /// `pauses-in-memory`: a type that fails is paused in the member that has found out, and no other is told.
    PausesInMemory,
    /// `digest-ignored`: whatever has the id of a settled message is a duplicate of it.
    DigestIgnored,
    /// `expiry-by-own-clock`: what has expired is told by this machine's clock.
    ExpiryByOwnClock,
}

/// A place where the process can be made to end as by SIGKILL. `ONCEWARD_FAILPOINT=name` ends it at the first passage,
/// `name:n` at the n-th.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failpoint {
    /// `before-mark`: the transaction has begun.
    BeforeMark,
    /// `after-start`: the start of a suspect is written, and its handler has not run.
    AfterStart,
    /// `after-handler`: the handler has returned.
    AfterHandler,
    /// `before-commit`: the mark is proven.
    BeforeCommit,
    /// `after-commit-before-ack`: the effects are durable.
    AfterCommitBeforeAck,
    /// `leaving-line`: a message that has waited is out of its line, which its followers do not know yet.
    LeavingLine,
    /// `after-ack`: the broker was told.
    AfterAck,
}

#[cfg(feature = "faults")]
pub use planted::plant;
#[cfg(feature = "faults")]
pub(crate) use planted::{pass, planted};

/// Whether the bug is planted.
#[cfg(not(feature = "faults"))]
pub(crate) const fn planted(_bug: Bug) -> bool {
    false
}

/// Passes a failpoint.
#[cfg(not(feature = "faults"))]
pub(crate) const fn pass(_point: Failpoint) {}

#[cfg(feature = "faults")]
mod planted {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

    use super::{Bug, Failpoint};

    const BUGS: [(Bug, &str); 13] = [
        (Bug::AckBeforeCommit, "ack-before-commit"),
        (Bug::DedupeOutside, "dedupe-outside-the-transaction"),
        (Bug::CommitWithoutProof, "commit-without-proof"),
        (Bug::AckBeforeDurable, "ack-before-durable"),
        (Bug::KeysInMemory, "keys-in-memory"),
        (Bug::FollowersForgotten, "followers-forgotten"),
        (Bug::NeighboursCounted, "neighbours-counted"),
        (Bug::MarksInOrderOfArrival, "marks-in-order-of-arrival"),
        (Bug::PositionOfTheNewest, "position-of-the-newest"),
        (Bug::GapsForgotten, "gaps-forgotten"),
        (Bug::PausesInMemory, "pauses-in-memory"),
        (Bug::DigestIgnored, "digest-ignored"),
        (Bug::ExpiryByOwnClock, "expiry-by-own-clock"),
    ];

    const POINTS: [(Failpoint, &str); 7] = [
        (Failpoint::BeforeMark, "before-mark"),
        (Failpoint::AfterStart, "after-start"),
        (Failpoint::AfterHandler, "after-handler"),
        (Failpoint::BeforeCommit, "before-commit"),
        (Failpoint::AfterCommitBeforeAck, "after-commit-before-ack"),
        (Failpoint::LeavingLine, "leaving-line"),
        (Failpoint::AfterAck, "after-ack"),
    ];

    static SWITCHES: LazyLock<[AtomicBool; BUGS.len()]> = LazyLock::new(|| {
        let named = std::env::var("ONCEWARD_FAULTS").unwrap_or_default();
        BUGS.map(|(_, name)| AtomicBool::new(named.split(',').any(|bug| bug.trim() == name)))
    });

    /// How many passages are left until the process ends.
    static ARMED: LazyLock<Option<(Failpoint, AtomicI64)>> = LazyLock::new(|| {
        let text = std::env::var("ONCEWARD_FAILPOINT").ok()?;
        let (name, count) = text.split_once(':').unwrap_or((&text, "1"));
        let (point, _) = POINTS.iter().find(|(_, known)| *known == name)?;
        Some((*point, AtomicI64::new(count.parse().ok()?)))
    });

    fn switch(bug: Bug) -> Option<&'static AtomicBool> {
        let place = BUGS.iter().position(|(known, _)| *known == bug)?;
        SWITCHES.get(place)
    }

    /// Switches a bug on or off, for the whole process.
    pub fn plant(bug: Bug, on: bool) {
        if let Some(switch) = switch(bug) {
            switch.store(on, Ordering::SeqCst);
        }
    }

    pub(crate) fn planted(bug: Bug) -> bool {
        switch(bug).is_some_and(|switch| switch.load(Ordering::SeqCst))
    }

    pub(crate) fn pass(point: Failpoint) {
        if let Some((armed, left)) = ARMED.as_ref()
            && *armed == point
            && left.fetch_sub(1, Ordering::SeqCst) == 1
        {
            std::process::abort();
        }
    }
}

//! Planted bugs and failpoints, to show that the tests would find them. Only with the feature `faults`, which no release has.

/// A bug that can be planted. Each has a name that `ONCEWARD_FAULTS`, a list with commas, understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// `checkpoint-before-confirm`: the cursor passes what was read, whether or not the broker has it.
    CheckpointBeforeConfirm,
    /// `followers-before-park`: a message is parked only after its followers are published.
    FollowersBeforePark,
    /// `detour-from-what-was-read`: a detour begins behind what its parent has read, not where that is stored.
    DetourFromWhatWasRead,
    /// `begin-before-the-cursor`: a holder begins fifty numbers before the cursors that are stored.
    BeginBeforeTheCursor,
}

/// A place where the process can be made to end as by SIGKILL. `ONCEWARD_FAILPOINT=name` ends it at the first passage,
/// `name:n` at the n-th.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failpoint {
    /// `after-claim`: the lease is ours, nothing was read.
    AfterClaim,
    /// `after-read`: messages were read, none of them is offered.
    AfterRead,
    /// `after-offer`: an offer was handed over.
    AfterOffer,
    /// `after-confirm`: receipts have come, nothing was done with them.
    AfterConfirm,
    /// `before-checkpoint`: cursors are about to be stored.
    BeforeCheckpoint,
    /// `after-checkpoint`: they are stored.
    AfterCheckpoint,
    /// `before-park`: messages are about to be parked.
    BeforePark,
    /// `after-park`: they are parked, nobody was told.
    AfterPark,
    /// `before-release`: everything is done, the lease is about to be given back.
    BeforeRelease,
}

#[cfg(feature = "faults")]
pub(crate) use switches::{pass, planted};

/// Whether the bug is planted.
#[cfg(not(feature = "faults"))]
pub(crate) const fn planted(_fault: Bug) -> bool {
    false
}

/// Passes a failpoint.
#[cfg(not(feature = "faults"))]
pub(crate) const fn pass(_point: Failpoint) {}

#[cfg(feature = "faults")]
mod switches {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::{Bug, Failpoint};

    const POINTS: [(Failpoint, &str); 9] = [
        (Failpoint::AfterClaim, "after-claim"),
        (Failpoint::AfterRead, "after-read"),
        (Failpoint::AfterOffer, "after-offer"),
        (Failpoint::AfterConfirm, "after-confirm"),
        (Failpoint::BeforeCheckpoint, "before-checkpoint"),
        (Failpoint::AfterCheckpoint, "after-checkpoint"),
        (Failpoint::BeforePark, "before-park"),
        (Failpoint::AfterPark, "after-park"),
        (Failpoint::BeforeRelease, "before-release"),
    ];

    static PLANTED: LazyLock<Vec<Bug>> = LazyLock::new(|| {
        let named = std::env::var("ONCEWARD_FAULTS").unwrap_or_default();
        let known = |name: &str| match name.trim() {
            "checkpoint-before-confirm" => Some(Bug::CheckpointBeforeConfirm),
            "followers-before-park" => Some(Bug::FollowersBeforePark),
            "detour-from-what-was-read" => Some(Bug::DetourFromWhatWasRead),
            "begin-before-the-cursor" => Some(Bug::BeginBeforeTheCursor),
            _ => None,
        };
        named.split(',').filter_map(known).collect()
    });

    /// How many passages are left until the process ends.
    static ARMED: LazyLock<Option<(Failpoint, AtomicI64)>> = LazyLock::new(|| {
        let text = std::env::var("ONCEWARD_FAILPOINT").ok()?;
        let (name, count) = text.split_once(':').unwrap_or((&text, "1"));
        let (point, _) = POINTS.iter().find(|(_, known)| *known == name)?;
        Some((*point, AtomicI64::new(count.parse().ok()?)))
    });

    pub(crate) fn planted(fault: Bug) -> bool {
        PLANTED.contains(&fault)
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

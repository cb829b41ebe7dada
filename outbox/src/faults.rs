//! Planted bugs, to show that the tests would find them. Only with the feature `faults`, which no release has.

#[cfg(feature = "faults")]
pub use planted::{Bug, plant};

#[cfg(not(feature = "faults"))]
pub(crate) const fn late_rows_are_dropped() -> bool {
    false
}

#[cfg(not(feature = "faults"))]
pub(crate) const fn fencing_is_lost() -> bool {
    false
}

#[cfg(feature = "faults")]
pub(crate) use planted::{fencing_is_lost, late_rows_are_dropped};

#[cfg(feature = "faults")]
mod planted {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// A bug that can be planted. Each has a name that `ONCEWARD_FAULTS`, a list with commas, understands.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Bug {
        /// `cursor-without-late-rows`: a row that commits after a later number was read is never delivered.
        CursorWithoutLateRows,
        /// `lost-fencing`: what a holder writes is accepted after another one took its lease.
        LostFencing,
    }

    struct Switches {
        without_late_rows: AtomicBool,
        lost_fencing: AtomicBool,
    }

    static SWITCHES: LazyLock<Switches> = LazyLock::new(|| {
        let named = std::env::var("ONCEWARD_FAULTS").unwrap_or_default();
        let on = |name: &str| AtomicBool::new(named.split(',').any(|bug| bug.trim() == name));
        Switches {
            without_late_rows: on("cursor-without-late-rows"),
            lost_fencing: on("lost-fencing"),
        }
    });

    /// Switches a bug on or off, for the whole process.
    pub fn plant(bug: Bug, on: bool) {
        let switch = match bug {
            Bug::CursorWithoutLateRows => &SWITCHES.without_late_rows,
            Bug::LostFencing => &SWITCHES.lost_fencing,
        };
        switch.store(on, Ordering::SeqCst);
    }

    pub(crate) fn late_rows_are_dropped() -> bool {
        SWITCHES.without_late_rows.load(Ordering::SeqCst)
    }

    pub(crate) fn fencing_is_lost() -> bool {
        SWITCHES.lost_fencing.load(Ordering::SeqCst)
    }
}

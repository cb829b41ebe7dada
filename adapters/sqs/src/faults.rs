//! Planted bugs, to show that the tests would find them. Only with the feature `faults`, which no release has.

/// Whether an answer is taken as a confirmation of all entries of its call: `partial-batch-failure-ignored`.
#[cfg(not(feature = "faults"))]
pub(crate) const fn failed_entries_are_ignored() -> bool {
    false
}

#[cfg(feature = "faults")]
pub(crate) fn failed_entries_are_ignored() -> bool {
    use std::sync::LazyLock;

    static PLANTED: LazyLock<bool> = LazyLock::new(|| {
        let named = std::env::var("ONCEWARD_FAULTS").unwrap_or_default();
        let mut named = named.split(',').map(str::trim);
        named.any(|name| name == "partial-batch-failure-ignored")
    });
    *PLANTED
}

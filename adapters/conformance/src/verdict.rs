//! How a case ends, unless it panics.

/// How a case ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// The adapter keeps what it promises.
    Held,
    /// The broker does not promise this, so there was nothing to check.
    NotPromised(String),
}

impl Verdict {
    /// Nothing to check, and why.
    pub(crate) fn not_promised(why: &str) -> Self {
        Self::NotPromised(why.to_owned())
    }

    /// Prints what was not promised.
    pub fn report(self, case: &str) {
        match self {
            Self::Held => {}
            Self::NotPromised(why) => println!("{case}: not promised: {why}"),
        }
    }
}

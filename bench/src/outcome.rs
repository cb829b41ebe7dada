//! What a measurement comes to.

/// A result whose error is only ever shown.
pub(crate) type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

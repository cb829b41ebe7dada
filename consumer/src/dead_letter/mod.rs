//! Dead letters: what a consumer has given up on, and what a person can see of it.

mod admin;
mod letter;

pub use admin::{DeadLetter, DeadLetterCount, Filter, Payload, Summary, counts, list, show};
pub(crate) use letter::{Content, Letter};

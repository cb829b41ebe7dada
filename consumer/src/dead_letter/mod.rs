//! Dead letters: what a consumer has given up on, and what a person can do about it.

mod admin;
mod decide;
mod edit;
mod letter;
pub(crate) mod outbound;

pub use admin::{
    DeadLetter, DeadLetterCount, Filter, Payload, Summary, consumers, counts, list, show,
};
pub use decide::{Replayed, To, discard, replay};
pub use edit::{Edit, edit};
pub(crate) use letter::Letter;

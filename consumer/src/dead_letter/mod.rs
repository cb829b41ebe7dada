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

/// The reasons that dead letters have, as in the column `reason`. Other versions may know others.
pub fn reasons() -> impl Iterator<Item = &'static str> {
    crate::plan::DeadReason::ALL
        .into_iter()
        .map(|reason| reason.code())
}

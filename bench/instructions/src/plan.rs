//! Decisions out of two crates, under the one name by which their modules know them.

#[path = "../../../relay/src/plan.rs"]
mod fates;
#[path = "../../../consumer/src/plan/places.rs"]
pub(crate) mod places;

pub(crate) use fates::{Fate, Refusal, fate};
pub(crate) use places::PlaceKind;

//! The suite that every Onceward adapter passes.
//!
//! An adapter implements [`Harness`] for its broker in `tests/conformance.rs` and has one test per case:
//!
//! ```ignore
//! struct OnMyBroker { /* … */ }
//! impl onceward_conformance::Harness for OnMyBroker { /* … */ }
//! onceward_conformance::suite!(OnMyBroker);
//! ```
//!
//! A case asks [`Capabilities`](onceward_core::Capabilities) and what the harness offers, never the broker's name.
//! What a broker does not promise is printed as not promised.

#![expect(
    clippy::expect_used,
    reason = "a case fails by panicking in the test that runs it"
)]

pub mod cases;
mod harness;
mod journey;
mod verdict;

pub use harness::{Control, Harness, Member, Offer, Record, Sharing};
pub use verdict::Verdict;

/// Makes one test of each case, for a type that implements [`Harness`].
#[macro_export]
macro_rules! suite {
    ($harness:ty) => {
        $crate::suite! { @tests $harness =>
            order_per_key_holds_with_many_in_flight
        }
    };
    (@tests $harness:ty => $($case:ident)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                $crate::cases::$case::<$harness>().await.report(stringify!($case));
            }
        )+
    };
}

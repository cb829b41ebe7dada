//! The suite that every Onceward adapter passes.
//!
//! An adapter implements [`Harness`] for its broker in `tests/conformance.rs` and has one test per case:
//!
//! ```text
//! struct OnMyBroker { /* … */ }
//! impl onceward_conformance::Harness for OnMyBroker { /* … */ }
//! onceward_conformance::suite!(OnMyBroker);
//! ```
//!
//! A case asks [`Capabilities`](onceward_core::Capabilities) and what the harness offers, never the broker's name.
//! What a broker does not promise is printed as not promised.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a case fails by panicking in the test that runs it"
)]

pub mod cases;
mod harness;
mod journey;
mod reading;
mod relay;
mod verdict;

pub use harness::{Control, Harness, Member, Offer, Record, Sharing};
pub use verdict::Verdict;

/// Makes one test of each case, for a type that implements [`Harness`].
#[macro_export]
macro_rules! suite {
    ($harness:ty) => {
        $crate::suite! { @tests $harness =>
            order_per_key_holds_with_many_in_flight
            a_refused_message_alone_in_its_request_is_named
            a_permanent_refusal_in_the_middle_harms_no_other_message
            a_permanent_refusal_in_one_of_several_requests_harms_no_other_message
            a_session_sends_nothing_more_of_a_key_that_was_refused
            a_transient_refusal_in_the_middle_leaves_no_gap
            an_unknown_route_is_named
            a_broker_that_crashes_within_a_batch_loses_nothing
            a_report_that_never_comes_leaves_its_message_unconfirmed
            nothing_leaves_after_abandon
            a_clean_close_lets_what_is_on_its_way_arrive
            payloads_and_attributes_come_back_unchanged
            hostile_headers_neither_panic_nor_forge
            foreign_messages_come_whole
            a_member_without_room_hears_what_it_owns
            what_is_not_acked_comes_again
            what_is_acked_does_not_come_again
            an_ack_after_a_reconnect_loses_nothing
            a_paused_partition_goes_on_where_it_stopped
            the_backlog_counts_what_is_not_acked
            a_jump_by_retention_is_told
            a_dangerous_setup_is_refused
            a_takeover_begins_at_the_oldest_unacked_message
            a_clean_close_with_work_in_flight_gives_it_on
            a_rebalance_among_three_members_keeps_order
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

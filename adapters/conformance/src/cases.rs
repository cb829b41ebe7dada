//! The cases. Each is a sentence about what an adapter promises.

mod consuming;
mod content;
mod order;
mod outage;
mod ownership;
mod refusal;
mod several_requests;

pub use consuming::{
    a_dangerous_setup_is_refused, a_jump_by_retention_is_told,
    a_member_without_room_hears_what_it_owns, a_paused_partition_goes_on_where_it_stopped,
    an_ack_after_a_reconnect_loses_nothing, the_backlog_counts_what_is_not_acked,
    what_is_acked_does_not_come_again, what_is_not_acked_comes_again,
};
pub use content::{
    foreign_messages_come_whole, hostile_headers_neither_panic_nor_forge,
    payloads_and_attributes_come_back_unchanged,
};
pub use order::order_per_key_holds_with_many_in_flight;
pub use outage::{
    a_broker_that_crashes_within_a_batch_loses_nothing,
    a_clean_close_lets_what_is_on_its_way_arrive,
    a_report_that_never_comes_leaves_its_message_unconfirmed, nothing_leaves_after_abandon,
};
pub use ownership::{
    a_clean_close_with_work_in_flight_gives_it_on, a_rebalance_among_three_members_keeps_order,
    a_takeover_begins_at_the_oldest_unacked_message,
};
pub use refusal::{
    a_permanent_refusal_in_the_middle_harms_no_other_message,
    a_refused_message_alone_in_its_request_is_named,
    a_session_sends_nothing_more_of_a_key_that_was_refused,
    a_transient_refusal_in_the_middle_leaves_no_gap, an_unknown_route_is_named,
};
pub use several_requests::a_permanent_refusal_in_one_of_several_requests_harms_no_other_message;

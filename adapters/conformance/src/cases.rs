//! The cases. Each is a sentence about what an adapter promises.

mod order;

pub use order::order_per_key_holds_with_many_in_flight;

//! Onceward on a broker in memory, for tests and examples.
//!
//! A [`MemoryBroker`] keeps order, positions and ownership as a real broker does, and fails when a test tells it to.
//! Nothing of it survives the process.
//!
//! ```
//! use onceward_core::{MAX_PAYLOAD, Message};
//! use onceward_memory::MemoryBroker;
//!
//! let broker = MemoryBroker::new();
//! let order = Message::json("orders.created", &serde_json::json!({ "order": 17 }))?.key(17);
//! broker.publish(order.finish(MAX_PAYLOAD)?.message)?;
//!
//! let subscriber = broker.subscriber("billing", &["orders.created"]);
//! # drop(subscriber);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod broker;
mod group;
mod headers;
mod publisher;
mod state;
mod subscriber;
mod topic;

pub use broker::MemoryBroker;
pub use publisher::{MemoryPending, MemoryPublisher};
pub use subscriber::{MemoryAcker, MemorySubscriber, MemoryToken};
pub use topic::MemoryRecord;

//! The words and seams of Onceward, without any I/O.
//!
//! A [`Message`] is what travels. A [`Publisher`] takes messages to a broker and a
//! [`Subscriber`] brings them back; each broker implements both in a crate of its own.
//! Everything that is decided rather than done (backoff, the contiguous prefix, the
//! form on the wire) is a pure type here.

mod backoff;
mod capabilities;
mod carried_time;
mod chain;
mod delivery;
mod draft;
mod error_kind;
mod glob;
mod headers;
mod id;
mod key;
mod lane;
mod message;
mod offers;
mod one_per_key;
mod prefix;
mod publisher;
mod receipts;
mod route;
mod schema;
mod source;
mod subscriber;
mod topic;
mod undecodable;
pub mod wire;

pub use backoff::Backoff;
pub use capabilities::{Capabilities, InFlightPerKey, Order};
pub use carried_time::CarriedTime;
pub use chain::Chain;
pub use delivery::{Delivery, Origin, Partition};
pub use draft::{Draft, Entry, InvalidMessage, MAX_PAYLOAD};
pub use error_kind::{
    BoxError, ErrorKind, Fault, PublishError, SubscribeError, SubscribeErrorKind,
};
pub use glob::{InvalidGlob, TopicGlob};
pub use headers::{Headers, InvalidHeader, MAX_HEADER_BYTES, MAX_HEADERS};
pub use id::MessageId;
pub use key::{InvalidKey, Key, MAX_KEY_BYTES};
pub use lane::{Lane, UnknownLane};
pub use message::{InvalidKind, Kind, MAX_KIND_BYTES, Message};
pub use offers::{OfferTicket, Offers, Over, Report};
pub use one_per_key::OnePerKey;
pub use prefix::{Prefix, Ticket};
pub use publisher::{Batch, Outgoing, Publisher, TopicReport, TopicState};
pub use receipts::{Outcome, Receipts};
pub use route::{InvalidRoute, Route, RouteTemplate, Routes};
pub use schema::{InvalidSchema, Schema};
pub use source::{InvalidSource, Source};
pub use subscriber::{Acker, Arrival, Backlog, Release, Subscriber};
pub use topic::{InvalidTopic, MAX_TOPIC_BYTES, Topic};
pub use undecodable::{Undecodable, UndecodableReason};

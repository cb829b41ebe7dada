//! Messages that are not as they should be, and handlers that do not as they should.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../common/mod.rs"]
mod common;
mod handlers;
mod messages;

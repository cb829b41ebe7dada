//! The relay's half of the outbox on a real server: reading, leases, checkpoints, parking, retention.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail the test"
)]

mod durability;
mod identities;
mod late;
mod leases;
mod left;
mod operating;
mod parking;
mod reading;
mod retention;
mod sharing;
mod stress;
mod support;

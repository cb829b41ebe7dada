//! The whole path on real servers, from a service's commit to a handler's effect, while things break. Every run is
//! watched by the ledger, which shares no query with the product; and every check is shown to find the bug it is for.
//!
//! One program, so that its tests share their servers. `ONCEWARD_KILL_CYCLES` sets how often relays and consumers are
//! killed (30), `ONCEWARD_KILL_SEED` repeats the moments of an earlier run.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod bad_messages;
mod crashes;
mod detours;
mod failing_type;
mod failover;
mod failpoints;
mod full_load;
mod guard;
mod kills;
mod mix;
mod network;
mod old_copies;
mod outage;
mod path;
mod place;
mod planted_consumer;
mod planted_relay;
mod program;
mod progress;
mod sequences;
mod several_streams;
mod sqs;
mod stage;
mod writers;

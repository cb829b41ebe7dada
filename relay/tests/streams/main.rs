//! Streams of a relay beside a real PostgreSQL: what is published, in which order, and by whom.

#[path = "../support/mod.rs"]
mod support;

mod absence;
mod advice;
mod detours;
mod publishing;
mod replays;
mod sessions;
mod several_streams;
mod takeover;

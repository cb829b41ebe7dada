//! What the consumer does at the seam to a broker: extending, revocations, losses, jumps, refusals.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../common/mod.rs"]
mod common;
mod reading;
mod revocations;

use std::sync::Arc;

use common::scripted::{Book, Play, waits};
use common::{Gate, Stage};
use onceward_consumer::ConsumerBuilder;

async fn play() -> Play {
    play_with(|builder, gate| builder.on_with("*", gate, waits)).await
}

async fn play_with(handled: impl FnOnce(ConsumerBuilder, Arc<Gate>) -> ConsumerBuilder) -> Play {
    Play::on(Stage::new().await, Book::default(), handled)
}

//! Measures the relay, the producer's cost and the consumer, each beside its ceiling in the same run.
//!
//! `make bench` runs it. Contestants take turns and repeat; the table shows the median and the spread, and ratios
//! compare what ran on the same machine at the same time. Absolute figures say more about the machine.

mod backlog;
mod broker;
mod consume;
mod drain;
mod latency;
mod outcome;
mod producer;
mod relay;
mod results;
mod spread;
mod sqs;
mod world;

use std::path::PathBuf;

use clap::Parser;

use outcome::Outcome;
use results::Results;
use world::World;

/// Measure Onceward, each workload beside its ceiling in the same run.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Messages of the backlog that is drained.
    #[arg(long, default_value_t = 500_000)]
    messages: u64,
    /// Repeats of each contestant.
    #[arg(long, default_value_t = 3)]
    repeats: usize,
    /// Seconds of each run that has a fixed time.
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// The relay's binary, built with `cargo build --release -p onceward-relay`.
    #[arg(long, default_value = "target/release/onceward")]
    relay: PathBuf,
    /// Where the results go, as JSON.
    #[arg(long, default_value = "bench/results.json")]
    output: PathBuf,
    /// Only these workloads, such as `W1,W3`; W5 is SQS.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

impl Arguments {
    fn wants(&self, workload: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == workload)
    }
}

#[tokio::main]
async fn main() -> Outcome {
    let arguments = Arguments::parse();
    if !arguments.relay.exists() {
        let path = arguments.relay.display();
        return Err(
            format!("no relay at {path}: run `cargo build --release -p onceward-relay`").into(),
        );
    }
    let world = World::start().await;
    let mut results = Results::default();
    if arguments.wants("W1") {
        drain::measure(&world, &arguments, &mut results).await?;
    }
    if arguments.wants("W2") {
        latency::measure(&world, &arguments, &mut results).await?;
    }
    if arguments.wants("W3") {
        producer::measure(&world, &arguments, &mut results).await?;
    }
    if arguments.wants("W4") {
        consume::measure(&world, &arguments, &mut results).await?;
    }
    if arguments.wants("W5") {
        sqs::measure(&world, &arguments, &mut results).await?;
    }
    println!("{results}");
    results.write(&arguments.output)?;
    println!("written to {}", arguments.output.display());
    Ok(())
}

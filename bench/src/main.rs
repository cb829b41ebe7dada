//! Measures the relay, the producer's cost and the consumer, each beside its ceiling in the same run.
//!
//! `make bench` runs it. Contestants take turns and repeat; the table shows the median and the spread, and ratios
//! compare what ran on the same machine at the same time. Absolute figures say more about the machine.

mod backlog;
mod broker;
mod capacity;
mod consume;
mod cost;
mod distance;
mod drain;
mod growth;
mod guard;
mod idle;
mod latency;
mod machine;
mod outcome;
mod peers;
mod producer;
mod relay;
mod report;
mod results;
mod spread;
mod sqs;
mod targets;
mod world;

use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, Parser, Subcommand};

use machine::Machine;
use outcome::Outcome;
use results::{Keep, Results};
use world::World;

/// That of the relay's program, as the bare clients are compared with it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What can be measured.
const WORKLOADS: [&str; 7] = ["W1", "W2", "W3", "W4", "W5", "W6", "W7"];

/// Measure Onceward, each workload beside its ceiling in the same run.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Line {
    #[command(subcommand)]
    instead: Option<Instead>,
    #[command(flatten)]
    arguments: Arguments,
}

/// How it is measured.
#[derive(Debug, Args)]
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
    /// Transactions a second of the latency.
    #[arg(long, value_delimiter = ',', default_value = "100,1000,5000")]
    rates: Vec<u64>,
    /// Where the results go, as JSON. What stands there of other workloads stays.
    #[arg(long, default_value = "bench/results.json")]
    output: PathBuf,
    /// Where it is told what they were measured on.
    #[arg(long, default_value = "bench/machine.json")]
    machine: PathBuf,
    /// Only these workloads, such as `W1,W3`.
    #[arg(long, value_delimiter = ',', value_parser = WORKLOADS)]
    only: Vec<String>,
    #[command(flatten)]
    growth: growth::Settings,
}

/// What is done instead of measuring.
#[derive(Debug, Subcommand)]
enum Instead {
    /// Make `docs/performance.md` with its plots, and `docs/capacity.md`, of the results.
    Report {
        /// The results.
        #[arg(long, default_value = "bench/results.json")]
        results: PathBuf,
        /// What they were measured on.
        #[arg(long, default_value = "bench/machine.json")]
        machine: PathBuf,
        /// The directory of the documentation.
        #[arg(long, default_value = "docs")]
        into: PathBuf,
    },
    /// Look in two minutes whether anything got much slower: W1, W3 and W4 in short, as ratios to the ceilings of the same run,
    /// beside those that are recorded. Fails when one stays below 40 % of it in three tries.
    Guard(guard::Settings),
    /// Say what a load of your own takes, by the recorded costs of a message: what `docs/capacity.md` says of some loads.
    Capacity {
        #[command(flatten)]
        load: capacity::Load,
        /// The results.
        #[arg(long, default_value = "bench/results.json")]
        results: PathBuf,
        /// What they were measured on.
        #[arg(long, default_value = "bench/machine.json")]
        machine: PathBuf,
    },
    /// Measure W1 and W2 of ours beside other relays, in turn, and W1 with a network to the broker (`W7`); what else is in the results stays.
    Peers {
        #[command(flatten)]
        arguments: Box<Arguments>,
        #[command(flatten)]
        programs: peers::Programs,
    },
}

impl Arguments {
    /// Seconds for which each contestant of W3 writes in a run, in slices by turns.
    const fn producer_seconds(&self) -> u64 {
        self.seconds.div_ceil(2)
    }

    fn wants(&self, workload: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == workload)
    }
}

#[tokio::main]
async fn main() -> Outcome {
    let line = Line::parse();
    match &line.instead {
        Some(Instead::Report {
            results,
            machine,
            into,
        }) => report::write(results, machine, into),
        Some(Instead::Capacity {
            load,
            results,
            machine,
        }) => report::take(results, machine, load),
        Some(Instead::Guard(settings)) => guard::run(settings).await,
        Some(Instead::Peers {
            arguments,
            programs,
        }) => peers::measure(arguments, programs).await,
        None => measure(&line.arguments).await,
    }
}

/// One workload after the other.
struct Laps<'a> {
    arguments: &'a Arguments,
    machine: Machine,
    begun: Instant,
}

impl Laps<'_> {
    /// Tells how long this one took, as the whole has a time to keep to, and writes down what there is by now, as a later one may fail.
    fn end(&mut self, workload: &str, results: &Results) -> Outcome {
        println!(
            "{workload} took {:.0} s",
            self.begun.elapsed().as_secs_f64()
        );
        results.write(&self.arguments.output, Keep::OtherWorkloads)?;
        machine::write(
            &self.arguments.machine,
            self.arguments,
            &[workload],
            &self.machine,
        )?;
        self.begun = Instant::now();
        Ok(())
    }
}

async fn measure(arguments: &Arguments) -> Outcome {
    relay::look_for(&arguments.relay)?;
    let world = World::start().await;
    let mut results = Results::default();
    broker::warm_up(&world, arguments.messages).await?;
    let mut laps = Laps {
        arguments,
        machine: Machine::look(&world).await?,
        begun: Instant::now(),
    };
    if arguments.wants("W1") {
        drain::measure(&world, arguments, &mut results).await?;
        laps.end("W1", &results)?;
    }
    if arguments.wants("W2") {
        latency::measure(&world, arguments, &mut results).await?;
        laps.end("W2", &results)?;
    }
    if arguments.wants("W3") {
        producer::measure(&world, arguments, &mut results).await?;
        laps.end("W3", &results)?;
    }
    if arguments.wants("W4") {
        consume::measure(&world, arguments, &mut results).await?;
        laps.end("W4", &results)?;
    }
    if arguments.wants("W6") {
        idle::measure(&world, arguments, &mut results).await?;
        laps.end("W6", &results)?;
    }
    drop(world);
    if arguments.wants("W5") {
        growth::measure(arguments, &mut results).await?;
        laps.end("W5", &results)?;
    }
    if arguments.wants("W7") {
        distance::measure(arguments, &mut results).await?;
        laps.end("W7", &results)?;
    }
    println!("{results}");
    println!("written to {}", arguments.output.display());
    Ok(())
}

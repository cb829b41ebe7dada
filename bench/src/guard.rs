//! Looks in two minutes whether anything got much slower: ratios to the ceilings of the same run, beside the recorded ones.
//!
//! Ratios are what one machine tells of another, and even they depend on what else it does: so only a ratio that stays far below the
//! recorded one is a failure. What is well in its first try is not tried again; the others are tried again in turn.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::broker::{self, Broker};
use crate::consume::{self, Manner};
use crate::drain;
use crate::machine::{self, Machines};
use crate::outcome::Outcome;
use crate::producer;
use crate::relay::look_for;
use crate::results::{self, Row};
use crate::world::World;

/// The least share of the recorded ratio.
const LEAST: f64 = 0.4;

/// How often a ratio may be found too low before that is a failure.
const TRIES: usize = 3;

/// Messages of the backlog where neither an argument nor what is recorded says so.
const MESSAGES: u64 = 500_000;

/// How the guard measures.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// Messages of the backlog that is drained [default: as many as the recorded W1 had, as shares of a ceiling depend on it].
    #[arg(long)]
    messages: Option<u64>,
    /// Seconds that each of both producers writes.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// The relay's binary, built with `cargo build --release -p onceward-relay`.
    #[arg(long, default_value = "target/release/onceward")]
    relay: PathBuf,
    /// The recorded results.
    #[arg(long, default_value = "bench/results.json")]
    results: PathBuf,
    /// What they were measured on.
    #[arg(long, default_value = "bench/machine.json")]
    machine: PathBuf,
}

impl Settings {
    /// Messages of the backlog.
    fn messages(&self, machines: &Machines) -> u64 {
        let recorded = machines.get("W1").and_then(|run| run.messages);
        self.messages.or(recorded).unwrap_or(MESSAGES)
    }
}

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    DrainToKafka,
    DrainToNats,
    Produce,
    Consume,
    ConsumeBatches,
}

/// What the tries so far say of a ratio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It is not far below the recorded one.
    Well,
    /// It is, so far; another try decides.
    TryAgain,
    /// It was in each try.
    Slow,
    /// Nothing is recorded to compare it with.
    NotRecorded,
}

impl Subject {
    const ALL: [Self; 5] = [
        Self::DrainToKafka,
        Self::DrainToNats,
        Self::Produce,
        Self::Consume,
        Self::ConsumeBatches,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::DrainToKafka => "W1 kafka: drain ÷ combined ceiling",
            Self::DrainToNats => "W1 nats: drain ÷ combined ceiling",
            Self::Produce => "W3: with enqueue ÷ transaction alone",
            Self::Consume => "W4 kafka: one by one ÷ bare transaction",
            Self::ConsumeBatches => "W4 kafka: batches ÷ bare client",
        }
    }

    /// The same ratio as it is recorded.
    fn recorded(self, rows: &[Row]) -> Option<f64> {
        let median = |workload, variant, contestant, metric| {
            results::median(rows, (workload, variant), contestant, metric)
        };
        match self {
            Self::DrainToKafka => {
                median("W1", "kafka-12p 1000/tx", "onceward", "fraction_of_ceiling")
            }
            Self::DrainToNats => median("W1", "nats 1000/tx", "onceward", "fraction_of_ceiling"),
            Self::Produce => {
                let alone = median("W3", "8 clients", "transaction-alone", "rate")?;
                Some(median("W3", "8 clients", "onceward", "rate")? / alone)
            }
            Self::Consume => {
                let bare = median("W4", "kafka", "bare-transaction", "rate")?;
                Some(median("W4", "kafka", "onceward", "rate")? / bare)
            }
            Self::ConsumeBatches => {
                let bare = median("W4", "kafka batches", "raw-client", "rate")?;
                Some(median("W4", "kafka batches", "onceward", "rate")? / bare)
            }
        }
    }

    async fn measure(self, world: &World, settings: &Settings, messages: u64) -> Outcome<f64> {
        let relay = settings.relay.as_path();
        match self {
            Self::DrainToKafka => drain::share(world, relay, (Broker::Kafka, 12), messages).await,
            Self::DrainToNats => drain::share(world, relay, (Broker::Nats, 1), messages).await,
            Self::Produce => producer::share(world, Duration::from_secs(settings.seconds)).await,
            Self::Consume => consume::share(world, Manner::OneByOne).await,
            Self::ConsumeBatches => consume::share(world, Manner::Batches).await,
        }
    }
}

/// What these tries say, beside what is recorded.
fn verdict(recorded: Option<f64>, tries: &[f64]) -> Verdict {
    let Some(recorded) = recorded else {
        return Verdict::NotRecorded;
    };
    // A ratio that is no number is not well.
    if tries.iter().any(|ratio| *ratio >= recorded * LEAST) {
        Verdict::Well
    } else if tries.len() < TRIES {
        Verdict::TryAgain
    } else {
        Verdict::Slow
    }
}

/// How a verdict is printed.
const fn words(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Well => "well",
        Verdict::TryAgain => "low; to be tried again",
        Verdict::Slow => "SLOW",
        Verdict::NotRecorded => "not recorded: compared with nothing",
    }
}

/// Measures, compares and says so.
pub(crate) async fn run(settings: &Settings) -> Outcome {
    look_for(&settings.relay)?;
    let rows = results::read(&settings.results)?;
    let messages = settings.messages(&machine::read(&settings.machine)?);
    let world = World::start().await;
    broker::warm_up(&world, messages).await?;
    let mut left: Vec<(Subject, Vec<f64>)> =
        Subject::ALL.map(|subject| (subject, Vec::new())).into();
    let mut slow = Vec::new();
    println!("{:<42} {:>8} {:>9} {:>9}", "", "ratio", "recorded", "of it");
    while !left.is_empty() {
        let mut again = Vec::new();
        for (subject, mut tries) in left {
            let (ratio, recorded) = (
                subject.measure(&world, settings, messages).await?,
                subject.recorded(&rows),
            );
            tries.push(ratio);
            let verdict = verdict(recorded, &tries);
            print(subject, ratio, recorded, verdict);
            match verdict {
                Verdict::Well | Verdict::NotRecorded => {}
                Verdict::TryAgain => again.push((subject, tries)),
                Verdict::Slow => slow.push(subject.name()),
            }
        }
        left = again;
    }
    if slow.is_empty() {
        return Ok(());
    }
    let least = LEAST * 100.0;
    Err(format!(
        "below {least:.0} % of what is recorded, in {TRIES} tries: {}",
        slow.join("; ")
    )
    .into())
}

fn print(subject: Subject, ratio: f64, recorded: Option<f64>, verdict: Verdict) {
    let (name, words) = (subject.name(), words(verdict));
    match recorded {
        Some(recorded) => {
            let share = 100.0 * ratio / recorded;
            println!("{name:<42} {ratio:>8.3} {recorded:>9.3} {share:>7.0} %  {words}");
        }
        None => println!("{name:<42} {ratio:>8.3} {:>9} {:>9}  {words}", "", ""),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser as _;

    use super::*;

    #[test]
    fn a_ratio_that_is_well_in_the_first_try_is_not_tried_again() {
        assert_eq!(verdict(Some(0.5), &[0.2]), Verdict::Well);
        assert_eq!(verdict(Some(0.5), &[0.9]), Verdict::Well);
    }

    #[test]
    fn one_good_try_of_three_is_enough() {
        assert_eq!(verdict(Some(0.5), &[0.1, 0.1, 0.3]), Verdict::Well);
    }

    #[test]
    fn only_three_low_tries_are_slow() {
        assert_eq!(verdict(Some(0.5), &[0.19]), Verdict::TryAgain);
        assert_eq!(verdict(Some(0.5), &[0.19, 0.19]), Verdict::TryAgain);
        assert_eq!(verdict(Some(0.5), &[0.19, 0.19, 0.19]), Verdict::Slow);
    }

    #[test]
    fn a_ratio_that_is_no_number_is_not_well() {
        assert_eq!(
            verdict(Some(0.5), &[f64::NAN, f64::NAN, f64::NAN]),
            Verdict::Slow
        );
    }

    #[test]
    fn what_is_not_recorded_fails_nothing() {
        assert_eq!(verdict(None, &[0.0, 0.0, 0.0]), Verdict::NotRecorded);
    }

    #[test]
    fn the_backlog_is_as_large_as_the_recorded_one() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            settings: Settings,
        }
        let messages = |arguments: &[&str], machines: &Machines| {
            let line = ["guard"].iter().chain(arguments);
            Line::parse_from(line).settings.messages(machines)
        };
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut machines = machine::read(&here.join("machine.json")).unwrap();
        machines.get_mut("W1").unwrap().messages = Some(7);

        assert_eq!(messages(&[], &machines), 7);
        assert_eq!(messages(&["--messages", "9"], &machines), 9);
        assert_eq!(messages(&[], &Machines::new()), MESSAGES);
    }

    #[test]
    fn what_is_recorded_here_has_a_ratio_for_each() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let rows = results::read(&here.join("results.json")).unwrap();

        let unknown = Subject::ALL.into_iter().filter(|subject| {
            let recorded = subject.recorded(&rows);
            !recorded.is_some_and(|ratio| ratio > 0.0)
        });

        assert_eq!(unknown.map(Subject::name).collect::<Vec<_>>(), [""; 0]);
    }

    #[test]
    fn a_recorded_ratio_is_that_of_the_medians() {
        let row = |workload: &str, variant: &str, contestant: &str, metric: &str, median| Row {
            workload: workload.to_owned(),
            variant: variant.to_owned(),
            contestant: contestant.to_owned(),
            metric: metric.to_owned(),
            unit: String::new(),
            min: 0.0,
            median,
            max: 0.0,
            runs: 1,
        };
        let rows = [
            row("W1", "nats 1000/tx", "onceward", "fraction_of_ceiling", 0.7),
            row("W3", "8 clients", "onceward", "rate", 30.0),
            row("W3", "8 clients", "transaction-alone", "rate", 40.0),
            row("W4", "kafka batches", "onceward", "rate", 3.0),
            row("W4", "kafka batches", "raw-client", "rate", 12.0),
        ];

        let recorded = Subject::ALL.map(|subject| subject.recorded(&rows));

        assert_eq!(recorded, [None, Some(0.7), Some(0.75), None, Some(0.25)]);
    }
}

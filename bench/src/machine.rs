//! What the figures were measured on, beside them in `machine.json`: by workload, as each can be measured anew alone.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::Arguments;
use crate::outcome::Outcome;
use crate::results::read_json;
use crate::world::World;

/// The runs of each workload, by its name.
pub(crate) type Machines = BTreeMap<String, Run>;

/// How a workload was measured, and on what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// The day, such as `2026-11-26`.
    pub(crate) day: String,
    /// Messages of the backlog, where it can be chosen.
    pub(crate) messages: Option<u64>,
    /// Repeats of each contestant.
    pub(crate) repeats: usize,
    /// Seconds of a run, where they can be chosen.
    pub(crate) seconds: Option<u64>,
    /// Microseconds of a write of 8 KiB with fdatasync, beside the database's files, after the runs; the median of some.
    pub(crate) sync_us: u64,
    pub(crate) machine: Machine,
}

/// A machine and the software on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    /// In MiB.
    pub(crate) memory: u64,
    pub(crate) kernel: String,
    /// The distribution.
    #[serde(default)]
    pub(crate) system: String,
    /// The file system that the servers write to.
    #[serde(default)]
    pub(crate) files: String,
    #[serde(default)]
    pub(crate) java: String,
    pub(crate) postgres: String,
    pub(crate) kafka: String,
    pub(crate) nats: String,
    pub(crate) rustc: String,
}

impl Machine {
    pub(crate) async fn look(world: &World) -> Outcome<Self> {
        let version = sqlx::query_scalar("show server_version");
        let database = world.postgres.database().await;
        let processors = std::fs::read_to_string("/proc/cpuinfo")?;
        let memory = std::fs::read_to_string("/proc/meminfo")?;
        let kib = field(&memory, "MemTotal").unwrap_or_default();
        let rustc = Command::new("rustc").arg("--version").output()?.stdout;
        let rustc = String::from_utf8(rustc)?;
        let java = Command::new("java").arg("-version").output()?.stderr;
        let java = String::from_utf8(java)?;
        let scratch = onceward_testkit::Scratch::new("bench-files");
        let mut stat = Command::new("stat");
        stat.args(["-f", "-c", "%T"]).arg(scratch.path());
        let files = String::from_utf8(stat.output()?.stdout)?;
        let system = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
        Ok(Self {
            processor: field(&processors, "model name")
                .unwrap_or("unknown")
                .to_owned(),
            cores: std::thread::available_parallelism()?.get(),
            memory: kib.trim_end_matches(" kB").parse::<u64>().unwrap_or(0) / 1024,
            kernel: kernel.trim().to_owned(),
            system: quoted(&system, "PRETTY_NAME").to_owned(),
            files: files.trim().to_owned(),
            java: quoted(&java, "version").to_owned(),
            postgres: version.fetch_one(database.pool()).await?,
            kafka: world.kafka.version(),
            nats: world.nats_client().await?.server_info().version,
            rustc: rustc.split(' ').nth(1).unwrap_or("unknown").to_owned(),
        })
    }
}

/// The value of a line such as `model name : x`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim())
}

/// What stands in quotes behind a word.
fn quoted<'a>(text: &'a str, word: &str) -> &'a str {
    let behind = text.split_once(word).map_or("", |(_, behind)| behind);
    behind.split('"').nth(1).unwrap_or("unknown")
}

/// What a commit waits for.
fn sync() -> Outcome<u64> {
    use std::io::{Seek as _, Write as _};
    let files = onceward_testkit::Scratch::new("bench-sync");
    let mut file = std::fs::File::create(files.path().join("file"))?;
    let mut times = Vec::new();
    for _ in 0..200 {
        let begun = std::time::Instant::now();
        file.rewind()?;
        file.write_all(&[7; 8192])?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    Ok(u64::try_from(times[times.len() / 2].as_micros())?)
}

/// Messages of the backlog and seconds of a run, as far as this workload goes by them.
fn asked(workload: &str, arguments: &Arguments) -> (Option<u64>, Option<u64>) {
    let (messages, seconds) = (Some(arguments.messages), Some(arguments.seconds));
    let growth = &arguments.growth;
    match workload {
        "W1" | "W1 peers" | "W7 peers" => (messages, None),
        "W2" | "W2 peers" => (None, seconds),
        "W3" => (None, Some(arguments.producer_seconds())),
        "W5" => (Some(growth.growth_messages), Some(growth.growth_seconds)),
        "W7" => (messages, seconds),
        // W4 and W6 go by neither.
        _ => (None, None),
    }
}

/// Writes down what these workloads were measured on; what stands there of others stays.
pub(crate) fn write(
    path: &Path,
    arguments: &Arguments,
    workloads: &[&str],
    machine: &Machine,
) -> Outcome {
    let mut machines = read(path)?;
    let sync_us = sync()?;
    for workload in workloads {
        let (messages, seconds) = asked(workload, arguments);
        let run = Run {
            day: OffsetDateTime::now_utc().date().to_string(),
            messages,
            repeats: arguments.repeats,
            seconds,
            sync_us,
            machine: machine.clone(),
        };
        machines.insert((*workload).to_owned(), run);
    }
    std::fs::write(path, serde_json::to_string_pretty(&machines)? + "\n")?;
    Ok(())
}

/// What is written down; nothing if there is no such file.
pub(crate) fn read(path: &Path) -> Outcome<Machines> {
    read_json(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_what_stands_behind_the_colon() {
        let text = "processor\t: 0\nmodel name\t: Some CPU @ 2.00GHz\nmodel name\t: Other\n";

        assert_eq!(field(text, "model name"), Some("Some CPU @ 2.00GHz"));
        assert_eq!(field(text, "stepping"), None);
    }

    #[test]
    fn a_version_is_what_stands_in_quotes() {
        let java = "openjdk version \"17.0.1\" 2021-10-19\nOpenJDK Runtime Environment";

        assert_eq!(quoted(java, "version"), "17.0.1");
        assert_eq!(quoted("", "version"), "unknown");
    }
}

//! The figures: collected by run, shown as a table with ratios, written as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::outcome::Outcome;

/// Ours, with which the others are compared.
pub(crate) const OURS: &str = "onceward";

/// What was measured of whom.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Subject {
    workload: &'static str,
    variant: String,
    metric: &'static str,
    contestant: &'static str,
}

/// All figures of all runs.
#[derive(Debug, Default)]
pub(crate) struct Results(BTreeMap<Subject, (&'static str, Vec<f64>)>);

/// One line of `results.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) workload: String,
    pub(crate) variant: String,
    pub(crate) contestant: String,
    pub(crate) metric: String,
    pub(crate) unit: String,
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
    pub(crate) runs: usize,
}

/// The lines of a `results.json`; none if there is no such file or it is empty.
pub(crate) fn read(path: &Path) -> Outcome<Vec<Row>> {
    read_json(path)
}

/// What is in a file of JSON; the default if there is no such file or it is empty, as `/dev/null` is.
pub(crate) fn read_json<T: DeserializeOwned + Default>(path: &Path) -> Outcome<T> {
    if !path.exists() {
        return Ok(T::default());
    }
    let text = std::fs::read_to_string(path)?;
    if text.is_empty() {
        return Ok(T::default());
    }
    Ok(serde_json::from_str(&text)?)
}

/// The median of a figure: of a workload's variant, a contestant and a metric.
pub(crate) fn median(
    rows: &[Row],
    (workload, variant): (&str, &str),
    contestant: &str,
    metric: &str,
) -> Option<f64> {
    let is_wanted = |row: &&Row| {
        row.workload == workload
            && row.variant == variant
            && row.contestant == contestant
            && row.metric == metric
    };
    rows.iter().find(is_wanted).map(|row| row.median)
}

/// What is kept of earlier lines when some are measured anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Those of workloads that were not measured now, and of contestants that are not ours.
    OtherWorkloads,
    /// Those of variants that were not measured now, too.
    OtherVariants,
}

/// Whether an earlier line goes: it was measured anew, or its workload was. One that stands beside somebody who was not measured now
/// stays: alone, the other would have nobody to be compared with.
fn replaced(old: &Row, before: &[Row], now: &[Row], keep: Keep) -> bool {
    let ours = |old: &Row| {
        let same = |new: &Row| (&new.workload, &new.contestant) == (&old.workload, &old.contestant);
        now.iter().any(same)
    };
    let of_variant = |row: &Row| (&row.workload, &row.variant) == (&old.workload, &old.variant);
    let anew = now.iter().any(of_variant);
    let beside_others = before.iter().any(|row| of_variant(row) && !ours(row));
    match keep {
        Keep::OtherWorkloads => ours(old) && (anew || !beside_others),
        Keep::OtherVariants => ours(old) && anew,
    }
}

fn kept(before: Vec<Row>, now: &[Row], keep: Keep) -> Vec<Row> {
    let all = before.clone();
    let stays = |old: &Row| !replaced(old, &all, now, keep);
    before.into_iter().filter(stays).collect()
}

impl Results {
    /// Adds the figure of one run.
    pub(crate) fn add(
        &mut self,
        (workload, variant): (&'static str, &str),
        contestant: &'static str,
        (metric, unit): (&'static str, &'static str),
        value: f64,
    ) {
        eprintln!("  {workload} {variant:<22} {contestant:<22} {metric:<20} {value:>12.2} {unit}");
        let subject = Subject {
            workload,
            variant: variant.to_owned(),
            metric,
            contestant,
        };
        let entry = self.0.entry(subject).or_insert((unit, Vec::new()));
        entry.1.push(value);
    }

    /// Writes all figures as a JSON list. What else stands there stays as it is said.
    pub(crate) fn write(&self, path: &Path, keep: Keep) -> Outcome {
        let now = self.rows();
        let mut rows = kept(read(path)?, &now, keep);
        rows.extend(now);
        let place = |row: &Row| {
            let Row {
                workload,
                variant,
                metric,
                contestant,
                ..
            } = row.clone();
            (workload, variant, metric, contestant)
        };
        rows.sort_by_key(place);
        std::fs::write(path, serde_json::to_string_pretty(&rows)? + "\n")?;
        Ok(())
    }

    fn rows(&self) -> Vec<Row> {
        self.0
            .iter()
            .map(|(subject, (unit, values))| {
                let mut sorted = values.clone();
                sorted.sort_by(f64::total_cmp);
                Row {
                    workload: subject.workload.to_owned(),
                    variant: subject.variant.clone(),
                    contestant: subject.contestant.to_owned(),
                    metric: subject.metric.to_owned(),
                    unit: (*unit).to_owned(),
                    min: sorted.first().copied().unwrap_or_default(),
                    median: middle(&sorted),
                    max: sorted.last().copied().unwrap_or_default(),
                    runs: sorted.len(),
                }
            })
            .collect()
    }
}

/// The value in the middle, or halfway between the two there.
fn middle(sorted: &[f64]) -> f64 {
    match (sorted.len().checked_sub(1), sorted.len() / 2) {
        (Some(last), upper) => f64::midpoint(sorted[last / 2], sorted[upper]),
        (None, _) => 0.0,
    }
}

impl fmt::Display for Results {
    /// A table; each group is one metric of one variant, with the ratio of `onceward`'s median to that of each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n{:<4} {:<22} {:<20} {:<22} {:>12} {:>12} {:>12}  {:<11} {:>4}  {:>9}",
            "",
            "variant",
            "metric",
            "contestant",
            "min",
            "median",
            "max",
            "unit",
            "runs",
            "onceward/"
        )?;
        let lines = self.rows();
        for line in &lines {
            let ours = lines.iter().find(|other| {
                other.contestant == OURS
                    && (&other.workload, &other.variant, &other.metric)
                        == (&line.workload, &line.variant, &line.metric)
            });
            let ratio = match ours {
                Some(ours) if line.contestant != OURS && line.median > 0.0 => {
                    format!("{:.2}", ours.median / line.median)
                }
                Some(_) | None => String::new(),
            };
            writeln!(
                f,
                "{:<4} {:<22} {:<20} {:<22} {:>12.2} {:>12.2} {:>12.2}  {:<11} {:>4}  {:>9}",
                line.workload,
                line.variant,
                line.metric,
                line.contestant,
                line.min,
                line.median,
                line.max,
                line.unit,
                line.runs,
                ratio
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(workload: &str, contestant: &str, variant: &str) -> Row {
        Row {
            workload: workload.to_owned(),
            variant: variant.to_owned(),
            contestant: contestant.to_owned(),
            metric: "rate".to_owned(),
            unit: "msg/s".to_owned(),
            min: 1.0,
            median: 2.0,
            max: 3.0,
            runs: 3,
        }
    }

    #[test]
    fn a_workload_that_is_measured_anew_replaces_its_lines_and_leaves_those_of_peers() {
        let before = vec![
            row("W1", "onceward", "old"),
            row("W1", "debezium", "old"),
            row("W2", "onceward", "old"),
        ];
        let now = [row("W1", "onceward", "old")];

        let kept = kept(before.clone(), &now, Keep::OtherWorkloads);

        assert_eq!(kept, before[1..]);
    }

    #[test]
    fn a_variant_that_is_gone_goes_unless_a_peer_stands_in_it() {
        let before = vec![
            row("W1", "onceward", "gone"),
            row("W1", "onceward", "peers"),
            row("W1", "debezium", "peers"),
        ];
        let now = [row("W1", "onceward", "new")];

        let kept = kept(before.clone(), &now, Keep::OtherWorkloads);

        assert_eq!(kept, before[1..]);
    }

    #[test]
    fn beside_peers_only_what_was_measured_with_them_is_replaced() {
        let before = vec![
            row("W2", "onceward", "kafka-1000"),
            row("W2", "onceward", "nats-1000"),
        ];
        let now = [
            row("W2", "onceward", "kafka-1000"),
            row("W2", "debezium", "kafka-1000"),
        ];

        let kept = kept(before.clone(), &now, Keep::OtherVariants);

        assert_eq!(kept, before[1..]);
    }

    #[test]
    fn the_median_is_that_of_the_runs() {
        let mut results = Results::default();
        for value in [9.0, 1.0, 4.0] {
            results.add(("W1", "kafka"), "onceward", ("rate", "msg/s"), value);
        }

        let rows = results.rows();

        assert_eq!((rows[0].min, rows[0].median, rows[0].max), (1.0, 4.0, 9.0));
        assert_eq!(rows[0].runs, 3);
    }
}

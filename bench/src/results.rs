//! The figures: collected by run, shown as a table with ratios, written as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::Serialize;

use crate::outcome::Outcome;

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
#[derive(Debug, Serialize)]
struct Line<'a> {
    workload: &'a str,
    variant: &'a str,
    contestant: &'a str,
    metric: &'a str,
    unit: &'a str,
    min: f64,
    median: f64,
    max: f64,
    runs: usize,
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
        eprintln!("  {workload} {variant:<22} {contestant:<22} {metric:<12} {value:>12.1} {unit}");
        let subject = Subject {
            workload,
            variant: variant.to_owned(),
            metric,
            contestant,
        };
        let entry = self.0.entry(subject).or_insert((unit, Vec::new()));
        entry.1.push(value);
    }

    /// Writes all figures as a JSON list.
    pub(crate) fn write(&self, path: &Path) -> Outcome {
        let text = serde_json::to_string_pretty(&self.lines())?;
        std::fs::write(path, text + "\n")?;
        Ok(())
    }

    fn lines(&self) -> Vec<Line<'_>> {
        self.0
            .iter()
            .map(|(subject, (unit, values))| {
                let mut sorted = values.clone();
                sorted.sort_by(f64::total_cmp);
                Line {
                    workload: subject.workload,
                    variant: &subject.variant,
                    contestant: subject.contestant,
                    metric: subject.metric,
                    unit,
                    min: sorted.first().copied().unwrap_or_default(),
                    median: sorted.get(sorted.len() / 2).copied().unwrap_or_default(),
                    max: sorted.last().copied().unwrap_or_default(),
                    runs: sorted.len(),
                }
            })
            .collect()
    }
}

impl fmt::Display for Results {
    /// A table; each group is one metric of one variant, with the ratio of the best runs to `onceward`'s best.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n{:<4} {:<22} {:<14} {:<22} {:>12} {:>12} {:>12}  {:<8} {:>4}  {:>9}",
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
        let lines = self.lines();
        for line in &lines {
            let ours = lines.iter().find(|other| {
                other.contestant == "onceward"
                    && (other.workload, other.variant, other.metric)
                        == (line.workload, line.variant, line.metric)
            });
            let ratio = match ours {
                Some(ours) if line.contestant != "onceward" && line.max > 0.0 => {
                    format!("{:.2}", ours.max / line.max)
                }
                Some(_) | None => String::new(),
            };
            writeln!(
                f,
                "{:<4} {:<22} {:<14} {:<22} {:>12.1} {:>12.1} {:>12.1}  {:<8} {:>4}  {:>9}",
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

//! The page as Markdown.

use std::fmt::Write as _;

use super::words::{METRICS, WORKLOADS};
use crate::machine::{Machine, Machines, Run};
use crate::results::{OURS, Row};
use crate::targets::{Bound, TARGETS, Verdict};

const HEAD: &str = "# Performance

Made by `onceward-bench report` of [`bench/results.json`](../bench/results.json) and [`bench/machine.json`](../bench/machine.json): edit neither this
page nor its plots. `make bench` measures anew, in about 15 minutes, `make bench-full` everything, in the background; both make this page.

Read ratios, not absolute figures: contestants took turns on one machine, which ran the databases, the brokers and the clients as well. Each cell is
the least, the median and the most of the runs. *onceward ÷* compares medians: above 1 is better for a rate, worse for everything else.
What was tried to make it faster, what paid and what did not, is in [performance-notes.md](performance-notes.md).
";

/// Settings of all contestants, and what was not equal: by hand.
const SETTINGS: &str = include_str!("settings.md");

/// The page. `plot` gives the file of a workload's plot.
pub(super) fn page(
    rows: &[Row],
    machines: &Machines,
    plot: impl Fn(&str) -> Option<String>,
) -> String {
    let mut page = HEAD.to_owned();
    machine_part(&mut page, machines);
    targets_part(&mut page, rows);
    for workload in workloads(rows) {
        workload_part(&mut page, workload, rows, plot(workload));
    }
    page.push('\n');
    page.push_str(SETTINGS);
    page
}

/// Those that were measured, in order.
fn workloads(rows: &[Row]) -> Vec<&str> {
    let mut names: Vec<&str> = rows.iter().map(|row| row.workload.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn machine_part(page: &mut String, machines: &Machines) {
    page.push_str("\n## The machine\n\n");
    if machines.is_empty() {
        page.push_str("Not recorded with these figures.\n");
        return;
    }
    page.push_str(
        "A synced write is one of 8 KiB with `fdatasync`, after the runs.\n\n\
         | workload | day | backlog | repeats | seconds of a run | synced write, µs |\n|---|---|---:|---:|---:|---:|\n",
    );
    for (workload, run) in machines {
        let Run { day, repeats, .. } = run;
        let chosen = |number: Option<u64>| number.map_or("–".to_owned(), grouped);
        let (messages, seconds) = (chosen(run.messages), chosen(run.seconds));
        let sync = grouped(run.sync_us);
        line(
            page,
            format_args!("| {workload} | {day} | {messages} | {repeats} | {seconds} | {sync} |"),
        );
    }
    let mut known: Vec<(&Machine, Vec<&str>)> = Vec::new();
    for (workload, run) in machines {
        match known
            .iter_mut()
            .find(|(machine, _)| **machine == run.machine)
        {
            Some((_, names)) => names.push(workload),
            None => known.push((&run.machine, vec![workload])),
        }
    }
    for (machine, names) in known {
        line(page, format_args!("\n{}:\n", names.join(", ")));
        let cores = machine.cores;
        let memory = grouped(machine.memory);
        line(
            page,
            format_args!(
                "- {}, {cores} cores, {memory} MiB, {}, Linux {}, files on {}",
                machine.processor,
                told(&machine.system),
                machine.kernel,
                told(&machine.files)
            ),
        );
        line(
            page,
            format_args!(
                "- PostgreSQL {}, Kafka {}, Java {}, NATS {}, rustc {}",
                machine.postgres,
                machine.kafka,
                told(&machine.java),
                machine.nats,
                machine.rustc
            ),
        );
    }
}

/// What a run of before that was asked for does not tell.
fn told(what: &str) -> &str {
    if what.is_empty() { "not told" } else { what }
}

fn targets_part(page: &mut String, rows: &[Row]) {
    page.push_str(
        "\n## What is wanted, and what was reached\n\nOf several variants the worst one counts, by its median.\n\n\
         | workload | what | wanted | measured | |\n|---|---|---:|---:|---|\n",
    );
    for target in TARGETS {
        let wanted = match target.bound {
            Bound::AtLeast(least) => format!("≥ {}", figure(least)),
            Bound::AtMost(most) => format!("≤ {}", figure(most)),
        };
        let (measured, verdict) = match target.verdict(rows) {
            Verdict::Reached(measured) => (figure(measured), "reached"),
            Verdict::Missed(measured) => (figure(measured), "**missed**"),
            Verdict::NotMeasured => (String::new(), "not measured"),
        };
        let (workload, what) = (target.workload, target.what);
        line(
            page,
            format_args!("| {workload} | {what} | {wanted} | {measured} | {verdict} |"),
        );
    }
}

fn workload_part(page: &mut String, workload: &str, rows: &[Row], plot: Option<String>) {
    let words = WORKLOADS.iter().find(|(name, ..)| *name == workload);
    let (title, text) = words.map_or(("", ""), |(_, title, text)| (*title, *text));
    line(page, format_args!("\n## {workload} {title}\n\n{text}"));
    if let Some(plot) = plot {
        line(
            page,
            format_args!(
                "\n![{workload}: median of each contestant, lines from the least to the most]({plot})"
            ),
        );
    }
    let of_workload: Vec<&Row> = rows.iter().filter(|row| row.workload == workload).collect();
    for metric in metrics(&of_workload) {
        let of_metric: Vec<&Row> = of_workload
            .iter()
            .filter(|row| row.metric == metric)
            .copied()
            .collect();
        table(page, metric, &of_metric);
    }
}

/// The metrics of these rows: in the order of the page, then those that it does not know.
fn metrics<'a>(rows: &[&'a Row]) -> Vec<&'a str> {
    let place = |metric: &str| {
        METRICS
            .iter()
            .position(|(known, _)| *known == metric)
            .unwrap_or(METRICS.len())
    };
    let mut metrics: Vec<&str> = rows.iter().map(|row| row.metric.as_str()).collect();
    metrics.sort_by_key(|metric| (place(metric), *metric));
    metrics.dedup();
    metrics
}

fn table(page: &mut String, metric: &str, rows: &[&Row]) {
    let name = METRICS.iter().find(|(known, _)| *known == metric);
    let name = name.map_or(metric, |(_, name)| *name);
    let unit = rows.first().map_or("", |row| row.unit.as_str());
    let alone = rows.iter().all(|row| row.contestant == OURS);
    line(page, format_args!("\n**{name}** (`{metric}`, {unit})\n"));
    let (head, rule) = if alone {
        ("", "")
    } else {
        (" onceward ÷ |", "---:|")
    };
    line(
        page,
        format_args!("| variant | contestant | min | median | max | runs |{head}"),
    );
    line(page, format_args!("|---|---|---:|---:|---:|---:|{rule}"));
    for row in rows {
        let Row {
            variant,
            contestant,
            runs,
            ..
        } = row;
        let (min, median, max) = (figure(row.min), figure(row.median), figure(row.max));
        let ratio = match (alone, ratio(row, rows)) {
            (true, _) => String::new(),
            (false, Some(ratio)) => format!(" {ratio:.2} |"),
            (false, None) => " |".to_owned(),
        };
        line(
            page,
            format_args!(
                "| {variant} | {contestant} | {min} | **{median}** | {max} | {runs} |{ratio}"
            ),
        );
    }
}

/// Our median by that of another contestant in the same variant.
fn ratio(row: &Row, rows: &[&Row]) -> Option<f64> {
    if row.contestant == OURS || row.median <= 0.0 {
        return None;
    }
    let ours = rows
        .iter()
        .find(|other| other.contestant == OURS && other.variant == row.variant);
    Some(ours?.median / row.median)
}

/// Three digits that count.
pub(super) fn figure(value: f64) -> String {
    let size = value.abs();
    if size >= 999.5 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "figures are positive and far below 2^52"
        )]
        return grouped(value.round() as u64);
    }
    let digits = match size {
        size if size >= 99.95 || size == 0.0 => 0,
        size if size >= 9.995 => 1,
        size if size >= 0.9995 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn line(page: &mut String, text: std::fmt::Arguments<'_>) {
    // A string takes everything.
    writeln!(page, "{text}").ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(contestant: &str, median: f64) -> Row {
        Row {
            workload: "W1".to_owned(),
            variant: "kafka".to_owned(),
            contestant: contestant.to_owned(),
            metric: "rate".to_owned(),
            unit: "msg/s".to_owned(),
            min: 1.0,
            median,
            max: 9.0,
            runs: 3,
        }
    }

    #[test]
    fn figures_have_three_digits_that_count() {
        let figures = [0.0, 0.01234, 1.234, 12.34, 123.4, 999.6, 1_234_567.8].map(figure);

        assert_eq!(
            figures,
            ["0", "0.012", "1.23", "12.3", "123", "1,000", "1,234,568"]
        );
    }

    #[test]
    fn each_contestant_is_compared_with_ours() {
        let rows = [row("onceward", 8.0), row("raw-client", 16.0)];

        let page = page(&rows, &Machines::new(), |_| None);

        assert!(
            page.contains("| kafka | raw-client | 1.00 | **16.0** | 9.00 | 3 | 0.50 |"),
            "{page}"
        );
    }

    #[test]
    fn a_metric_that_nobody_has_words_for_is_shown_by_its_name() {
        let mut strange = row("onceward", 2.0);
        strange.metric = "strange".to_owned();

        let page = page(&[strange], &Machines::new(), |_| None);

        assert!(page.contains("**strange** (`strange`, msg/s)"), "{page}");
    }
}

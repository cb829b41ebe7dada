//! Makes `docs/performance.md`, its plots and `docs/capacity.md` of what was measured. Pure but for the files.

mod capacity;
mod page;
mod plot;
mod words;

use std::path::Path;

use crate::capacity::{Costs, Load};
use crate::machine::{self, Machines};
use crate::outcome::Outcome;
use crate::results::{self, Row};
use crate::targets::{TARGETS, Verdict};

/// The page, in the directory of the documentation.
const PAGE: &str = "performance.md";

/// The page of what it takes, beside it.
const CAPACITY: &str = "capacity.md";

/// A file of the documentation: its name there, and its text.
type File = (String, String);

/// What is plotted: workload and metric.
const PLOTTED: [(&str, &str); 7] = [
    ("W1", "rate"),
    ("W2", "p99_ms"),
    ("W3", "rate"),
    ("W4", "rate"),
    ("W5", "fraction_of_bare"),
    ("W6", "first_p99_ms"),
    ("W7", "rate"),
];

/// Writes the page and its plots into the directory of the documentation.
pub(crate) fn write(results: &Path, machine: &Path, into: &Path) -> Outcome {
    let rows = results::read(results)?;
    for (name, text) in files(&rows, &machine::read(machine)?)? {
        let path = into.join(name);
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        std::fs::write(&path, text)?;
        println!("{}", path.display());
    }
    let missed = TARGETS
        .iter()
        .filter_map(|target| match target.verdict(&rows) {
            Verdict::Missed(figure) => Some((target, figure)),
            Verdict::Reached(_) | Verdict::NotMeasured => None,
        });
    for (target, figure) in missed {
        let (workload, what, bound) = (target.workload, target.what, target.bound);
        println!("missed: {workload} {what}: {figure:.2}, wanted {bound}");
    }
    Ok(())
}

fn files(rows: &[Row], machines: &Machines) -> Outcome<Vec<File>> {
    let mut files = Vec::new();
    for (workload, metric) in PLOTTED {
        if let Some(text) = plot::bars(rows, workload, metric)? {
            files.push((plot_of(workload), text));
        }
    }
    let plotted = |workload: &str| {
        let name = plot_of(workload);
        files
            .iter()
            .any(|(known, _)| *known == name)
            .then_some(name)
    };
    files.push((PAGE.to_owned(), page::page(rows, machines, plotted)));
    let cores = cores(machines);
    files.push((CAPACITY.to_owned(), capacity::page(&Costs::of(rows), cores)));
    Ok(files)
}

/// The cores of the machine that the producer was measured on.
fn cores(machines: &Machines) -> Option<usize> {
    machines.get("W3").map(|run| run.machine.cores)
}

/// What a load takes, by the same figures.
pub(crate) fn take(results: &Path, machine: &Path, load: &Load) -> Outcome {
    let costs = Costs::of(&results::read(results)?);
    print!(
        "{}",
        capacity::answer(&costs, cores(&machine::read(machine)?), load)
    );
    Ok(())
}

fn plot_of(workload: &str) -> String {
    format!("performance/{}.svg", workload.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_what_the_results_make_of_it() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let docs = here.join("../docs");
        let rows = results::read(&here.join("results.json")).unwrap();
        let machines = machine::read(&here.join("machine.json")).unwrap();

        for (name, made) in files(&rows, &machines).unwrap() {
            let found = std::fs::read_to_string(docs.join(&name)).unwrap_or_default();

            assert!(
                found == made,
                "docs/{name} is another one: run `target/release/onceward-bench report`"
            );
        }
    }
}

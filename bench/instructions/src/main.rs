//! Counts the instructions of the hot functions and compares them with `bench/instructions.json`.
//!
//! Instructions do not depend on what else the machine does, so that a change which makes one of these slower is seen at once.
//! They are not time: a change that trades instructions for cache misses is not seen. `make bench` sees that.
//!
//! The modules are compiled here once more, out of the files of their own crates: those crates bring clients of databases and
//! brokers, whose release build takes ten minutes and more. What is counted is pure and needs none of them.

mod callgrind;
mod cases;
#[allow(
    dead_code,
    reason = "a module of another crate: what is hot in it is used here, the rest or not by its tests"
)]
#[path = "../../../consumer/src/keys.rs"]
mod keys;
#[allow(dead_code, unreachable_pub, reason = "as above")]
mod log;
#[allow(dead_code, reason = "as above")]
#[path = "../../../consumer/src/mark.rs"]
mod mark;
#[allow(dead_code, reason = "as above")]
#[path = "../../../relay/src/pause.rs"]
mod pause;
#[allow(dead_code, reason = "as above")]
mod plan;
mod table;
#[allow(dead_code, reason = "as above")]
#[path = "../../../relay/src/window/mod.rs"]
mod window;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode};

use table::{Table, Verdict, change};

/// A result whose error is only ever shown.
pub(crate) type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Calls of each function that are counted; the figure is that of one.
pub(crate) const CALLS: usize = 20;

/// The counts that are written down.
const TABLE: &str = "bench/instructions.json";

const USAGE: &str = "usage: onceward-instructions [--renew]

Counts the instructions of the hot functions and compares them with bench/instructions.json; --renew writes that anew.";

/// What the modules of `onceward` ask for planted bugs.
mod faults {
    pub(crate) const fn late_rows_are_dropped() -> bool {
        false
    }
}

fn main() -> Outcome<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let table = Path::new(TABLE);
    match arguments[..] {
        ["--case", case] => callgrind::run(case)?,
        ["--renew"] => {
            count()?.write(table)?;
            println!("written to {TABLE}");
        }
        [] => {
            if !compare(&Table::read(table)?, &count()?) {
                return Ok(ExitCode::FAILURE);
            }
        }
        _ => {
            eprintln!("{USAGE}");
            return Ok(ExitCode::from(2));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn count() -> Outcome<Table> {
    let mut instructions = BTreeMap::new();
    for (name, _) in cases::ALL {
        instructions.insert(name.to_owned(), callgrind::count(name)?);
    }
    Ok(Table {
        rustc: rustc()?,
        architecture: std::env::consts::ARCH.to_owned(),
        instructions,
    })
}

/// The version of the compiler that is installed, which has made this program a moment ago.
fn rustc() -> Outcome<String> {
    let output = Command::new("rustc").arg("--version").output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.split(' ').nth(1).unwrap_or("unknown").to_owned())
}

/// Shows both side by side; false if the counts are not to be accepted.
fn compare(written: &Table, counted: &Table) -> bool {
    println!(
        "{:<44} {:>10} {:>10} {:>8}",
        "instructions of one call", "table", "now", "change"
    );
    let tolerance = written.tolerance(counted);
    let (mut slower, mut faster, mut unknown) = (0, 0, 0);
    for (name, count) in &counted.instructions {
        let verdict = written.judge(name, *count, tolerance.unwrap_or(f64::INFINITY));
        let before = written.instructions.get(name).copied().unwrap_or_default();
        let mark = match verdict {
            Verdict::Same => "",
            Verdict::Slower => {
                slower += 1;
                "  SLOWER"
            }
            Verdict::Faster => {
                faster += 1;
                "  faster"
            }
            Verdict::New => {
                unknown += 1;
                "  not in the table"
            }
        };
        let change = 100.0 * change(before, *count);
        println!("{name:<44} {before:>10} {count:>10} {change:>+7.1}%{mark}");
    }
    for name in written.forgotten(counted) {
        println!("{name:<44} is in the table and is not counted any more");
        unknown += 1;
    }
    if written.rustc != counted.rustc {
        println!(
            "The table is of rustc {}, this is rustc {}: counts may differ more.",
            written.rustc, counted.rustc
        );
    }
    if tolerance.is_none() {
        println!(
            "The table is of {}: nothing is judged here.",
            written.architecture
        );
    }
    if faster > 0 {
        println!("Faster: lower the table, so that it holds what was won.");
    }
    if slower + faster + unknown > 0 {
        println!(
            "To renew the table, with rustc {}: scripts/count-instructions.sh --renew",
            written.rustc
        );
        println!("Then say in the change why the counts are others.");
    }
    slower + unknown == 0
}

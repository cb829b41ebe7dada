//! Counts the instructions of a case: this program runs itself under valgrind's callgrind, which counts in `counted` only.

use std::hint::black_box;
use std::process::{Command, Stdio};

use crate::cases::{self, Case};
use crate::{CALLS, Outcome};

/// Runs a case inside of what callgrind counts.
#[inline(never)]
fn counted(case: &mut Case) {
    case();
    // So that the call above is not the last thing done, which a jump would do as well.
    black_box(());
}

/// What runs under callgrind: the case once to warm up, then [`CALLS`] times counted.
pub(crate) fn run(name: &str) -> Outcome {
    let found = cases::ALL.iter().find(|(known, _)| *known == name);
    let (_, make) = found.ok_or("no such case")?;
    let mut case = make(CALLS + 1)?;
    case();
    for _ in 0..CALLS {
        counted(&mut case);
    }
    Ok(())
}

/// The instructions of one call of a case.
pub(crate) fn count(name: &str) -> Outcome<u64> {
    let file = std::env::temp_dir().join(format!("onceward-callgrind-{}", std::process::id()));
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg("--toggle-collect=*onceward_instructions::callgrind::counted*")
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(std::env::current_exe()?)
        .args(["--case", name])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("valgrind cannot be started: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{name}: {}\n{said}", output.status).into());
    }
    let written = std::fs::read_to_string(&file)?;
    std::fs::remove_file(file)?;
    let total = total(&written).ok_or("callgrind wrote no total")?;
    if total == 0 {
        return Err(format!("{name}: callgrind counted nothing").into());
    }
    Ok(total / CALLS as u64)
}

/// The sum that callgrind wrote.
fn total(text: &str) -> Option<u64> {
    let lines = text.lines();
    let mut sums = lines.filter_map(|line| line.strip_prefix("summary:"));
    sums.next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_found_among_the_lines() {
        let text = "version: 1\nevents: Ir\nsummary: 1234\n\nfn=(1) main\n1 10\ntotals: 1234\n";

        assert_eq!(total(text), Some(1_234));
        assert_eq!(total("version: 1\n"), None);
    }
}

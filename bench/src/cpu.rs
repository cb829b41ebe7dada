//! CPU seconds, user and system, as the kernel counts them for each process.

use crate::outcome::Outcome;

/// The kernel counts in hundredths of a second on every Linux of this kind.
const TICKS: f64 = 100.0;

/// What a process has used so far, without its children.
pub(crate) fn of_process(pid: u32) -> Outcome<f64> {
    Ok(seconds(&stat(&pid.to_string())?, 2)?)
}

/// What this process has used so far: the clients of the benchmark.
pub(crate) fn of_this() -> Outcome<f64> {
    Ok(seconds(&stat("self")?, 2)?)
}

/// What a process has used so far, with its children and with those of them that have ended.
pub(crate) fn of_family(pid: u32) -> Outcome<f64> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let mut sum = seconds(&stat(&pid.to_string())?, 4)?;
    for child in children.split_whitespace() {
        // It may have ended since; then its parent has it.
        if let Ok(stat) = stat(child) {
            sum += seconds(&stat, 4)?;
        }
    }
    Ok(sum)
}

fn stat(process: &str) -> std::io::Result<String> {
    std::fs::read_to_string(format!("/proc/{process}/stat"))
}

/// The sum of the first of the four times in a `stat`: user, system, and both again of children that were waited for.
fn seconds(stat: &str, first: usize) -> Result<f64, std::num::ParseFloatError> {
    // The program's name may hold blanks and brackets.
    let (_, fields) = stat.rsplit_once(')').unwrap_or(("", stat));
    let times = fields.split_whitespace().skip(11).take(first);
    let ticks = times.map(str::parse::<f64>).sum::<Result<f64, _>>()?;
    Ok(ticks / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_a_name_with_brackets_and_blanks() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 200 0 0 150 50 30 20 20 0 1 0 5";

        assert_eq!(seconds(stat, 2), Ok(2.0));
        assert_eq!(seconds(stat, 4), Ok(2.5));
    }

    #[test]
    fn a_process_that_runs_has_used_some() {
        assert!(of_this().unwrap() >= 0.0);
        assert!(of_family(std::process::id()).unwrap() >= of_process(std::process::id()).unwrap());
    }
}

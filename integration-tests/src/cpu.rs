//! The time for which processes kept a processor busy, user and system, as the kernel counts it in `/proc`.

use std::io;
use std::time::Duration;

/// The kernel counts in hundredths of a second on every Linux of this kind.
const TICK: Duration = Duration::from_millis(10);

/// What a process has used so far, without its children.
///
/// # Errors
/// That there is no such process.
pub fn of_process(pid: u32) -> io::Result<Duration> {
    busy(&stat(&pid.to_string())?, 2)
}

/// What this process has used so far.
///
/// # Errors
/// That the system has no `/proc`.
pub fn of_this() -> io::Result<Duration> {
    busy(&stat("self")?, 2)
}

/// What a process has used so far, with its children and with those of them that have ended.
///
/// # Errors
/// That there is no such process.
pub fn of_family(pid: u32) -> io::Result<Duration> {
    let head = pid.to_string();
    loop {
        let before = busy(&stat(&head)?, 4)?;
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let (mut sum, mut have_ended) = (before, false);
        for child in children.split_whitespace() {
            match stat(child) {
                Ok(stat) => sum += busy(&stat, 4)?,
                Err(_) => have_ended = true,
            }
        }
        // What one that has ended had used is its parent's by now: look again.
        if !have_ended {
            return Ok(sum);
        }
    }
}

fn stat(process: &str) -> io::Result<String> {
    std::fs::read_to_string(format!("/proc/{process}/stat"))
}

/// The sum of the first of the four times in a `stat`: user, system, and both again of children that were waited for.
fn busy(stat: &str, first: usize) -> io::Result<Duration> {
    // The program's name may hold blanks and brackets.
    let (_, fields) = stat.rsplit_once(')').unwrap_or(("", stat));
    let times = fields.split_whitespace().skip(11).take(first);
    let ticks = times.map(str::parse::<u32>).sum::<Result<u32, _>>();
    Ok(TICK * ticks.map_err(io::Error::other)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_a_name_with_brackets_and_blanks() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 200 0 0 150 50 30 20 20 0 1 0 5";

        assert_eq!(busy(stat, 2).unwrap(), Duration::from_secs(2));
        assert_eq!(busy(stat, 4).unwrap(), Duration::from_millis(2_500));
    }

    #[test]
    fn a_family_has_used_what_its_head_has_used_and_more() {
        let head = of_process(std::process::id()).unwrap();

        assert!(of_this().unwrap() >= head);
        assert!(of_family(std::process::id()).unwrap() >= head);
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        assert!(of_process(u32::MAX).is_err());
    }
}

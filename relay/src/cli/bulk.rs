//! What `replay` and `discard` have in common, of parked messages and of dead letters: which ones, and what became of them.

use clap::Args;

use super::failure::Failure;

/// The ones that were named, or all that wait.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Which {
    /// Their numbers, as the list shows them
    #[arg(value_name = "NUMBER")]
    pub(super) numbers: Vec<i64>,
    /// All that wait for a person
    #[arg(long)]
    pub(super) all: bool,
}

impl Which {
    /// Of those that were asked for by number, the ones with which nothing was done.
    pub(super) fn left(&self, asked: &[i64], done: &[i64]) -> Vec<i64> {
        // With --all somebody else has decided about them meanwhile.
        let left = asked.iter().filter(|n| !self.all && !done.contains(n));
        left.copied().collect()
    }

    /// What became of them, for people: `things` as in "2 dead letters", `done` as in "replayed"; `matched`: how many there were.
    pub(super) fn sentence(&self, things: &str, done: &str, matched: usize) -> String {
        if self.all && matched == 0 {
            format!("{things}: nothing matched, so nothing was changed")
        } else {
            format!("{things}: {done}")
        }
    }
}

/// That some are left as they are, if any are.
pub(super) fn refuse_left(left: &[i64], remedy: &str) -> Result<(), Failure> {
    if left.is_empty() {
        return Ok(());
    }
    let left: Vec<String> = left.iter().map(ToString::to_string).collect();
    Err(Failure::failed(format!("left as they are: {}", left.join(", "))).remedy(remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn which(numbers: &[i64]) -> Which {
        Which {
            numbers: numbers.to_vec(),
            all: numbers.is_empty(),
        }
    }

    #[test]
    fn what_was_named_and_not_done_is_left() {
        assert_eq!(which(&[1, 2]).left(&[1, 2], &[2]), [1]);
        assert_eq!(which(&[]).left(&[1, 2], &[2]), [0; 0]);
        assert!(
            refuse_left(&[1], "look")
                .unwrap_err()
                .to_string()
                .contains("left as they are: 1")
        );
    }

    #[test]
    fn that_nothing_matched_is_said() {
        assert_eq!(
            which(&[]).sentence("0 dead letters", "discarded", 0),
            "0 dead letters: nothing matched, so nothing was changed"
        );
        assert_eq!(
            which(&[1]).sentence("1 dead letter", "replayed", 1),
            "1 dead letter: replayed"
        );
        assert_eq!(
            which(&[]).sentence("0 dead letters", "replayed", 2),
            "0 dead letters: replayed"
        );
    }
}

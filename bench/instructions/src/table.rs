//! Compares counts with those that are written down. Pure but for the file.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Outcome;

/// More or fewer instructions than this share are told, by the compiler that made the table.
const TOLERANCE: f64 = 0.10;

/// The same by another compiler: it inlines differently.
const TOLERANCE_OTHER_COMPILER: f64 = 0.25;

/// The counts that are written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Table {
    /// The compiler's version, such as `1.95.0`.
    pub(crate) rustc: String,
    /// The processor's architecture. Counts of two cannot be compared at all.
    pub(crate) architecture: String,
    /// Instructions of one call, by name.
    pub(crate) instructions: BTreeMap<String, u64>,
}

/// What is to be said of one function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Same,
    /// More than allowed.
    Slower,
    /// So many fewer that the table hides what comes next.
    Faster,
    /// It is not in the table.
    New,
}

impl Table {
    pub(crate) fn read(path: &Path) -> Outcome<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
        Ok(serde_json::from_str(&text)?)
    }

    pub(crate) fn write(&self, path: &Path) -> Outcome {
        std::fs::write(path, serde_json::to_string_pretty(self)? + "\n")?;
        Ok(())
    }

    /// How much a count may differ, if those of `counted` and of this table can be compared.
    pub(crate) fn tolerance(&self, counted: &Self) -> Option<f64> {
        if self.architecture != counted.architecture {
            None
        } else if self.rustc != counted.rustc {
            Some(TOLERANCE_OTHER_COMPILER)
        } else {
            Some(TOLERANCE)
        }
    }

    /// What is to be said of a count.
    pub(crate) fn judge(&self, name: &str, count: u64, tolerance: f64) -> Verdict {
        let Some(before) = self.instructions.get(name) else {
            return Verdict::New;
        };
        let change = change(*before, count);
        if change > tolerance {
            Verdict::Slower
        } else if change < -tolerance {
            Verdict::Faster
        } else {
            Verdict::Same
        }
    }

    /// Names of the table that nobody counts any more.
    pub(crate) fn forgotten<'a>(&'a self, counted: &'a Self) -> impl Iterator<Item = &'a String> {
        let names = self.instructions.keys();
        names.filter(|name| !counted.instructions.contains_key(*name))
    }
}

/// How much more one count is than another, as a share of that.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub(crate) fn change(before: u64, now: u64) -> f64 {
    now as f64 / before.max(1) as f64 - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rustc: &str, architecture: &str) -> Table {
        Table {
            rustc: rustc.to_owned(),
            architecture: architecture.to_owned(),
            instructions: [("a".to_owned(), 1_000)].into(),
        }
    }

    #[test]
    fn a_function_that_takes_more_than_a_tenth_more_is_slower() {
        let table = table("1", "x86_64");
        let judge = |count| table.judge("a", count, TOLERANCE);

        assert_eq!(judge(1_099), Verdict::Same);
        assert_eq!(judge(1_101), Verdict::Slower);
        assert_eq!(judge(901), Verdict::Same);
        assert_eq!(judge(899), Verdict::Faster);
    }

    #[test]
    fn a_function_that_is_not_written_down_is_new_and_one_that_is_gone_is_forgotten() {
        let written = table("1", "x86_64");
        let mut counted = table("1", "x86_64");
        counted.instructions = [("b".to_owned(), 1)].into();

        assert_eq!(written.judge("b", 1, TOLERANCE), Verdict::New);
        assert_eq!(written.forgotten(&counted).collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn another_compiler_is_given_more_room_and_another_processor_is_not_judged() {
        let written = table("1", "x86_64");

        assert_eq!(written.tolerance(&table("1", "x86_64")), Some(0.10));
        assert_eq!(written.tolerance(&table("2", "x86_64")), Some(0.25));
        assert_eq!(written.tolerance(&table("1", "aarch64")), None);
    }
}

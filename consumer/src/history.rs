//! The attempts at one delivery, for its dead letter.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// How many attempts are told of; of more, the first and the last ones.
const TOLD: usize = 50;

/// One attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Counted from 1.
    pub number: u32,
    /// When it began.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// What it failed with: the error and its sources.
    pub error: String,
}

/// The attempts so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    attempts: Vec<Attempt>,
}

impl From<Vec<Attempt>> for History {
    fn from(attempts: Vec<Attempt>) -> Self {
        Self { attempts }
    }
}

impl History {
    pub(crate) fn add(&mut self, number: u32, at: OffsetDateTime, took: Duration, error: String) {
        if self.attempts.len() >= TOLD {
            self.attempts.remove(TOLD / 2);
        }
        // As the database stores it.
        let micros = at.nanosecond() / 1_000 * 1_000;
        self.attempts.push(Attempt {
            number,
            at: at.replace_nanosecond(micros).unwrap_or(at),
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            error,
        });
    }

    pub(crate) fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }

    pub(crate) fn first_failed_at(&self) -> Option<OffsetDateTime> {
        self.attempts.first().map(|attempt| attempt.at)
    }

    /// How many there were, those included that are not told of.
    pub(crate) fn count(&self) -> i32 {
        let last = self.attempts.last().map_or(0, |attempt| attempt.number);
        i32::try_from(last).unwrap_or(i32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_attempts_the_first_and_the_last_are_told_of() {
        let mut history = History::default();

        for number in 1..=200 {
            let at = OffsetDateTime::UNIX_EPOCH;
            history.add(number, at, Duration::ZERO, String::new());
        }

        let told = history.attempts();
        assert_eq!(told.len(), TOLD);
        assert_eq!((told[0].number, told[24].number), (1, 25));
        assert_eq!(told[49].number, 200);
        assert_eq!(history.count(), 200);
    }
}

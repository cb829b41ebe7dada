//! What is wrong with a configuration: all of it at once, with the remedy, and never a secret.

use std::fmt;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The setting, as in `streams.events.chunk`; empty for the file as a whole.
    pub path: String,
    /// What was given, unless it may be a secret.
    pub value: Option<String>,
    /// What is wrong, and what is allowed.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.path.is_empty(), &self.value) {
            (true, _) => write!(f, "{}", self.what),
            (false, None) => write!(f, "{}: {}", self.path, self.what),
            (false, Some(value)) => write!(f, "{} = {value}: {}", self.path, self.what),
        }
    }
}

/// A configuration that cannot be used, with everything that is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Where it was read from, for people.
    pub origin: String,
    /// At least one.
    pub problems: Vec<Problem>,
    /// Whether its file cannot be read at all.
    pub unreadable: bool,
}

impl ConfigError {
    pub(super) fn one(origin: &str, path: &str, what: impl Into<String>) -> Self {
        Self {
            origin: origin.to_owned(),
            problems: vec![Problem {
                path: path.to_owned(),
                value: None,
                what: what.into(),
            }],
            unreadable: false,
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problems[..] {
            [problem] => write!(
                f,
                "the configuration {} has a problem: {problem}",
                self.origin
            ),
            problems => {
                let count = problems.len();
                write!(f, "the configuration {} has {count} problems:", self.origin)?;
                problems.iter().try_for_each(|p| write!(f, "\n  - {p}"))
            }
        }
    }
}

impl std::error::Error for ConfigError {}

/// The known name that is most like `given`, if one is like it at all.
pub(crate) fn nearest<'a>(given: &str, known: &[&'a str]) -> Option<&'a str> {
    let distance = |name: &str| strsim::damerau_levenshtein(given, name);
    let best = known.iter().copied().min_by_key(|name| distance(name))?;
    let longest = given.chars().count().max(best.len());
    (distance(best) * 2 <= longest).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_a_stranger_has_none() {
        let known = ["topics", "route", "lease_ttl"];

        assert_eq!(nearest("topcis", &known), Some("topics"));
        assert_eq!(nearest("lease-ttl", &known), Some("lease_ttl"));
        assert_eq!(nearest("xyzzy", &known), None);
    }
}

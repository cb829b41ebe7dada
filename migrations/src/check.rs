//! Compares what a database has with what this program knows. Pure: no I/O.

use onceward_core::Schema;

use crate::MigrateError;
use crate::migration::Migration;

/// A step as the database remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Applied {
    pub(crate) version: i32,
    pub(crate) checksum: String,
}

/// How a database stands to this program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The schema that was looked at.
    pub schema: Schema,
    /// The newest version that was applied; none in a database without the schema.
    pub version: Option<i32>,
    /// The newest version that this program knows.
    pub known: i32,
    /// What follows from it.
    pub state: State,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nothing.
    Current,
    /// Apply these versions, with [`Migrations::run`](crate::Migrations::run) or as SQL.
    Pending(Vec<i32>),
    /// The database was made by a newer release: use that one.
    Newer,
    /// This version was applied with another text.
    Changed(i32),
}

/// Compares the steps that were applied with those that are known.
pub(crate) fn compare(schema: &Schema, applied: &[Applied], known: &[Migration]) -> Check {
    let newest = known.last().map_or(0, |step| step.version);
    let version = applied.iter().map(|step| step.version).max();
    let find = |version: i32| applied.iter().find(|step| step.version == version);
    let changed = known
        .iter()
        .find(|step| find(step.version).is_some_and(|a| a.checksum != step.checksum()));
    let pending: Vec<i32> = known
        .iter()
        .map(|step| step.version)
        .filter(|version| find(*version).is_none())
        .collect();

    let state = if version.is_some_and(|version| version > newest) {
        State::Newer
    } else if let Some(step) = changed {
        State::Changed(step.version)
    } else if pending.is_empty() {
        State::Current
    } else {
        State::Pending(pending)
    };
    Check {
        schema: schema.clone(),
        version,
        known: newest,
        state,
    }
}

impl Check {
    /// The versions to apply, or why there is nothing that this program may do.
    pub(crate) fn pending(self) -> Result<Vec<i32>, MigrateError> {
        match self.state {
            State::Current => Ok(Vec::new()),
            State::Pending(versions) => Ok(versions),
            State::Newer => Err(MigrateError::Newer {
                schema: self.schema,
                found: self.version.unwrap_or_default(),
                known: self.known,
            }),
            State::Changed(version) => Err(MigrateError::Changed {
                schema: self.schema,
                version,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migration::{ALL, LATEST};

    fn applied(versions: impl IntoIterator<Item = i32>) -> Vec<Applied> {
        let checksum = |version: i32| {
            let known = ALL.iter().find(|step| step.version == version);
            known.map_or_else(String::new, Migration::checksum)
        };
        versions
            .into_iter()
            .map(|version| Applied {
                version,
                checksum: checksum(version),
            })
            .collect()
    }

    fn state(applied: &[Applied]) -> State {
        compare(&Schema::default(), applied, &ALL).state
    }

    #[test]
    fn what_was_not_applied_is_pending() {
        assert_eq!(state(&[]), State::Pending((1..=LATEST).collect()));
        assert_eq!(
            state(&applied([1, 2])),
            State::Pending((3..=LATEST).collect())
        );
        assert_eq!(state(&applied(1..=LATEST)), State::Current);
    }

    #[test]
    fn a_newer_schema_is_newer_whatever_else_it_lacks() {
        assert_eq!(state(&applied(1..=LATEST + 1)), State::Newer);
        assert_eq!(state(&applied([1, 9])), State::Newer);
    }

    #[test]
    fn a_step_with_another_text_is_changed() {
        let mut steps = applied(1..=4);
        steps[1].checksum = "other".to_owned();

        assert_eq!(state(&steps), State::Changed(2));
    }
}

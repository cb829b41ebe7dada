//! Why a consumer is not built, does not start, or ends.

use std::fmt;

use onceward_core::{Chain, InvalidGlob, InvalidTopic, Schema, SubscribeError};
use tokio::task::JoinError;

use crate::InvalidName;
use crate::schema::Right;

/// Why a consumer cannot be built: correct the program.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The consumer's name is not valid.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// A handler's pattern of types is not valid.
    #[error("a handler's pattern of types is not valid")]
    Pattern(#[source] InvalidGlob),
    /// The topic for dead letters is not valid.
    #[error("the topic for dead letters is not valid")]
    Topic(#[source] InvalidTopic),
    /// Two handlers have the same pattern.
    #[error("the pattern {0:?} has two handlers")]
    PatternTwice(String),
    /// No pool was given.
    #[error("the consumer has no pool; call `pool`")]
    NoPool,
    /// There is nothing to do with any message.
    #[error(
        "the consumer has no handler; call `on`, `on_with`, `handler`, `on_batch`, `on_batch_with` or `batch`"
    )]
    NoHandler,
    /// Settings were given before any handler.
    #[error("`with` sets what the handler before it gets, and there is none")]
    SettingsWithoutHandler,
    /// Messages of a batch are deduped by their marks.
    #[error(
        "handlers of batches keep marks; leave out `dedupe_by_sequence`, or handle the messages one by one"
    )]
    BatchBySequence,
    /// Settings make no sense.
    #[error("the settings of {of} make no sense: {what}")]
    Settings {
        /// Whose.
        of: String,
        /// Why.
        what: &'static str,
    },
}

/// As for people: with what lies behind it.
impl fmt::Debug for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Chain(self))
    }
}

/// Why a consumer does not start, or ended without being told to.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum ConsumerError {
    /// The database cannot be reached at the start. While the consumer runs, it waits instead.
    #[error("the database cannot be asked at the start")]
    Database(#[source] sqlx::Error),
    /// The server takes no writes.
    #[error("the database is a standby and takes no writes; give the primary's address")]
    Standby,
    /// The tables are not there.
    #[error("the database has no schema {0} with Onceward's tables; run `onceward migrate`")]
    NoSchema(Schema),
    /// The role may not do what a consumer does.
    #[error("{}", Lacking { user: role, roles, missing })]
    Rights {
        /// The database user that asked.
        role: String,
        /// The roles to grant, which would give what is missing; none: the user has them, without their rights, or they are not there.
        roles: Vec<&'static str>,
        /// What it lacks.
        missing: Vec<Right>,
    },
    /// A table was altered so that messages could be lost, doubled or put out of order without an error: row security, a trigger that runs
    /// before rows are written, a rule, or it is unlogged.
    #[error(
        "the table {table} has {what}; take that away: `onceward doctor --duty consume` has the statement"
    )]
    Altered {
        /// The table or partition, with its schema.
        table: String,
        /// What it has.
        what: String,
    },
    /// The subscription is set up in a way that would lose messages or order.
    #[error("the subscription is refused")]
    Subscribe(#[source] SubscribeError),
    /// A part of the consumer ended by itself, which is a bug in Onceward or its adapter.
    #[error("a part of the consumer ended by itself")]
    Task(#[source] Option<JoinError>),
}

/// As for people: with what lies behind it.
impl fmt::Debug for ConsumerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Chain(self))
    }
}

impl ConsumerError {
    pub(crate) fn task(error: Option<JoinError>) -> Self {
        Self::Task(error)
    }
}

/// How many single rights are named.
const NAMED: usize = 6;

/// What a user lacks: the role to grant, or single rights if it has that.
struct Lacking<'a> {
    user: &'a str,
    roles: &'a [&'static str],
    missing: &'a [Right],
}

impl fmt::Display for Lacking<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (user, roles) = (self.user, self.roles.join(", "));
        if !self.roles.is_empty() {
            let quoted = user.replace('"', "\"\"");
            return write!(
                f,
                "the database user {user} lacks the rights of {roles}; as an administrator: grant {roles} to \"{quoted}\";"
            );
        }
        write!(
            f,
            "the database user {user} lacks rights that no role of its own gives it; as the owner of the tables:"
        )?;
        for right in self.missing.iter().take(NAMED) {
            write!(f, " {}", right.grant())?;
        }
        match self.missing.len().saturating_sub(NAMED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(roles: &[&'static str], missing: usize) -> String {
        let right = |slot| Right {
            role: "half".to_owned(),
            kind: "table".to_owned(),
            object: format!("onceward.processed_messages_{slot}"),
            privilege: "DELETE".to_owned(),
            exists: true,
            held: false,
        };
        let error = ConsumerError::Rights {
            role: "half".to_owned(),
            roles: roles.to_vec(),
            missing: (0..missing).map(right).collect(),
        };
        format!("{error:?}")
    }

    #[test]
    fn a_user_without_its_role_is_told_the_one_statement_that_grants_it() {
        assert_eq!(
            refused(&["onceward_consumer"], 65),
            "the database user half lacks the rights of onceward_consumer; as an administrator: grant onceward_consumer to \"half\";"
        );
    }

    #[test]
    fn single_rights_are_named_only_to_who_has_the_role_and_only_some() {
        let many = refused(&[], 65);

        assert!(many.contains("grant delete on table onceward.processed_messages_5 to \"half\";"));
        assert!(!many.contains("processed_messages_6"), "{many}");
        assert!(many.ends_with(" and 59 more"), "{many}");
    }
}

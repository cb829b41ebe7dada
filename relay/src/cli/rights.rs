//! Which role a command takes, and how a user comes to it, for whoever was refused for want of a right.

use onceward::schema;

use super::failure::Failure;
use super::{Command, database};
use crate::config::Database;

impl Command {
    /// The role that its database user needs; none: it takes the owner of the schema.
    pub(super) fn role(&self) -> Option<&'static str> {
        match self {
            Self::Migrate(_) => None,
            Self::Relay(_) => Some("onceward_relay"),
            Self::Doctor(doctor) => Some(doctor.role()),
            Self::Status(_) | Self::Parked(_) | Self::DeadLetters(_) | Self::Stream(_) => {
                Some("onceward_admin")
            }
        }
    }
}

/// Says what to grant, if it was for want of a right that something failed.
pub(super) fn explain(failure: Failure, role: Option<&str>, database: &Database) -> Failure {
    if !failure.is_forbidden() {
        return failure;
    }
    let user = database::user(database);
    let remedy = match (role, user) {
        (Some(role), Some(user)) => format!(
            "it takes the role {role}: let database.url name a user who has it, or as an administrator: {}",
            schema::grant(role, &user)
        ),
        (Some(role), None) => format!("it takes the role {role}: grant it to the user"),
        (None, _) => "run it as the owner of the schema; for the first time as a user who may create schemas in this database".to_owned(),
    };
    failure.remedy(remedy)
}

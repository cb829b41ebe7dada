//! Which role a command takes, and how a user comes to it, for whoever was refused for want of a right.

use onceward::schema::{self, Duty};
use onceward_core::BoxError;

use super::database::{self, Reached};
use super::failure::Failure;
use super::{Command, Context};
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

/// Refuses who may not decide on what waits for a person. The database alone would let the users of relays and consumers do some of
/// it, who need most of these rights for their own work.
pub(super) async fn demand_admin(context: &Context, reached: &Reached) -> Result<(), Failure> {
    let schema = &context.config.database.schema;
    let asked = async {
        let mut connection = reached.pool.acquire().await?;
        let lacking = schema::lacking(&mut connection, schema, Duty::Administer).await?;
        Ok::<_, BoxError>(lacking)
    };
    match reached.ask("the check of the rights", asked).await? {
        None => Ok(()),
        Some(finding) => Err(
            Failure::failed(format!("permission denied: {}", finding.text)).remedy(format!(
                "let database.url name a user who may decide, or {}",
                finding.remedy
            )),
        ),
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

//! Judges whether the user may do its work: names the one role to grant, and single rights only where the role is not enough.

use onceward_core::Schema;

use crate::schema::{Duty, Finding, Membership, MissingRight, grant, grant_rights};
use crate::sql::identifier;

/// How many single rights are named.
const NAMED: usize = 6;

/// How a user stands to what its duty takes.
pub(in crate::schema) struct Standing<'a> {
    pub(in crate::schema) schema: &'a Schema,
    pub(in crate::schema) user: &'a str,
    pub(in crate::schema) duty: Duty,
    pub(in crate::schema) membership: Membership,
    pub(in crate::schema) missing: &'a [MissingRight],
}

/// What the user lacks.
pub(in crate::schema) fn judge(standing: &Standing<'_>) -> Option<Finding> {
    if standing.missing.is_empty() {
        return None;
    }
    let (role, user) = (standing.duty.role(), standing.user);
    let grant = grant(role, user);
    let grant_rights = grant_rights(standing.schema);
    let (text, remedy) = match standing.membership {
        Membership::NotGranted => (
            format!("the user {user} lacks the role {role}"),
            format!("as an administrator: {grant}"),
        ),
        Membership::NotInherited => (
            format!(
                "the user {user} is a member of the role {role} and lacks its rights, which it does not inherit"
            ),
            format!(
                "as an administrator: alter role {} inherit; from PostgreSQL 16 on also: grant {role} to {0} with inherit true;",
                identifier(user)
            ),
        ),
        Membership::NoRole => (
            format!("the user {user} lacks the role {role}, which this cluster does not have"),
            format!(
                "as an administrator: create role {role} nologin; as the owner of the tables: {grant_rights} then: {grant}"
            ),
        ),
        Membership::Granted => (
            format!(
                "the user {user} has the role {role} and lacks {}",
                named(standing.missing)
            ),
            format!("as the owner of the tables: {grant_rights}"),
        ),
    };
    Some(Finding::problem("rights", text, remedy))
}

fn named(rights: &[MissingRight]) -> String {
    let name = |right: &MissingRight| match &right.column {
        Some(column) => format!("{} ({column}) on {}", right.privilege, right.object),
        None => format!("{} on {}", right.privilege, right.object),
    };
    let mut names: Vec<String> = rights.iter().take(NAMED).map(name).collect();
    if rights.len() > NAMED {
        names.push(format!("{} more", rights.len() - NAMED));
    }
    names.join(", ")
}

//! Judges whether the user may do its work: names the one role to grant, and single rights only where the role is not enough.

use crate::schema::rights::identifier;
use crate::schema::{Facts, Finding, Membership, MissingRight, grant};

/// How many single rights are named.
const NAMED: usize = 6;

/// What the user lacks.
pub(super) fn judge(facts: &Facts) -> Option<Finding> {
    if facts.missing_rights.is_empty() {
        return None;
    }
    let (role, user) = (facts.duty.role(), &facts.server.user);
    let grant = grant(role, user);
    let grant_rights = format!("select {}.grant_rights();", facts.schema);
    let (text, remedy) = match facts.membership {
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
                named(&facts.missing_rights)
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

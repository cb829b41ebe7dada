//! Judges the facts. Pure: no clock, no I/O.

mod indexes;
pub(super) mod rights;
mod standbys;
mod streams;
mod tables;

use std::time::Duration;

pub use streams::{UNROUTED_REMEDY, is_read, unread};

use onceward_core::TopicGlob;

use super::{Facts, Finding};

/// The oldest server that the tables work on, as a number.
const OLDEST_SERVER: i32 = 140_000;

/// A stream of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfiguredStream {
    /// Its name.
    pub name: String,
    /// Its topic patterns.
    pub topics: Vec<TopicGlob>,
}

/// What the facts are judged by.
#[derive(Debug, Clone)]
pub struct Expected {
    /// The newest schema step that this program knows.
    pub known_version: i32,
    /// The streams of the configuration, if there is one.
    pub streams: Option<Vec<ConfiguredStream>>,
    /// The standbys, by `application_name`, that publishing waits for.
    pub standbys: Vec<String>,
    /// A transaction that is open for longer is worth a warning.
    pub long_transaction: Duration,
    /// A stream whose lease ran out longer ago than this counts as forgotten. 24 hours unless changed.
    pub forgotten_after: Duration,
}

impl Default for Expected {
    fn default() -> Self {
        Self {
            known_version: 0,
            streams: None,
            standbys: Vec::new(),
            long_transaction: Duration::from_secs(5 * 60),
            forgotten_after: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// Everything that is wrong or worth knowing, worst first.
#[must_use]
pub fn judge(facts: &Facts, expected: &Expected) -> Vec<Finding> {
    let mut findings = server(facts);
    findings.extend(standbys::judge(facts, &expected.standbys));
    findings.extend(version(facts, expected));
    if !facts.tables.is_empty() {
        findings.extend(tables::judge(facts));
        findings.extend(indexes::judge(facts));
        findings.extend(sequence(facts));
        findings.extend(rights::judge(&facts.standing()));
        findings.extend(streams::judge(facts, expected));
    }
    findings.extend(streams::overlaps(facts, expected));
    findings.extend(transactions(facts, expected));
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings
}

fn server(facts: &Facts) -> Vec<Finding> {
    let server = &facts.server;
    let mut findings = Vec::new();
    if server.version < OLDEST_SERVER {
        findings.push(Finding::problem(
            "server_too_old",
            format!("the server is PostgreSQL {}", server.version_text),
            "use PostgreSQL 14 or newer",
        ));
    }
    if server.encoding != "UTF8" {
        findings.push(Finding::problem(
            "encoding",
            format!("the database's encoding is {}", server.encoding),
            "use a database with encoding UTF8: texts of messages cannot be kept otherwise",
        ));
    }
    if server.standby {
        findings.push(Finding::problem(
            "standby",
            "the server is a standby and takes no writes".to_owned(),
            "connect to the primary",
        ));
    } else if server.read_only {
        findings.push(Finding::problem(
            "read_only",
            "transactions are read-only by default".to_owned(),
            "set default_transaction_read_only = off for this user and database",
        ));
    }
    if !server.fsync {
        findings.push(Finding::warning(
            "fsync_off",
            "fsync is off: a crash of the machine may destroy what was committed".to_owned(),
            "set fsync = on unless this is a test",
        ));
    }
    findings
}

fn version(facts: &Facts, expected: &Expected) -> Option<Finding> {
    let known = expected.known_version;
    let schema = &facts.schema;
    match facts.version {
        None if facts.tables.is_empty() => Some(Finding::problem(
            "no_schema",
            format!("the database has no schema {schema}"),
            "run `onceward migrate`, or correct database.schema",
        )),
        None => None,
        Some(found) if found < known => Some(Finding::problem(
            "schema_old",
            format!("the schema {schema} is at version {found}, this program needs {known}"),
            "run `onceward migrate`",
        )),
        Some(found) if found > known => Some(Finding::problem(
            "schema_newer",
            format!("the schema {schema} is at version {found}, this program knows {known}"),
            "use a newer release of this program",
        )),
        Some(_) => None,
    }
}

fn sequence(facts: &Facts) -> Vec<Finding> {
    let Some(sequence) = &facts.sequence else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    if !sequence.one_by_one {
        findings.push(Finding::problem(
            "sequence",
            format!(
                "the sequence of the log has cache {}, increment {} and cycle {}: messages may be published out of order, or never",
                sequence.cache, sequence.increment, sequence.cycles
            ),
            "stop the relays and the services that enqueue, and follow docs/recovery.md#numbers-out-of-order",
        ));
    }
    if !sequence.ids_first {
        findings.push(Finding::problem(
            "columns",
            "messages has its column seq before txid, so that numbers are taken before ids are given: messages may never be published"
                .to_owned(),
            "stop the relays and the services that enqueue, and follow docs/recovery.md#numbers-out-of-order",
        ));
    }
    let highest = sequence.highest.max(sequence.highest_read);
    if sequence.last_number < highest {
        findings.push(Finding::problem(
            "sequence_behind",
            format!(
                "the sequence of the log is at {}, and {highest} was given before, as after a logical copy or once it was set back: new messages would be passed over",
                sequence.last_number
            ),
            "stop the writers and follow docs/recovery.md#sequence-behind",
        ));
    }
    findings
}

fn transactions(facts: &Facts, expected: &Expected) -> Vec<Finding> {
    let long = expected.long_transaction.as_secs_f64();
    let open = facts
        .transactions
        .iter()
        .filter(|t| t.seconds > long)
        .map(|t| {
            Finding::warning(
                "long_transaction",
                format!(
                    "process {} ({}, {}) has had a transaction open for {:.0} s",
                    t.pid,
                    t.application
                        .as_deref()
                        .or(t.user.as_deref())
                        .unwrap_or("unknown"),
                    t.state.as_deref().unwrap_or("unknown"),
                    t.seconds
                ),
                "end it: its own messages wait for it, and slots cannot be emptied meanwhile",
            )
        });
    let prepared = facts.prepared.iter().filter(|p| p.seconds > long).map(|p| {
        Finding::warning(
            "prepared_transaction",
            format!(
                "the transaction {:?} of {} has been prepared for {:.0} s",
                p.name, p.owner, p.seconds
            ),
            "commit or roll back what its coordinator has left behind: its own messages wait for it",
        )
    });
    open.chain(prepared).collect()
}

#[cfg(test)]
mod tests;

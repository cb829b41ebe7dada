//! Judges the facts. Pure: no clock, no I/O.

mod indexes;
pub(super) mod rights;
mod standbys;
mod streams;

use std::time::Duration;

pub use streams::{is_read, unread};

use onceward_core::{Schema, TopicGlob};

use super::{Duty, Facts, Finding, Table};
use crate::sql::identifier;

/// The oldest server that the tables work on, as a number.
const OLDEST_SERVER: i32 = 140_000;

/// Tables that the schema must have besides the partitions.
const TABLES: [&str; 16] = [
    "migrations",
    "settings",
    "messages",
    "streams",
    "cursors",
    "unrouted",
    "parked",
    "processed_messages",
    "dead_letters",
    "retries",
    "consumers",
    "held_keys",
    "consumer_positions",
    "key_sequences",
    "starts",
    "paused_types",
];

/// Those of them that only consumers use.
const OF_CONSUMERS: [&str; 9] = [
    "processed_messages",
    "dead_letters",
    "retries",
    "consumers",
    "held_keys",
    "consumer_positions",
    "key_sequences",
    "starts",
    "paused_types",
];

/// Those that only whoever enqueues or publishes uses.
const OF_THE_LOG: [&str; 5] = ["messages", "streams", "cursors", "unrouted", "parked"];

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
    /// A stream whose lease ran out before this time is forgotten.
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
        findings.extend(facts.tables.iter().flat_map(|t| table(facts, t)));
        findings.extend(missing_tables(facts));
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

fn table(facts: &Facts, table: &Table) -> Vec<Finding> {
    let name = &table.name;
    let full = full_name(&facts.schema, name);
    let mut findings = Vec::new();
    if table.row_security {
        findings.push(Finding::problem(
            "row_security",
            format!("{name} has row security: rows may be hidden without an error, and so be lost"),
            format!("alter table {full} disable row level security"),
        ));
    }
    if table.unlogged {
        findings.push(Finding::problem(
            "unlogged",
            format!("{name} is unlogged: a crash empties it"),
            format!("alter table {full} set logged"),
        ));
    }
    for trigger in &table.triggers {
        findings.push(Finding::problem(
            "trigger",
            format!("{name} has the trigger {trigger}, which may change or drop rows"),
            format!("drop trigger {} on {full}", identifier(trigger)),
        ));
    }
    for trigger in &table.triggers_after {
        findings.push(Finding::warning(
            "trigger",
            format!("{name} has the trigger {trigger}, which runs in the transactions that write to it: what it fails with ends them, and it may change rows"),
            format!("drop trigger {} on {full}, unless it only tells others of the row", identifier(trigger)),
        ));
    }
    for rule in &table.rules {
        findings.push(Finding::problem(
            "rule",
            format!("{name} has the rule {rule}, which may change or drop rows"),
            format!("drop rule {} on {full}", identifier(rule)),
        ));
    }
    if name == "messages" && !table.full_writers.is_empty() {
        findings.push(Finding::warning(
            "full_writers",
            format!(
                "{} may insert into every column of messages, and so forge seq, txid and slot",
                table.full_writers.join(", ")
            ),
            "revoke insert on the table from them and grant onceward_writer",
        ));
    }
    findings
}

/// A table as SQL takes it: the name of the schema may be a word of SQL, and tables in it be anybody's.
fn full_name(schema: &Schema, table: &str) -> String {
    format!("{}.{}", identifier(schema.as_str()), identifier(table))
}

/// The names of a ring's partitions.
fn partitions(facts: &Facts, ring: &str) -> Vec<String> {
    let slots = facts.settings.as_ref().map_or(0, |settings| match ring {
        "messages" => settings.message_slots,
        _ => settings.mark_slots,
    });
    (0..slots).map(|slot| format!("{ring}_{slot}")).collect()
}

/// What is found of something without which a table, or a partition of it, is of no use. Whoever does not use the table is only warned: a
/// relay goes on publishing, whatever consumers lack.
fn needs(facts: &Facts, table: &str) -> fn(&'static str, String, String) -> Finding {
    let is_used = match facts.duty {
        Duty::Relay | Duty::Write => !OF_CONSUMERS.contains(&table),
        Duty::Consume => !OF_THE_LOG.contains(&table),
        Duty::Administer => true,
    };
    if is_used {
        Finding::problem
    } else {
        Finding::warning
    }
}

fn missing_tables(facts: &Facts) -> Vec<Finding> {
    let of_ring = |ring| {
        partitions(facts, ring)
            .into_iter()
            .map(move |name| (ring, name))
    };
    TABLES
        .into_iter()
        .map(|table| (table, table.to_owned()))
        .chain(
            ["messages", "processed_messages"]
                .into_iter()
                .flat_map(of_ring),
        )
        .filter(|(_, name)| !facts.has_table(name))
        .map(|(table, name)| {
            needs(facts, table)(
                "table_missing",
                format!("the table {name} is missing in the schema {}", facts.schema),
                "restore it from a backup, or drop the schema and run `onceward migrate`"
                    .to_owned(),
            )
        })
        .collect()
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

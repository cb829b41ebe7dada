//! Judges the tables: whether each is there, and whether something on it hides, changes or loses rows.

use onceward_core::Schema;

use crate::schema::{Duty, Facts, Finding, Table};
use crate::sql::identifier;

/// Who cannot do without a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Users {
    /// Whoever uses the schema.
    All,
    /// Who enqueues, and relays.
    Producers,
    /// Relays alone.
    Relays,
    /// Consumers alone.
    Consumers,
}

impl Users {
    const fn include(self, duty: Duty) -> bool {
        match duty {
            Duty::Relay => !matches!(self, Self::Consumers),
            Duty::Write => matches!(self, Self::All | Self::Producers),
            Duty::Consume => matches!(self, Self::All | Self::Consumers),
            Duty::Administer => true,
        }
    }
}

/// Tables that the schema must have besides the partitions.
const TABLES: [(&str, Users); 16] = [
    ("migrations", Users::All),
    ("settings", Users::All),
    ("messages", Users::Producers),
    ("streams", Users::Relays),
    ("cursors", Users::Relays),
    ("unrouted", Users::Relays),
    ("parked", Users::Relays),
    ("processed_messages", Users::Consumers),
    ("dead_letters", Users::Consumers),
    ("retries", Users::Consumers),
    ("consumers", Users::Consumers),
    ("held_keys", Users::Consumers),
    ("consumer_positions", Users::Consumers),
    ("key_sequences", Users::Consumers),
    ("starts", Users::Consumers),
    ("paused_types", Users::Consumers),
];

/// The tables with a partition for each slot.
const RINGS: [&str; 2] = ["messages", "processed_messages"];

/// What is wrong with the tables that are there, and which are not.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<Finding> = facts.tables.iter().flat_map(|t| table(facts, t)).collect();
    findings.extend(missing(facts));
    findings
}

fn table(facts: &Facts, table: &Table) -> Vec<Finding> {
    let name = &table.name;
    let full = full_name(&facts.schema, name);
    let needs = needs(facts, name);
    let mut findings = Vec::new();
    if table.row_security {
        findings.push(needs(
            "row_security",
            format!("{name} has row security: rows may be hidden without an error, and so be lost"),
            format!("alter table {full} disable row level security"),
        ));
    }
    if table.unlogged {
        findings.push(needs(
            "unlogged",
            format!("{name} is unlogged: a crash empties it"),
            format!("alter table {full} set logged"),
        ));
    }
    for trigger in &table.triggers {
        findings.push(needs(
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
        findings.push(needs(
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

fn missing(facts: &Facts) -> Vec<Finding> {
    names(facts)
        .into_iter()
        .filter(|name| !facts.has_table(name))
        .map(|name| {
            needs(facts, &name)(
                "table_missing",
                format!("the table {name} is missing in the schema {}", facts.schema),
                "restore it from a backup, or drop the schema and run `onceward migrate`"
                    .to_owned(),
            )
        })
        .collect()
}

/// All that must be there.
pub(super) fn names(facts: &Facts) -> Vec<String> {
    let of_rings = RINGS.iter().flat_map(|ring| partitions(facts, ring));
    let tables = TABLES.iter().map(|(name, _)| (*name).to_owned());
    tables.chain(of_rings).collect()
}

/// The names of a ring's partitions.
pub(super) fn partitions(facts: &Facts, ring: &str) -> Vec<String> {
    let slots = facts.settings.as_ref().map_or(0, |settings| match ring {
        "messages" => settings.message_slots,
        _ => settings.mark_slots,
    });
    (0..slots).map(|slot| format!("{ring}_{slot}")).collect()
}

/// A table as SQL takes it: the name of the schema may be a word of SQL, and tables in it be anybody's.
pub(super) fn full_name(schema: &Schema, table: &str) -> String {
    format!("{}.{}", identifier(schema.as_str()), identifier(table))
}

/// What is found of something without which a table, or a partition of it, is of no use. Whoever does not use the table is only warned: a
/// relay goes on publishing, whatever consumers lack.
pub(super) fn needs(facts: &Facts, table: &str) -> fn(&'static str, String, String) -> Finding {
    let is_used = match users(table) {
        Some(users) => users.include(facts.duty),
        // Somebody else's.
        None => false,
    };
    if is_used {
        Finding::problem
    } else {
        Finding::warning
    }
}

/// Those of the table, or of the one whose partition it is; none of a table that is not ours.
fn users(table: &str) -> Option<Users> {
    let is_slot = |rest: &str| rest.bytes().all(|byte| byte.is_ascii_digit());
    let slot = table.rsplit_once('_');
    let slot = slot.filter(|(ring, slot)| RINGS.contains(ring) && is_slot(slot));
    let name = slot.map_or(table, |(ring, _)| ring);
    let known = TABLES.iter().find(|(known, _)| *known == name);
    known.map(|(_, users)| *users)
}

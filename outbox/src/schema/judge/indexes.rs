//! Judges the indexes: whether each that reading relies on, or that keeps rows from being doubled, is there and valid.

use super::tables::{full_name, needs, partitions};
use crate::schema::{Facts, Finding, Index};

/// An index that a table must have.
#[derive(Debug, Clone, Copy)]
struct Needed {
    table: &'static str,
    columns: &'static [&'static str],
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// It keeps rows apart.
    Unique,
    /// It serves searches.
    Plain,
    /// It serves searches for some of the rows.
    Partial(&'static str),
}

/// Of each partition of the log.
const LOG: [Needed; 2] = [
    plain("messages", &["lane", "seq"]),
    plain("messages", &["lane", "txid", "seq"]),
];

/// Of each partition of the marks.
const MARKS: [Needed; 2] = [
    unique("processed_messages", &["slot", "message_id", "consumer"]),
    plain("processed_messages", &["settled_at"]),
];

/// Of tables without partitions.
const OTHERS: [Needed; 22] = [
    unique("migrations", &["version"]),
    unique("settings", &["one"]),
    unique("streams", &["stream"]),
    unique("cursors", &["stream", "lane", "detour"]),
    unique("unrouted", &["slot", "lane", "topic"]),
    unique("parked", &["stream", "seq"]),
    partial("parked", &["stream", "seq"], "state = 'due'"),
    unique("consumers", &["consumer"]),
    unique("dead_letters", &["id"]),
    plain("dead_letters", &["consumer", "id"]),
    plain("dead_letters", &["message_id", "consumer"]),
    unique("retries", &["id"]),
    unique("retries", &["consumer", "message_id"]),
    plain("retries", &["consumer", "line", "id"]),
    plain("retries", &["mark_slot"]),
    unique("held_keys", &["consumer", "line"]),
    plain("held_keys", &["consumer", "due_at"]),
    partial(
        "held_keys",
        &["consumer", "waits_for", "due_at"],
        "waits_for is not null",
    ),
    unique("consumer_positions", &["consumer", "partition"]),
    unique("starts", &["consumer", "message_id"]),
    unique("paused_types", &["consumer", "type"]),
    unique("key_sequences", &["consumer", "line"]),
];

const fn unique(table: &'static str, columns: &'static [&'static str]) -> Needed {
    Needed {
        table,
        columns,
        kind: Kind::Unique,
    }
}

const fn plain(table: &'static str, columns: &'static [&'static str]) -> Needed {
    Needed {
        table,
        columns,
        kind: Kind::Plain,
    }
}

const fn partial(
    table: &'static str,
    columns: &'static [&'static str],
    rows: &'static str,
) -> Needed {
    Needed {
        table,
        columns,
        kind: Kind::Partial(rows),
    }
}

impl Needed {
    /// Whether the index does what this one has to.
    fn is_met_by(&self, index: &Index) -> bool {
        let kind = match self.kind {
            Kind::Unique => index.unique && !index.partial,
            Kind::Plain => !index.partial,
            Kind::Partial(_) => index.partial,
        };
        kind && index.valid && index.columns.iter().eq(self.columns)
    }

    /// That `table`, which is the needed one or a partition of it, lacks it.
    fn missing(&self, facts: &Facts, table: &str) -> Finding {
        let columns = self.columns.join(", ");
        let (kind, rows) = match self.kind {
            Kind::Unique => ("unique index", String::new()),
            Kind::Plain => ("index", String::new()),
            Kind::Partial(rows) => ("index", format!(" where {rows}")),
        };
        let what = format!("{table} has no valid {kind} on ({columns}){rows}");
        let remedy = format!(
            "create {kind} on {} ({columns}){rows}, or reindex the invalid one",
            full_name(&facts.schema, table)
        );
        let code = "index_missing";
        let needs = needs(facts, self.table);
        match (self.table, self.kind) {
            ("messages", _) => needs(code, format!("{what}: reading would scan the log"), remedy),
            (_, Kind::Unique) => needs(
                code,
                format!("{what}: rows could be doubled, and writing fails"),
                remedy,
            ),
            (_, Kind::Plain | Kind::Partial(_)) => Finding::warning(
                code,
                format!("{what}: looking for rows scans the table"),
                remedy,
            ),
        }
    }
}

/// What is missing. A table that is missing as a whole has a finding of its own.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let is_met = |(needed, name): &(Needed, String)| {
        let mut own = facts.indexes.iter().filter(|index| index.table == *name);
        own.any(|index| needed.is_met_by(index))
    };
    needed(facts)
        .into_iter()
        .filter(|(_, name)| facts.has_table(name))
        .filter(|one| !is_met(one))
        .map(|(needed, name)| needed.missing(facts, &name))
        .collect()
}

/// All that must be there, each with the name of its table or partition.
fn needed(facts: &Facts) -> Vec<(Needed, String)> {
    let of_partitions = |needed: Needed| {
        partitions(facts, needed.table)
            .into_iter()
            .map(move |name| (needed, name))
    };
    let others = OTHERS.map(|needed| (needed, needed.table.to_owned()));
    LOG.into_iter()
        .chain(MARKS)
        .flat_map(of_partitions)
        .chain(others)
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::tests::sound;
    use super::*;
    use crate::schema::{Duty, Severity};

    /// Those of a sound database.
    pub(in crate::schema::judge) fn all(facts: &Facts) -> Vec<Index> {
        let index = |(needed, table): (Needed, String)| Index {
            table,
            columns: needed.columns.iter().map(|&c| c.to_owned()).collect(),
            unique: matches!(needed.kind, Kind::Unique),
            partial: matches!(needed.kind, Kind::Partial(_)),
            valid: true,
        };
        needed(facts).into_iter().map(index).collect()
    }

    /// What is found once the index is invalid.
    fn without(table: &str, columns: &[&str]) -> Vec<Finding> {
        without_for(Duty::Administer, table, columns)
    }

    fn without_for(duty: Duty, table: &str, columns: &[&str]) -> Vec<Finding> {
        let mut facts = sound();
        facts.duty = duty;
        for index in &mut facts.indexes {
            index.valid = !(index.table == table && index.columns == columns);
        }
        judge(&facts)
    }

    #[test]
    fn an_invalid_index_is_as_bad_as_what_it_is_for() {
        let log = without("messages_1", &["lane", "seq"]);
        let mark = without("processed_messages_0", &["slot", "message_id", "consumer"]);
        let letters = without("dead_letters", &["consumer", "id"]);

        assert_eq!(
            (log[0].severity, log[0].text.as_str()),
            (
                Severity::Problem,
                "messages_1 has no valid index on (lane, seq): reading would scan the log"
            )
        );
        assert_eq!(mark[0].severity, Severity::Problem);
        assert_eq!(letters[0].severity, Severity::Warning);
    }

    #[test]
    fn an_index_of_a_table_that_is_not_used_is_no_problem() {
        let of_retries = |duty| without_for(duty, "retries", &["id"])[0].severity;
        let of_log = |duty| without_for(duty, "messages_1", &["lane", "seq"])[0].severity;

        assert_eq!(of_retries(Duty::Relay), Severity::Warning);
        assert_eq!(of_retries(Duty::Consume), Severity::Problem);
        assert_eq!(of_log(Duty::Relay), Severity::Problem);
        assert_eq!(of_log(Duty::Consume), Severity::Warning);
    }

    #[test]
    fn an_index_on_some_rows_is_told_with_them_and_does_not_stand_for_one_on_all() {
        let mut facts = sound();
        facts
            .indexes
            .retain(|index| index.table != "parked" || index.partial);

        let of_all = judge(&facts);
        facts.indexes.retain(|index| index.table != "parked");
        let of_both = judge(&facts);

        let told = "create unique index on \"onceward\".\"parked\" (stream, seq), or reindex the invalid one";
        assert_eq!(of_all.len(), 1);
        assert_eq!(of_all[0].remedy, told);
        assert!(
            of_both[1]
                .remedy
                .contains("(stream, seq) where state = 'due'"),
            "{of_both:?}"
        );
    }
}

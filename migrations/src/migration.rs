//! One step of the schema, and its form as SQL that is safe to run at any time in any tool. Pure: no I/O.

use std::fmt::Write as _;

use onceward_core::Schema;
use sha2::{Digest, Sha256};

/// The version of the schema that this release makes and knows.
pub const LATEST: i32 = 8;

/// Where the schema's name goes in the SQL files.
const PLACEHOLDER: &str = "{{schema}}";

/// All steps of this release, oldest first. A step that was released is never changed.
pub(crate) const ALL: [Migration; 8] = [
    Migration {
        version: 1,
        name: "log",
        sql: include_str!("../sql/0001_log.sql"),
    },
    Migration {
        version: 2,
        name: "enqueue",
        sql: include_str!("../sql/0002_enqueue.sql"),
    },
    Migration {
        version: 3,
        name: "consumer",
        sql: include_str!("../sql/0003_consumer.sql"),
    },
    Migration {
        version: 4,
        name: "retries",
        sql: include_str!("../sql/0004_retries.sql"),
    },
    Migration {
        version: 5,
        name: "positions",
        sql: include_str!("../sql/0005_positions.sql"),
    },
    Migration {
        version: 6,
        name: "guard",
        sql: include_str!("../sql/0006_guard.sql"),
    },
    Migration {
        version: 7,
        name: "sequences",
        sql: include_str!("../sql/0007_sequences.sql"),
    },
    Migration {
        version: LATEST,
        name: "roles",
        sql: include_str!("../sql/0008_roles.sql"),
    },
];

/// One step: a file of plain SQL.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Migration {
    pub(crate) version: i32,
    pub(crate) name: &'static str,
    pub(crate) sql: &'static str,
}

impl Migration {
    /// Tells a changed step from the one that was applied; the same for every schema name.
    pub(crate) fn checksum(&self) -> String {
        let mut text = String::with_capacity(64);
        for byte in Sha256::digest(self.sql.as_bytes()) {
            // Writing to a string cannot fail.
            write!(text, "{byte:02x}").ok();
        }
        text
    }

    /// The step as one statement: whole or not at all, with or without a transaction around it, nothing if it
    /// was applied before. It never waits long for a lock, so that nobody queues behind it.
    pub(crate) fn render(&self, schema: &Schema) -> String {
        let guard = GUARD
            .replace("{{version}}", &self.version.to_string())
            .replace("{{raw_schema}}", schema.as_str());
        let record = RECORD
            .replace("{{version}}", &self.version.to_string())
            .replace("{{name}}", self.name)
            .replace("{{checksum}}", &self.checksum());
        let text = format!("{guard}\n{}\n{record}", self.sql.trim_end());
        // Quoted, as the name may be a word of SQL, such as "order".
        text.replace(PLACEHOLDER, &format!("\"{schema}\""))
    }
}

/// What comes before a step. The lock keeps two programs from applying it at once; it ends with the transaction,
/// so it works behind a transaction pooler.
const GUARD: &str = "\
do $onceward_migration$
begin
  set local lock_timeout = '3s';
  perform pg_advisory_xact_lock(hashtextextended('onceward migrations of {{raw_schema}}', 0));
  if to_regnamespace('{{schema}}') is null then
    create schema {{schema}};
  end if;
  if to_regclass('{{schema}}.migrations') is null then
    create table {{schema}}.migrations (
      version integer primary key,
      name text not null,
      checksum text not null,
      applied_at timestamptz not null default clock_timestamp()
    );
    comment on table {{schema}}.migrations is 'The steps that made this schema.';
  end if;
  if exists (select from {{schema}}.migrations where version = {{version}}) then
    return;
  end if;
";

/// What comes after a step.
const RECORD: &str = "
  insert into {{schema}}.migrations (version, name, checksum)
  values ({{version}}, '{{name}}', '{{checksum}}');
end
$onceward_migration$;
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_count_up_from_one_without_a_gap() {
        let versions: Vec<i32> = ALL.iter().map(|step| step.version).collect();

        assert_eq!(versions, (1..=LATEST).collect::<Vec<_>>());
    }

    #[test]
    fn a_rendered_step_holds_no_placeholder() {
        for step in ALL {
            let sql = step.render(&Schema::default());

            assert!(!sql.contains("{{"), "{}", step.name);
            assert_eq!(sql.matches("$onceward_migration$").count(), 2);
        }
    }

    #[test]
    fn the_checksum_does_not_depend_on_the_schema() {
        let other = Schema::try_from("other").unwrap();

        let checksum = ALL[0].checksum();

        assert_eq!(checksum.len(), 64);
        assert!(ALL[0].render(&other).contains(&checksum));
    }
}

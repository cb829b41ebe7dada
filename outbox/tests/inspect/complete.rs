//! That nothing of what migrations make is left out.

use std::collections::BTreeSet;

use onceward::schema::{self, Duty, Expected, Facts, Finding};

use crate::{codes, facts, migrated, run_as_owner};

fn judge(facts: &Facts) -> Vec<Finding> {
    let expected = Expected {
        known_version: onceward_migrations::LATEST,
        ..Expected::default()
    };
    schema::judge(facts, &expected)
}

#[tokio::test]
async fn each_table_of_the_schema_is_missed_when_it_is_not_there() {
    let database = migrated().await;
    let facts = facts(&database, "reset role", Duty::Relay).await;

    for table in &facts.tables {
        let mut without = facts.clone();
        without.tables.retain(|other| other.name != table.name);

        let findings = judge(&without);

        let told = |f: &Finding| {
            f.code == "table_missing" && f.text.starts_with(&format!("the table {} is", table.name))
        };
        assert!(findings.iter().any(told), "{}: {findings:?}", table.name);
    }
}

#[tokio::test]
async fn each_index_of_the_schema_is_missed_when_it_is_not_valid() {
    let database = migrated().await;
    let facts = facts(&database, "reset role", Duty::Relay).await;

    for (n, index) in facts.indexes.iter().enumerate() {
        let mut without = facts.clone();
        without.indexes[n].valid = false;

        let findings = judge(&without);

        let told = |f: &Finding| {
            f.code == "index_missing" && f.text.starts_with(&format!("{} has no", index.table))
        };
        assert!(findings.iter().any(told), "{index:?}: {findings:?}");
    }
}

#[tokio::test]
async fn triggers_and_row_security_are_found_on_each_table() {
    let database = migrated().await;
    run_as_owner(
        &database,
        "create function touch() returns trigger language plpgsql as 'begin return new; end';
         do $$
         declare
           name text;
         begin
           for name in select tablename from pg_tables where schemaname = 'onceward' loop
             execute format('alter table onceward.%I enable row level security', name);
             execute format('create trigger before_statement before insert on onceward.%I execute function touch()', name);
             execute format('create trigger after_statement after update on onceward.%I execute function touch()', name);
             execute format('create trigger before_truncate before truncate on onceward.%I execute function touch()', name);
             execute format('create trigger before_row_%s before insert on onceward.%1$I for each row execute function touch()', name);
             execute format('create trigger after_row_%s after insert or delete on onceward.%1$I for each row execute function touch()', name);
           end loop;
         end
         $$",
    )
    .await;

    let facts = facts(&database, "reset role", Duty::Relay).await;

    for table in &facts.tables {
        let name = &table.name;
        assert!(table.row_security, "{name}");
        assert_eq!(
            table.triggers,
            [
                format!("before_row_{name}"),
                "before_statement".to_owned(),
                "before_truncate".to_owned()
            ],
            "a partition has the rows' triggers of its table too, which are told once"
        );
        assert_eq!(
            table.triggers_after,
            [format!("after_row_{name}"), "after_statement".to_owned()]
        );
    }
}

#[tokio::test]
async fn an_invalid_index_of_a_consumer_s_table_is_found() {
    let database = migrated().await;
    run_as_owner(
        &database,
        "update pg_index set indisvalid = false
         where indexrelid in ('onceward.retries_line'::regclass, 'onceward.processed_messages_7_pkey'::regclass)",
    )
    .await;

    let facts = facts(&database, "reset role", Duty::Relay).await;

    let texts: Vec<String> = judge(&facts)
        .into_iter()
        .filter(|finding| finding.code == "index_missing")
        .map(|finding| finding.text)
        .collect();
    assert_eq!(
        texts,
        [
            "processed_messages_7 has no valid unique index on (slot, message_id, consumer): rows could be doubled, and writing fails",
            "retries has no valid index on (consumer, line, id): looking for rows scans the table"
        ]
    );
}

/// Rights that a role has, and that its duty does not take.
const NOT_ASKED_FOR: [(&str, &str, &str); 3] = [
    ("onceward_admin", "SELECT", "messages_"),
    ("onceward_admin", "SELECT", "processed_messages_"),
    ("onceward_consumer", "DELETE", "processed_messages"),
];

#[tokio::test]
async fn what_is_granted_to_a_role_is_what_its_duty_asks_for() {
    let database = migrated().await;
    run_as_owner(
        &database,
        "revoke execute on all functions in schema onceward from public",
    )
    .await;

    for duty in [Duty::Write, Duty::Relay, Duty::Consume, Duty::Administer] {
        // A role of the server without a right on anything of ours lacks all that the duty takes.
        let facts = facts(&database, "set role pg_monitor", duty).await;
        let asked: BTreeSet<_> = facts
            .missing_rights
            .into_iter()
            .filter(|right| right.object != "schema")
            .map(|right| (right.privilege, right.object, right.column))
            .collect();
        let granted: Vec<(String, String, Option<String>)> = sqlx::query_as(
            "select a.privilege_type, c.relname::text, null
             from pg_class c
             cross join aclexplode(c.relacl) a
             where c.relnamespace = 'onceward'::regnamespace and a.grantee = $1::regrole
             union all
             select a.privilege_type, c.relname::text, k.attname::text
             from pg_class c
             join pg_attribute k on k.attrelid = c.oid
             cross join aclexplode(k.attacl) a
             where c.relnamespace = 'onceward'::regnamespace and a.grantee = $1::regrole
             union all
             select a.privilege_type, p.proname::text, null
             from pg_proc p
             cross join aclexplode(p.proacl) a
             where p.pronamespace = 'onceward'::regnamespace and a.grantee = $1::regrole",
        )
        .bind(duty.role())
        .fetch_all(database.pool())
        .await
        .unwrap();
        let is_asked_for = |(privilege, object, _): &(String, String, Option<String>)| {
            !NOT_ASKED_FOR.iter().any(|(role, not, on)| {
                let rest = object.strip_prefix(on);
                *role == duty.role()
                    && not == privilege
                    && rest.is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()))
            })
        };

        let granted: BTreeSet<_> = granted.into_iter().filter(is_asked_for).collect();

        assert_eq!(asked, granted, "{duty:?}");
    }
}

#[tokio::test]
async fn a_function_that_a_relay_may_not_call_is_named() {
    let database = migrated().await;
    run_as_owner(
        &database,
        "revoke execute on function onceward.watch from public, onceward_relay",
    )
    .await;

    let lacking = facts(&database, "set role onceward_relay", Duty::Relay).await;
    run_as_owner(&database, "select onceward.grant_rights()").await;
    let sound = facts(&database, "set role onceward_relay", Duty::Relay).await;

    let finding = judge(&lacking);
    let rights = finding.iter().find(|f| f.code == "rights").unwrap();
    assert!(rights.text.contains("EXECUTE on watch"), "{rights:?}");
    assert!(rights.remedy.ends_with("grant_rights();"), "{rights:?}");
    assert_eq!(codes(&sound), [""; 0]);
}

#[tokio::test]
async fn a_consumer_s_user_is_told_what_it_lacks() {
    let database = migrated().await;

    let sound = facts(&database, "set role onceward_consumer", Duty::Consume).await;
    let lacking = facts(&database, "set role onceward_writer", Duty::Consume).await;

    assert_eq!(codes(&sound), [""; 0]);
    assert_eq!(codes(&lacking), ["rights"]);
    let finding = judge(&lacking);
    let rights = finding.iter().find(|f| f.code == "rights").unwrap();
    assert!(rights.text.contains("onceward_consumer"), "{rights:?}");
}

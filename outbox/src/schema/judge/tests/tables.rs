//! What is wrong with tables, and their names in what is to be run.

use super::*;

#[test]
fn each_fault_of_a_table_has_its_finding() {
    let faults: [(&str, Fault); 9] = [
        ("table_missing", |f| f.tables.retain(|t| t.name != "parked")),
        ("row_security", |f| f.tables[2].row_security = true),
        ("unlogged", |f| f.tables[2].unlogged = true),
        ("trigger", |f| f.tables[2].triggers.push("audit".to_owned())),
        ("trigger", |f| {
            f.tables[2].triggers_after.push("notify".to_owned());
        }),
        ("table_missing", |f| {
            f.tables.retain(|t| t.name != "messages_1");
        }),
        ("rule", |f| f.tables[2].rules.push("copy".to_owned())),
        ("full_writers", |f| {
            f.tables[2].full_writers.push("shop".to_owned());
        }),
        ("index_missing", |f| f.indexes[0].valid = false),
    ];

    for (code, fault) in faults {
        let mut facts = sound();
        fault(&mut facts);

        assert_eq!(codes(&facts), [code]);
    }
}

/// How bad each thing is for the duty that may be wrong with a table that is there.
fn severity(duty: Duty, table: &str) -> Severity {
    let faults: [fn(&mut Table); 4] = [
        |table| table.row_security = true,
        |table| table.unlogged = true,
        |table| table.triggers.push("audit".to_owned()),
        |table| table.rules.push("copy".to_owned()),
    ];
    let severities = faults.map(|fault| {
        let mut facts = sound();
        facts.duty = duty;
        facts.tables.push(sound_table("reports"));
        let found = facts.tables.iter_mut().find(|t| t.name == table);
        fault(found.unwrap());
        let findings = crate::schema::judge::tables::judge(&facts);
        assert_eq!(findings.len(), 1, "{findings:?}");
        findings[0].severity
    });
    assert_eq!(severities, [severities[0]; 4]);
    severities[0]
}

#[test]
fn what_is_wrong_with_a_table_that_is_not_used_is_no_problem() {
    use Severity::{Problem, Warning};

    for (table, relay, writer, consumer) in [
        ("settings", Problem, Problem, Problem),
        ("messages_1", Problem, Problem, Warning),
        ("parked", Problem, Warning, Warning),
        ("retries", Warning, Warning, Problem),
        ("processed_messages_1", Warning, Warning, Problem),
    ] {
        assert_eq!(severity(Duty::Relay, table), relay, "{table}");
        assert_eq!(severity(Duty::Write, table), writer, "{table}");
        assert_eq!(severity(Duty::Consume, table), consumer, "{table}");
        assert_eq!(severity(Duty::Administer, table), Problem, "{table}");
    }
    let of_nobody = severity(Duty::Administer, "reports");
    assert_eq!(of_nobody, Warning, "it is not ours");
}

#[test]
fn remedies_quote_names_that_are_words_of_sql_or_anything_else() {
    let mut facts = sound();
    facts.schema = Schema::try_from("order").unwrap();
    let messages = &mut facts.tables[2];
    messages.row_security = true;
    messages.triggers.push("when \"new\"".to_owned());
    messages.triggers_after.push("user".to_owned());
    messages.rules.push("do".to_owned());
    messages.unlogged = true;
    facts.indexes[0].valid = false;
    facts.membership = Membership::Granted;
    facts.missing_rights.push(MissingRight {
        privilege: "SELECT".to_owned(),
        object: "messages".to_owned(),
        column: None,
    });

    let findings = judge(&facts, &Expected::default());
    let remedies: Vec<&str> = findings.iter().map(|f| f.remedy.as_str()).collect();

    for remedy in [
        r#"alter table "order"."messages" disable row level security"#,
        r#"alter table "order"."messages" set logged"#,
        r#"drop trigger "when ""new""" on "order"."messages""#,
        r#"drop trigger "user" on "order"."messages", unless it only tells others of the row"#,
        r#"drop rule "do" on "order"."messages""#,
        r#"create index on "order"."messages_0" (lane, seq), or reindex the invalid one"#,
        r#"as the owner of the tables: select "order".grant_rights();"#,
    ] {
        assert!(
            remedies.contains(&remedy),
            "{remedy} is not in {remedies:?}"
        );
    }
}

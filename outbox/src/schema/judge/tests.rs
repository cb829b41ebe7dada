use onceward_core::{Schema, Topic};

use super::*;
use crate::schema::{
    CursorOverview, Duty, Membership, MissingRight, OpenTransaction, ParkedCount,
    PreparedTransaction, Sequence, Server, Settings, Severity, StreamOverview, Table,
    UnroutedTopic,
};

mod tables;

fn sound_table(name: &str) -> Table {
    Table {
        name: name.to_owned(),
        row_security: false,
        unlogged: false,
        triggers: Vec::new(),
        triggers_after: Vec::new(),
        rules: Vec::new(),
        full_writers: Vec::new(),
    }
}

pub(super) fn stream(name: &str, topics: &[&str]) -> StreamOverview {
    StreamOverview {
        stream: name.to_owned(),
        owner: Some("relay-1".to_owned()),
        lease_seconds: Some(8.0),
        topics: topics.iter().map(|&t| t.to_owned()).collect(),
        unrouted: "keep".to_owned(),
        paused: serde_json::json!([]),
        system_identifier: None,
        timeline: None,
        age_seconds: 1e6,
        cursors: Vec::<CursorOverview>::new(),
        parked: Vec::new(),
    }
}

pub(super) fn sound() -> Facts {
    let mut facts = Facts {
        schema: Schema::default(),
        server: Server {
            version: 150_018,
            version_text: "15.18".to_owned(),
            encoding: "UTF8".to_owned(),
            standby: false,
            read_only: false,
            system_identifier: 1,
            timeline: Some(1),
            fsync: true,
            synchronous_commit: "on".to_owned(),
            synchronous_standby_names: String::new(),
            user: "relay".to_owned(),
            sees_all_stats: true,
            standbys: Vec::new(),
        },
        version: Some(4),
        settings: Some(Settings {
            message_slots: 2,
            message_slot_seconds: 86_400,
            mark_slots: 2,
            mark_slot_seconds: 86_400,
            max_payload: 1_000_000,
        }),
        tables: Vec::new(),
        indexes: Vec::new(),
        sequence: Some(Sequence {
            cache: 1,
            increment: 1,
            cycles: false,
            one_by_one: true,
            last_number: 9,
            highest: 9,
            highest_read: 9,
            ids_first: true,
        }),
        duty: Duty::Relay,
        membership: Membership::Granted,
        missing_rights: Vec::new(),
        transactions: Vec::new(),
        prepared: Vec::new(),
        streams: vec![stream("events", &["orders.*"])],
        unrouted: Vec::new(),
    };
    facts.tables = super::tables::names(&facts)
        .iter()
        .map(|name| sound_table(name))
        .collect();
    facts.indexes = indexes::tests::all(&facts);
    facts
}

fn codes(facts: &Facts) -> Vec<&'static str> {
    let expected = Expected {
        known_version: 4,
        streams: Some(vec![ConfiguredStream {
            name: "events".to_owned(),
            topics: vec![TopicGlob::try_from("orders.*").unwrap()],
        }]),
        ..Expected::default()
    };
    judge(facts, &expected).iter().map(|f| f.code).collect()
}

#[test]
fn a_sound_database_gives_no_finding() {
    assert_eq!(codes(&sound()), [""; 0]);
}

/// Something that is wrong with a database.
type Fault = fn(&mut Facts);

#[test]
fn each_fault_has_its_finding() {
    let faults: [(&str, Fault); 14] = [
        ("server_too_old", |f| f.server.version = 130_009),
        ("encoding", |f| f.server.encoding = "LATIN1".to_owned()),
        ("standby", |f| f.server.standby = true),
        ("read_only", |f| f.server.read_only = true),
        ("fsync_off", |f| f.server.fsync = false),
        ("schema_old", |f| f.version = Some(3)),
        ("schema_newer", |f| f.version = Some(5)),
        ("sequence", |f| {
            f.sequence.as_mut().unwrap().one_by_one = false;
        }),
        ("columns", |f| {
            f.sequence.as_mut().unwrap().ids_first = false;
        }),
        ("sequence_behind", |f| {
            f.sequence.as_mut().unwrap().highest = 10;
        }),
        ("sequence_behind", |f| {
            f.sequence.as_mut().unwrap().highest_read = 10;
        }),
        ("rights", |f| {
            f.missing_rights.push(MissingRight {
                privilege: "TRUNCATE".to_owned(),
                object: "messages_1".to_owned(),
                column: None,
            });
        }),
        ("long_transaction", |f| {
            f.transactions.push(OpenTransaction {
                pid: 7,
                user: None,
                application: Some("report".to_owned()),
                state: Some("idle in transaction".to_owned()),
                seconds: 301.0,
                writes: false,
            });
        }),
        ("prepared_transaction", |f| {
            f.prepared.push(PreparedTransaction {
                name: "p".to_owned(),
                owner: "o".to_owned(),
                seconds: 301.0,
            });
        }),
    ];

    for (code, fault) in faults {
        let mut facts = sound();
        fault(&mut facts);

        assert_eq!(codes(&facts), [code]);
    }
}

#[test]
fn each_doubt_about_streams_has_its_finding() {
    let mut facts = sound();
    facts.streams[0].lease_seconds = Some(-90_000.0);
    assert_eq!(codes(&facts), ["stream_forgotten"]);

    let mut facts = sound();
    facts.streams[0].lease_seconds = None;
    assert_eq!(codes(&facts), ["stream_forgotten"]);
    facts.streams[0].age_seconds = 60.0;
    assert_eq!(codes(&facts), [""; 0]);

    let mut facts = sound();
    facts.streams.push(stream("old", &["payments.*"]));
    assert_eq!(codes(&facts), ["stream_elsewhere"], "a relay holds it");
    facts.streams[1].lease_seconds = Some(-60.0);
    assert_eq!(codes(&facts), ["stream_unknown"]);

    let mut facts = sound();
    facts.streams.push(stream("paid", &["*.paid"]));
    assert_eq!(codes(&facts), ["stream_elsewhere", "overlap"]);

    let mut facts = sound();
    facts.unrouted.push(UnroutedTopic {
        topic: "audit".to_owned(),
        slots: 2,
        noted_seconds: 5.0,
    });
    assert_eq!(codes(&facts), ["unrouted"]);
}

#[test]
fn a_database_without_the_schema_says_only_that() {
    let mut facts = sound();
    facts.version = None;
    facts.tables.clear();
    facts.streams.clear();

    assert_eq!(codes(&facts), ["no_schema"]);
}

#[test]
fn the_worst_comes_first() {
    let mut facts = sound();
    facts.server.fsync = false;
    facts.version = Some(3);

    let severities: Vec<Severity> = judge(
        &facts,
        &Expected {
            known_version: 4,
            ..Expected::default()
        },
    )
    .iter()
    .map(|f| f.severity)
    .collect();

    assert_eq!(severities, [Severity::Problem, Severity::Warning]);
}

fn rights_finding(membership: Membership, lacking: usize) -> Finding {
    let mut facts = sound();
    facts.membership = membership;
    facts.missing_rights = (0..lacking)
        .map(|slot| MissingRight {
            privilege: "TRUNCATE".to_owned(),
            object: format!("messages_{slot}"),
            column: None,
        })
        .collect();
    judge(&facts, &Expected::default())
        .into_iter()
        .find(|finding| finding.code == "rights")
        .unwrap()
}

#[test]
fn a_user_without_its_role_is_told_the_one_statement_that_grants_it() {
    let finding = rights_finding(Membership::NotGranted, 48);

    assert_eq!(finding.text, "the user relay lacks the role onceward_relay");
    assert_eq!(
        finding.remedy,
        "as an administrator: grant onceward_relay to \"relay\";"
    );
}

#[test]
fn single_rights_are_named_only_to_who_has_the_role() {
    let few = rights_finding(Membership::Granted, 2);
    let many = rights_finding(Membership::Granted, 48);

    assert!(
        few.text
            .ends_with("lacks TRUNCATE on messages_0, TRUNCATE on messages_1"),
        "{few:?}"
    );
    assert!(many.text.ends_with("42 more"), "{many:?}");
    assert!(
        few.remedy.contains("select \"onceward\".grant_rights();"),
        "{few:?}"
    );
}

#[test]
fn a_role_that_is_missing_or_not_inherited_is_told_as_that() {
    let missing = rights_finding(Membership::NoRole, 1);
    let idle = rights_finding(Membership::NotInherited, 1);

    assert!(
        missing
            .remedy
            .contains("create role onceward_relay nologin;"),
        "{missing:?}"
    );
    assert!(
        idle.remedy.contains("alter role \"relay\" inherit;"),
        "{idle:?}"
    );
}

#[test]
fn what_waits_for_a_person_is_counted_with_its_age_and_the_command_to_run() {
    let mut facts = sound();
    let count = |state: &str, count, held| ParkedCount {
        stream: "events".to_owned(),
        state: state.to_owned(),
        count,
        oldest_seconds: 7_300.0,
        held_keys: held,
        held_seconds: (held > 0).then_some(130.0),
    };
    facts.streams[0].parked = vec![count("published", 5, 0), count("parked", 3, 1)];

    let findings = judge(&facts, &Expected::default());
    let found = |code: &str| {
        findings
            .iter()
            .find(|finding| finding.code == code)
            .unwrap()
    };

    assert_eq!(
        found("parked").text,
        "3 parked messages of the stream events wait for a person, the oldest for 2 h"
    );
    assert_eq!(
        found("held_keys").text,
        "1 key is held in the stream events, the first for 2 min: later messages wait for a parked one"
    );
    for code in ["parked", "held_keys"] {
        assert_eq!(found(code).severity, Severity::Warning);
        assert!(
            found(code)
                .remedy
                .contains("`onceward parked list --stream events`")
        );
    }
}

#[test]
fn what_lies_in_the_log_and_no_stream_reads_is_told_once() {
    let topics = ["orders.created", "a", "b", "c", "d", "e", "f"];
    let topics = topics.map(|topic| Topic::try_from(topic).unwrap());
    let mut facts = sound();
    facts.unrouted.push(UnroutedTopic {
        topic: "a".to_owned(),
        slots: 1,
        noted_seconds: 5.0,
    });
    let found = unread(&facts, &topics[..4]).unwrap();
    assert!(found.text.ends_with(": of b, c"), "{found:?}");

    facts.streams.clear();
    let found = unread(&facts, &topics).unwrap();
    assert!(
        found
            .text
            .ends_with("of orders.created, b, c, d, e and 1 more"),
        "{found:?}"
    );

    facts.streams.push(stream("all", &["*"]));
    assert_eq!(unread(&facts, &topics), None);
}

use onceward_testkit::postgres::Database;
use serde_json::json;

use crate::common::Shell;
use crate::{execute, migrated, refuse_updates};

#[tokio::test]
async fn dead_letters_are_listed_and_shown_whole() {
    let (database, shell) = migrated().await;
    execute(
        database.pool(),
        r#"
        insert into onceward.dead_letters (consumer, message_id, topic, key, type, payload, reason, error, attempts, history)
        values ('billing', gen_random_uuid(), 'orders.created', 'k1', 'orders.created', '{"order": 17}', 'attempts', 'no luck', 1,
                '[{"number": 1, "at": "2026-01-01T00:00:00Z", "took_ms": 5, "error": "no luck"}]');
        "#,
    )
    .await;

    let list = shell.json(&["dead-letters", "list"]).await;
    let id = list["dead_letters"][0]["id"].to_string();
    let shown = shell.ok(&["dead-letters", "show", &id]).await;
    let missing = shell.run(&["dead-letters", "show", "4711"]).await;

    for part in ["billing", "attempt 1", "no luck", r#"{"order": 17}"#] {
        assert!(shown.contains(part), "{part:?} is not in {shown}");
    }
    missing.assert_refused(1, &["no dead letter 4711"]);
}

async fn with_dead_letters() -> (Database, Shell) {
    let (database, shell) = migrated().await;
    execute(
        database.pool(),
        r#"
        insert into onceward.dead_letters (consumer, message_id, original_id, topic, key, type, payload, reason, error)
        select 'billing', gen_random_uuid(), 'order ' || n, 'orders.created', 'k1', 'orders.created', '{"order": 17}', 'attempts', 'no luck'
        from generate_series(1, 3) n;
        insert into onceward.dead_letters (consumer, message_id, topic, payload, reason)
        values ('mailer', gen_random_uuid(), 'orders.created', 'x', 'undecodable');
        "#,
    )
    .await;
    (database, shell)
}

#[tokio::test]
async fn dead_letters_are_changed_replayed_and_discarded() {
    let (database, shell) = with_dead_letters().await;

    let edited = shell
        .json(&[
            "dead-letters",
            "edit",
            "2",
            "--payload",
            "{}",
            "--set-header",
            "a=b",
            "--replay",
        ])
        .await;
    let again = shell
        .run(&["dead-letters", "edit", "2", "--key", "x"])
        .await;
    let nothing = shell.run(&["dead-letters", "edit", "2"]).await;
    let reserved = shell
        .run(&["dead-letters", "edit", "1", "--set-header", "ce-id=1"])
        .await;
    let replayed = shell
        .json(&["dead-letters", "replay", "--all", "--consumer", "billing"])
        .await;
    let unreadable = shell.run(&["dead-letters", "replay", "4"]).await;
    let unsure = shell.run(&["dead-letters", "discard", "4"]).await;
    let discarded = shell.json(&["dead-letters", "discard", "4", "--yes"]).await;
    let missing = shell
        .run(&["dead-letters", "discard", "4711", "--yes"])
        .await;

    assert_eq!(edited, json!({ "id": 2, "edited": true, "replayed": true }));
    again.assert_refused(1, &["does not wait for a person: it is replayed"]);
    nothing.assert_refused(2, &["--payload"]);
    reserved.assert_refused(2, &["reserved"]);
    assert_eq!(replayed["ids"], json!([1, 3]), "oldest first");
    unreadable.assert_refused(1, &["left as they are: 4", "--type"]);
    unsure.assert_refused(2, &["--yes"]);
    assert_eq!(discarded["ids"], json!([4]));
    missing.assert_refused(1, &["left as they are: 4711"]);
    let waiting: Vec<(String, Vec<u8>)> =
        sqlx::query_as("select original_id, payload from onceward.retries order by id")
            .fetch_all(database.pool())
            .await
            .unwrap();
    let ids: Vec<&str> = waiting.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(
        ids,
        ["order 2", "order 1", "order 3"],
        "in the order of the replays"
    );
    assert_eq!(waiting[0].1, b"{}");
    let shown = shell.ok(&["dead-letters", "show", "2"]).await;
    assert!(
        shown.contains("edited") && shown.contains("replayed"),
        "{shown}"
    );
}

#[tokio::test]
async fn a_dead_letter_is_replayed_as_a_new_message() {
    let (database, shell) = with_dead_letters().await;
    execute(
        database.pool(),
        "insert into onceward.streams (stream, topics) values ('events', '{orders.*}')",
    )
    .await;

    let replayed = shell
        .json(&["dead-letters", "replay", "1", "--as-new"])
        .await;

    let (id, of): (uuid::Uuid, String) =
        sqlx::query_as("select id, headers ->> 'onceward-replay-of' from onceward.messages")
            .fetch_one(database.pool())
            .await
            .unwrap();
    assert_eq!(replayed["messages"], json!([id]));
    assert_eq!(of, "order 1");
}

#[tokio::test]
async fn no_dead_letter_becomes_a_new_message_that_nobody_would_publish() {
    let (database, shell) = with_dead_letters().await;
    let consumer = ["dead-letters", "replay", "1", "--as-new"];
    let all = [
        "dead-letters",
        "replay",
        "--all",
        "--reason",
        "attempts",
        "--as-new",
    ];

    let without_stream = shell.run(&consumer).await;
    execute(
        database.pool(),
        "insert into onceward.streams (stream, topics, unrouted) values ('events', '{payments.*}', 'discard')",
    )
    .await;
    let without_topic = shell.run(&all).await;

    let remedy = "no stream of this database reads orders.created";
    without_stream.assert_refused(1, &["left as they are: 1", remedy, "without --as-new"]);
    without_topic.assert_refused(1, &["left as they are: 1, 2, 3", remedy]);
    let list = shell.json(&["dead-letters", "list"]).await;
    assert_eq!(list["dead_letters"].as_array().unwrap().len(), 4);
    let written: i64 = sqlx::query_scalar("select count(*) from onceward.messages")
        .fetch_one(database.pool())
        .await
        .unwrap();
    assert_eq!(written, 0);
}

#[tokio::test]
async fn a_consumer_that_nobody_knows_is_refused_with_those_that_are() {
    let (database, shell) = with_dead_letters().await;
    execute(
        database.pool(),
        "insert into onceward.consumers (consumer) values ('auditor')",
    )
    .await;

    let list = ["dead-letters", "list", "--consumer", "biling"];
    let replay = ["dead-letters", "replay", "--all", "--consumer", "biling"];
    let discard = [
        "dead-letters",
        "discard",
        "--all",
        "--consumer",
        "biling",
        "--yes",
    ];
    for unknown in [&list[..], &replay, &discard] {
        shell.run(unknown).await.assert_refused(
            1,
            &[
                "there is no consumer biling",
                "did you mean billing?",
                "auditor, billing, mailer",
            ],
        );
    }
    // It has run, and has given up on nothing.
    let sound = ["dead-letters", "list", "--consumer", "auditor"];
    assert_eq!(shell.json(&sound).await["dead_letters"], json!([]));
}

#[tokio::test]
async fn a_bulk_command_that_matches_nothing_says_so_and_ends_with_0() {
    let (_database, shell) = with_dead_letters().await;
    let replay = ["dead-letters", "replay", "--all", "--reason", "id_conflict"];

    let people = shell.ok(&replay).await;
    let programs = shell.json(&replay).await;

    assert_eq!(
        people,
        "0 dead letters: nothing matched, so nothing was changed\n"
    );
    assert_eq!(
        (&programs["ids"], &programs["matched"]),
        (&json!([]), &json!(0))
    );
}

#[tokio::test]
async fn a_reason_that_there_is_not_is_refused_with_the_one_that_was_meant() {
    let (_database, shell) = with_dead_letters().await;

    let listed = shell
        .run(&["dead-letters", "list", "--reason", "attemps"])
        .await;
    let replayed = shell
        .run(&["dead-letters", "replay", "--all", "--reason", "attemps"])
        .await;
    let none = shell
        .json(&["dead-letters", "list", "--reason", "too_old"])
        .await;

    for refused in [listed, replayed] {
        refused.assert_refused(1, &["no reason attemps", "did you mean attempts?"]);
    }
    assert_eq!(none["dead_letters"], json!([]));
}

#[tokio::test]
async fn an_edit_whose_replay_fails_tells_of_the_edit() {
    let (database, shell) = with_dead_letters().await;
    refuse_updates(database.pool(), "dead_letters", "new.state <> old.state").await;
    let edit = ["dead-letters", "edit", "2", "--payload", "{}", "--replay"];

    let people = shell.run(&edit).await;
    let programs = shell.run(&[&["--json"][..], &edit].concat()).await;
    let typeless = ["dead-letters", "edit", "4", "--payload", "{}", "--replay"];
    let without_type = shell.run(&typeless).await;

    let unknown = "dead letter 2: changed, and not known to be replayed\n";
    assert_eq!(people.out, unknown);
    let told: serde_json::Value = serde_json::from_str(&programs.out).unwrap();
    let changed = json!({ "id": 2, "edited": true, "replayed": null });
    assert_eq!(told, changed);
    for failed in [people, programs] {
        failed.assert_refused(
            1,
            &["replaying the dead letter could not be done", "not today"],
        );
    }
    assert_eq!(without_type.out, "dead letter 4: changed\n");
    without_type.assert_refused(1, &["it has no type", "--type"]);
}

#[tokio::test]
async fn what_was_replayed_before_an_error_is_told() {
    let (database, shell) = with_dead_letters().await;
    refuse_updates(database.pool(), "dead_letters", "new.id = 3").await;

    let failed = shell
        .run(&["--json", "dead-letters", "replay", "1", "3", "2"])
        .await;

    failed.assert_refused(
        1,
        &["replaying a dead letter could not be done", "not today"],
    );
    let told: serde_json::Value = serde_json::from_str(&failed.out).unwrap();
    assert_eq!(told["ids"], json!([1]), "{told}");
    assert_eq!(told["matched"], 3);
}

use serde_json::json;

use crate::common::Shell;
use crate::{execute, refuse_updates, with_parked};

#[tokio::test]
async fn parked_messages_are_listed_shown_changed_and_made_due() {
    let (_database, shell) = with_parked().await;

    let list = shell.ok(&["parked", "list"]).await;
    let page = shell.json(&["parked", "list", "--after", "events:7"]).await;
    let edit = shell
        .json(&[
            "parked",
            "edit",
            "events",
            "7",
            "--payload",
            "{}",
            "--set-header",
            "region=eu",
            "--remove-header",
            "tenant",
        ])
        .await;
    let shown = shell.json(&["parked", "show", "events", "7"]).await;
    let due = shell.json(&["parked", "replay", "events", "7"]).await;
    let late = shell
        .run(&["parked", "edit", "events", "7", "--key", "other"])
        .await;

    for part in ["events", "7", "too_large", "the broker takes 1000 bytes"] {
        assert!(list.contains(part), "{part:?} is not in {list}");
    }
    assert_eq!(page["parked"].as_array().unwrap().len(), 1);
    assert_eq!(edit["edited"], true);
    assert_eq!(shown["payload"], json!({ "text": "{}" }));
    assert_eq!(shown["headers"], json!({ "region": "eu" }));
    assert_eq!(shown["history"][0]["what"], "edited", "{shown}");
    assert_eq!(due["numbers"], json!([7]));
    late.assert_refused(1, &["does not wait for a person", "due"]);
}

#[tokio::test]
async fn an_edit_whose_replay_fails_tells_of_the_edit() {
    let (database, shell) = with_parked().await;
    refuse_updates(database.pool(), "parked", "new.state <> old.state").await;
    let edit = [
        "parked",
        "edit",
        "events",
        "7",
        "--payload",
        "{}",
        "--replay",
    ];

    let people = shell.run(&edit).await;
    let programs = shell.run(&[&["--json"][..], &edit].concat()).await;

    assert!(people.out.contains("changed, and not known to be due"));
    let told: serde_json::Value = serde_json::from_str(&programs.out).unwrap();
    assert_eq!(
        (&told["edited"], &told["due"]),
        (&json!(true), &json!(null))
    );
    for failed in [people, programs] {
        failed.assert_refused(
            1,
            &["making the message due could not be done", "not today"],
        );
    }
}

#[tokio::test]
async fn an_edit_that_enqueueing_would_refuse_is_refused() {
    let (_database, shell) = with_parked().await;

    for change in [
        ["--topic", "no spaces"],
        ["--set-header", "ce-id=1"],
        ["--key", ""],
    ] {
        let arguments = [&["parked", "edit", "events", "7"][..], &change[..]].concat();
        shell
            .run(&arguments)
            .await
            .assert_refused(2, &["not valid"]);
    }
    shell
        .run(&["parked", "edit", "events", "7"])
        .await
        .assert_refused(2, &["--topic"]);
}

#[tokio::test]
async fn what_cannot_be_undone_is_asked_for() {
    let (_database, shell) = with_parked().await;

    shell
        .run(&["parked", "discard", "events", "7"])
        .await
        .assert_refused(2, &["--yes"]);
    let one = shell
        .json(&["parked", "discard", "events", "7", "--yes"])
        .await;
    let all = shell
        .json(&["parked", "discard", "events", "--all", "--yes"])
        .await;
    let again = shell
        .run(&["parked", "discard", "events", "7", "4711", "--yes"])
        .await;
    let back = shell.json(&["parked", "replay", "events", "7"]).await;

    assert_eq!(
        (&one["numbers"], &all["numbers"]),
        (&json!([7]), &json!([8]))
    );
    again.assert_refused(1, &["left as they are: 7, 4711"]);
    assert_eq!(back["numbers"], json!([7]));
}

#[tokio::test]
async fn a_stream_that_nobody_knows_is_refused_with_those_that_are() {
    let (database, shell) = with_parked().await;
    let unknown = ["there is no stream evnts", "did you mean events?", "events"];

    for command in [
        &["parked", "list", "--stream", "evnts"][..],
        &["parked", "show", "evnts", "7"],
        &["parked", "edit", "evnts", "7", "--key", "k"],
        &["parked", "replay", "evnts", "--all"],
        &["parked", "replay", "evnts", "7"],
        &["parked", "discard", "evnts", "--all", "--yes"],
        &["stream", "drop", "evnts", "--yes"],
    ] {
        shell.run(command).await.assert_refused(1, &unknown);
    }
    // One that is configured and has never run is no slip of the pen.
    let new = "source = \"/s\"\n[streams.new.nats]\nservers = \"nats://h\"";
    let shell = Shell::with_config(new).variable("DATABASE_URL", database.url());
    let listed = shell.json(&["parked", "list", "--stream", "new"]).await;
    assert_eq!(listed["parked"], json!([]));
}

#[tokio::test]
async fn a_bulk_command_that_matches_nothing_says_so_and_ends_with_0() {
    let (_database, shell) = with_parked().await;
    let nothing = [
        "parked", "discard", "events", "--all", "--topic", "orders.x", "--yes",
    ];

    let people = shell.ok(&nothing).await;
    let programs = shell.json(&nothing).await;

    assert_eq!(
        people,
        "0 messages of the stream events: nothing matched, so nothing was changed\n"
    );
    assert_eq!(
        (&programs["numbers"], &programs["matched"]),
        (&json!([]), &json!(0))
    );
}

#[tokio::test]
async fn an_edit_that_frees_a_held_key_says_so() {
    let (database, shell) = with_parked().await;
    execute(
        database.pool(),
        "insert into onceward.cursors (stream, lane, detour, snapshot)
         select 'events', 1, 'key:orders.created:k' || n, pg_current_snapshot() from generate_series(7, 8) n",
    )
    .await;

    let kept = shell
        .json(&["parked", "edit", "events", "7", "--payload", "{}"])
        .await;
    let programs = shell
        .json(&["parked", "edit", "events", "7", "--no-key"])
        .await;
    let people = shell
        .ok(&["parked", "edit", "events", "8", "--topic", "other"])
        .await;

    assert_eq!(kept["frees_key"], false);
    assert_eq!(programs["frees_key"], true);
    assert!(people.contains("no longer held"), "{people}");
    let help = shell.ok(&["parked", "edit", "--help"]).await;
    assert!(help.contains("frees that key"), "{help}");
}

#[tokio::test]
async fn who_decides_is_the_person_or_else_the_user_of_the_database() {
    let (_database, shell) = with_parked().await;
    let show = ["parked", "show", "events", "7"];

    let mut nobody = shell.command(&["parked", "discard", "events", "7", "--yes"]);
    nobody.env_remove("USER").env_remove("LOGNAME");
    assert!(nobody.output().await.unwrap().status.success());
    let by_nobody = shell.json(&show).await["history"][0]["by"].clone();
    let shell = shell.variable("USER", "ann");
    shell.ok(&["parked", "replay", "events", "7"]).await;
    let shown = shell.ok(&show).await;

    assert_eq!(by_nobody, "database user postgres");
    assert!(shown.contains("made due by ann"), "{shown}");
}

#[tokio::test]
async fn what_was_decided_before_an_error_is_told() {
    let (database, shell) = with_parked().await;
    let more = "
        insert into onceward.parked (stream, seq, lane, id, topic, type, headers, payload, created_at, error_kind, error)
        select 'events', n, 1, gen_random_uuid(), 't', 't', '{}', '', clock_timestamp(), 'too_large', ''
        from generate_series(1001, 1600) n";
    execute(database.pool(), more).await;
    refuse_updates(database.pool(), "parked", "new.seq = 1600").await;

    let failed = shell
        .run(&["--json", "parked", "replay", "events", "--all"])
        .await;

    failed.assert_refused(1, &["making messages due could not be done"]);
    let told: serde_json::Value = serde_json::from_str(&failed.out).unwrap();
    assert_eq!(
        told["numbers"].as_array().unwrap().len(),
        500,
        "the first page"
    );
    assert_eq!(told["matched"], 602);
}

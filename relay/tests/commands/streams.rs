use crate::{execute, with_parked};

#[tokio::test]
async fn a_stream_that_nobody_runs_is_listed_and_dropped() {
    let (database, shell) = with_parked().await;
    let in_two_lanes = "
        select onceward.enqueue('orders.created', 'x', lane => lane) from unnest(array['standard', 'bulk', 'bulk']) lane";
    execute(database.pool(), in_two_lanes).await;

    let list = shell.json(&["stream", "list"]).await;
    shell
        .run(&["stream", "drop", "events"])
        .await
        .assert_refused(
            2,
            &["events", "2 messages that it has parked or due", "--yes"],
        );
    let discarded = &["parked", "discard", "events", "7", "--yes"];
    shell.ok(discarded).await;
    let dropped = shell.json(&["stream", "drop", "events", "--yes"]).await;

    assert_eq!(list["streams"][0]["stream"], "events");
    assert_eq!(list["streams"][0]["configured"], false);
    assert_eq!(dropped["parked"], 1);
    assert_eq!(dropped["decided"], 1);
    // Numbers 1 of the standard lane and 1 to 3 of the bulk lane, which has two of them.
    assert_eq!(dropped["unpublished_at_most"], 4, "{dropped} after {list}");
    let left: i64 = sqlx::query_scalar("select count(*) from onceward.cursors")
        .fetch_one(database.pool())
        .await
        .unwrap();
    assert_eq!(left, 0);
    shell
        .run(&["stream", "drop", "events", "--yes"])
        .await
        .assert_refused(
            1,
            &["there is no stream events", "no stream is known here yet"],
        );
}

#[tokio::test]
async fn a_stream_that_a_relay_holds_is_dropped_only_by_force() {
    let (database, shell) = with_parked().await;
    execute(
        database.pool(),
        "update onceward.streams set owner = 'relay-1', lease_token = gen_random_uuid(), lease_until = clock_timestamp() + interval '1 hour'",
    )
    .await;

    shell
        .run(&["stream", "drop", "events", "--yes"])
        .await
        .assert_refused(1, &["relay-1 holds", "--force"]);
    shell
        .ok(&["stream", "drop", "events", "--yes", "--force"])
        .await;
}

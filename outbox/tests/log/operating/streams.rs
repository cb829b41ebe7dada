//! Streams and their state, and the role that may look and decide.

use std::time::Duration;

use onceward::schema::CursorOverview;
use onceward::{DropStream, LogAdmin, LogDatabase, PausedTopic, Schema};
use time::OffsetDateTime;

use super::{hold, streams, with_parked};
use crate::support::{claim, claim_of, connection, enqueue, execute, migrated, stream};

#[tokio::test]
async fn the_state_of_a_stream_tells_depth_age_holder_and_what_is_paused() {
    let database = migrated().await;
    let (_reader, mut keeper, _) = stream(&database).await;
    let mut writer = connection(&database).await;
    for _ in 0..3 {
        enqueue(&mut writer, "k", "x").await;
    }
    let paused = PausedTopic {
        topic: "orders".to_owned(),
        reason: "unknown_topic".to_owned(),
        since: OffsetDateTime::now_utc(),
    };
    keeper
        .store_paused(std::slice::from_ref(&paused))
        .await
        .unwrap();

    let streams = streams(&database).await;

    assert_eq!(streams.len(), 1);
    let stream = &streams[0];
    assert_eq!(
        (stream.stream.as_str(), stream.owner.as_deref()),
        ("events", Some("a test"))
    );
    assert!(stream.lease_seconds.unwrap() > 0.0);
    assert_eq!(stream.paused[0]["topic"], paused.topic);
    let depths: Vec<(i16, i64)> = stream.cursors.iter().map(|c| (c.lane, c.depth)).collect();
    assert_eq!(depths, [(0, 0), (1, 3), (2, 0)]);
    let ages = |lane: usize| stream.cursors[lane].oldest_seconds;
    assert!(ages(1).is_some() && ages(0).is_none());
}

/// The broker may have been mended in between: the next holder would not know that it has to say so.
#[tokio::test]
async fn what_an_earlier_holder_had_paused_is_not_told_after_the_next_claim() {
    let database = migrated().await;
    let (_reader, mut keeper, _) = stream(&database).await;
    let paused = PausedTopic {
        topic: "orders".to_owned(),
        reason: "unknown_topic".to_owned(),
        since: OffsetDateTime::now_utc(),
    };
    keeper.store_paused(&[paused]).await.unwrap();
    keeper.release().await.unwrap();

    claim(&mut keeper, &claim_of("events", Duration::from_secs(60))).await;

    assert_eq!(
        streams(&database).await[0].paused,
        serde_json::Value::Array(Vec::new())
    );
}

#[tokio::test]
async fn a_stream_is_dropped_once_nobody_holds_it() {
    let database = migrated().await;
    let (mut admin, mut keeper) = with_parked(&database).await;

    let held = admin.drop_stream("events", false).await.unwrap();
    assert_eq!(
        held,
        DropStream::Held {
            owner: "a test".to_owned()
        }
    );
    keeper.release().await.unwrap();
    admin.discard_parked("events", &[2], "ann").await.unwrap();
    assert_eq!(admin.streams().await.unwrap(), ["events"]);

    assert_eq!(
        admin.drop_stream("events", false).await.unwrap(),
        DropStream::Dropped {
            waiting: 1,
            decided: 1
        }
    );
    assert_eq!(
        admin.drop_stream("events", false).await.unwrap(),
        DropStream::Unknown
    );
    assert!(streams(&database).await.is_empty());
}

#[tokio::test]
async fn what_is_parked_is_counted_with_its_age_and_the_keys_that_it_holds() {
    let database = migrated().await;
    let (mut admin, _keeper) = with_parked(&database).await;
    let before = streams(&database).await.remove(0).parked.remove(0);
    hold(&database).await;
    admin.discard_parked("events", &[2], "ann").await.unwrap();

    let parked = streams(&database).await.remove(0).parked;

    assert_eq!((before.count, before.held_keys), (2, 0));
    assert_eq!(before.held_seconds, None);
    let of = |state: &str| parked.iter().find(|count| count.state == state).unwrap();
    assert_eq!((of("parked").count, of("parked").held_keys), (1, 1));
    assert!(of("parked").oldest_seconds >= 0.0);
    assert!(of("parked").held_seconds.is_some());
    assert_eq!(of("discarded").count, 1);
}

#[tokio::test]
async fn the_age_of_a_detour_is_that_of_its_own_messages() {
    let database = migrated().await;
    let (_reader, _keeper, _) = stream(&database).await;
    let mut writer = connection(&database).await;
    for key in ["other", "k", "k"] {
        enqueue(&mut writer, key, "x").await;
    }
    hold(&database).await;
    execute(
        database.pool(),
        "update onceward.messages set created_at = clock_timestamp() - case key when 'k' then interval '1 hour' else interval '2 hours' end",
    )
    .await;

    let held = streams(&database).await.remove(0).cursors;
    execute(
        database.pool(),
        "delete from onceward.messages where key = 'k'",
    )
    .await;
    let drained = streams(&database).await.remove(0).cursors;

    let of = |cursors: &[CursorOverview], detour: &str| {
        let cursor = cursors.iter().find(|c| c.lane == 1 && c.detour == detour);
        // Whole minutes, since asking takes its time.
        let seconds = cursor.unwrap().oldest_seconds;
        seconds.map(|seconds| (seconds / 60.0).floor())
    };
    assert_eq!(of(&held, ""), Some(120.0));
    assert_eq!(of(&held, "key:orders:k"), Some(60.0));
    assert_eq!(of(&drained, "key:orders:k"), None);
}

#[tokio::test]
async fn the_admins_role_may_look_and_decide() {
    let database = migrated().await;
    let (_admin, _keeper) = with_parked(&database).await;
    let name = format!("admin_{}", database.name());
    execute(
        database.pool(),
        &format!("create role {name} login; grant onceward_admin to {name}"),
    )
    .await;
    let log = LogDatabase::new(database.url_as(&name).parse().unwrap(), Schema::default());
    let mut admin = LogAdmin::connect(&log).await.unwrap();

    admin
        .inspect_slots(Duration::from_secs(3 * 86_400))
        .await
        .unwrap();
    assert_eq!(
        admin.replay_parked("events", &[1], "ann").await.unwrap(),
        [1]
    );
    assert_eq!(
        admin.discard_parked("events", &[2], "ann").await.unwrap(),
        [2]
    );
    let dropped = admin.drop_stream("events", true).await.unwrap();

    let (waiting, decided) = (1, 1);
    assert_eq!(dropped, DropStream::Dropped { waiting, decided });
    execute(database.pool(), &format!("drop role {name}")).await;
}

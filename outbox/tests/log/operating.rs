//! What operators see and do.

use std::collections::BTreeMap;
use std::time::Duration;

use onceward::schema::{self, StreamOverview};
use onceward::{
    DropStream, Edited, Lane, LogAdmin, Park, ParkedEdit, ParkedFilter, ParkedState, PausedTopic,
    Schema,
};
use onceward_core::ErrorKind;
use onceward_testkit::postgres::Database;
use time::OffsetDateTime;

use crate::support::{connection, enqueue, execute, log_of, migrated, read, stream};

async fn streams(database: &Database) -> Vec<StreamOverview> {
    let mut connection = connection(database).await;
    schema::overview(&mut connection, &Schema::default())
        .await
        .unwrap()
}

async fn with_parked(database: &Database) -> (LogAdmin, onceward::Keeper) {
    let (mut reader, mut keeper, mut cursors) = stream(database).await;
    let mut writer = connection(database).await;
    for payload in ["one", "two"] {
        enqueue(&mut writer, "k", payload).await;
    }
    let rows = read(&mut reader, Lane::Standard, &mut cursors[1], 10).await;
    let parks: Vec<Park> = rows
        .into_iter()
        .map(|row| Park {
            lane: row.lane,
            message: row.into_message(),
            kind: ErrorKind::Rejected,
            error: "no".to_owned(),
        })
        .collect();
    keeper.park(&parks).await.unwrap();
    (LogAdmin::connect(&log_of(database)).await.unwrap(), keeper)
}

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
async fn parked_messages_are_listed_page_by_page_and_shown_whole() {
    let database = migrated().await;
    let (mut admin, _keeper) = with_parked(&database).await;
    let filter = ParkedFilter {
        stream: Some("events".to_owned()),
        state: Some(ParkedState::Parked),
        ..ParkedFilter::default()
    };

    let first = admin.parked(&filter, 1).await.unwrap();
    assert_eq!(first.len(), 1);
    let next = ParkedFilter {
        after: Some((first[0].stream.clone(), first[0].seq)),
        ..filter
    };
    assert_eq!(admin.parked(&next, 10).await.unwrap()[0].seq, 2);

    let message = admin.parked_message("events", 1).await.unwrap().unwrap();
    let shown = serde_json::to_value(&message).unwrap();
    assert_eq!(shown["payload"]["text"], "one");
    assert_eq!(shown["state"], "parked");
    assert_eq!(shown["error_kind"], "rejected");
    assert_eq!(shown["history"][0]["what"], "parked");
    assert!(admin.parked_message("events", 99).await.unwrap().is_none());
}

#[tokio::test]
async fn an_edited_message_is_due_with_its_changes_and_remembers_who_made_them() {
    let database = migrated().await;
    let (mut admin, mut keeper) = with_parked(&database).await;
    let edit = ParkedEdit {
        key: Some(None),
        headers: Some(BTreeMap::from([("tenant".to_owned(), "acme".to_owned())])),
        content_type: Some("text/plain".to_owned()),
        payload: Some(vec![0, 255]),
        ..ParkedEdit::default()
    };

    let edited = admin.edit_parked("events", 1, &edit, "ann").await.unwrap();
    assert_eq!(edited, Some(Edited { frees_key: false }));
    assert_eq!(
        admin
            .replay_parked("events", &[1, 99], "ann")
            .await
            .unwrap(),
        [1]
    );

    let due = keeper.due(10).await.unwrap().remove(0);
    assert_eq!(&due.message.payload[..], [0, 255]);
    assert_eq!(due.message.key, None);
    assert_eq!(due.message.headers.get("tenant"), Some("acme"));
    assert_eq!(due.message.content_type.as_deref(), Some("text/plain"));
    assert_eq!(due.message.topic.as_str(), "orders");
    let shown =
        serde_json::to_value(admin.parked_message("events", 1).await.unwrap().unwrap()).unwrap();
    assert_eq!(shown["payload"]["base64"], "AP8=");
    assert_eq!(shown["history"][1]["by"], "ann");
    // It may be on its way: no more edits.
    let again = admin.edit_parked("events", 1, &edit, "ann").await.unwrap();
    assert_eq!(again, None);
}

#[tokio::test]
async fn an_edit_of_one_part_leaves_the_others_as_they_were() {
    let database = migrated().await;
    let (mut admin, _keeper) = with_parked(&database).await;
    let before = admin.parked_message("events", 1).await.unwrap().unwrap();
    let edit = ParkedEdit {
        topic: Some("orders.other".to_owned()),
        ..ParkedEdit::default()
    };

    let edited = admin.edit_parked("events", 1, &edit, "ann").await.unwrap();
    assert_eq!(edited, Some(Edited { frees_key: false }));

    let after = admin.parked_message("events", 1).await.unwrap().unwrap();
    assert_eq!(after.summary.topic, "orders.other");
    assert_eq!(after.summary.key, before.summary.key);
    assert_eq!(after.content_type, None);
    assert_eq!(
        (after.headers, after.payload),
        (before.headers, before.payload)
    );
}

#[tokio::test]
async fn a_message_that_gets_another_key_loses_its_sequence_unless_it_gets_another() {
    let database = migrated().await;
    let (mut admin, _keeper) = with_parked(&database).await;
    execute(
        database.pool(),
        r#"update onceward.parked set headers = '{"onceward-sequence": "7", "tenant": "acme"}'"#,
    )
    .await;
    let to = |key: &str, sequence: Option<&str>| ParkedEdit {
        key: Some(Some(key.to_owned())),
        headers: sequence
            .map(|number| BTreeMap::from([("onceward-sequence".to_owned(), number.to_owned())])),
        ..ParkedEdit::default()
    };
    let mut sequences = Vec::new();

    for edit in [to("k", None), to("other", None), to("third", Some("8"))] {
        admin.edit_parked("events", 1, &edit, "ann").await.unwrap();
        let message = admin.parked_message("events", 1).await.unwrap().unwrap();
        let sequence = message.headers.get("onceward-sequence");
        sequences.push(sequence.map(str::to_owned));
    }

    let expected = [Some("7".to_owned()), None, Some("8".to_owned())];
    assert_eq!(sequences, expected);
}

/// Opens the detour of the key of the parked messages, as the lease holder does where a stream holds keys.
async fn hold(database: &Database) {
    execute(
        database.pool(),
        "insert into onceward.cursors (stream, lane, detour, last_seq, snapshot)
         select stream, lane, 'key:orders:k', last_seq, snapshot
         from onceward.cursors
         where stream = 'events' and lane = 1 and detour = ''",
    )
    .await;
}

#[tokio::test]
async fn an_edit_that_takes_away_what_a_key_waited_for_says_so() {
    let database = migrated().await;
    let (mut admin, _keeper) = with_parked(&database).await;
    hold(&database).await;
    let payload = ParkedEdit {
        payload: Some(vec![1]),
        ..ParkedEdit::default()
    };
    let key = ParkedEdit {
        key: Some(Some("other".to_owned())),
        ..ParkedEdit::default()
    };

    let same_key = admin.edit_parked("events", 1, &payload, "ann").await;
    let another_holds_it = admin.edit_parked("events", 1, &key, "ann").await;
    let last_of_it = admin.edit_parked("events", 2, &key, "ann").await;

    let frees = |frees_key| Some(Edited { frees_key });
    assert_eq!(same_key.unwrap(), frees(false));
    assert_eq!(another_holds_it.unwrap(), frees(false));
    assert_eq!(last_of_it.unwrap(), frees(true));
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

    let of = |cursors: &[schema::CursorOverview], detour: &str| {
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
async fn each_replay_is_another_run_to_the_broker() {
    let database = migrated().await;
    let (mut admin, mut keeper) = with_parked(&database).await;
    admin.replay_parked("events", &[1], "ann").await.unwrap();
    let first = keeper.due(10).await.unwrap().remove(0);
    admin.discard_parked("events", &[1], "ann").await.unwrap();
    admin.replay_parked("events", &[1], "ann").await.unwrap();

    let second = keeper.due(10).await.unwrap().remove(0);
    assert_ne!(first.run, second.run);

    // The end of the first run does not settle the second.
    keeper.replayed(&first, None).await.unwrap();
    assert_eq!(keeper.due(10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_published_is_neither_discarded_nor_replayed() {
    let database = migrated().await;
    let (mut admin, _keeper) = with_parked(&database).await;
    execute(
        database.pool(),
        "update onceward.parked set state = 'published'",
    )
    .await;

    assert!(
        admin
            .discard_parked("events", &[1, 2], "ann")
            .await
            .unwrap()
            .is_empty()
    );
    assert!(
        admin
            .replay_parked("events", &[1, 2], "ann")
            .await
            .unwrap()
            .is_empty()
    );
}

#[test]
fn an_edit_that_a_broker_would_refuse_is_refused_before_it_is_stored() {
    let topic = ParkedEdit {
        topic: Some("a b".to_owned()),
        ..ParkedEdit::default()
    };
    let header = ParkedEdit {
        headers: Some(BTreeMap::from([("ce-id".to_owned(), "1".to_owned())])),
        ..ParkedEdit::default()
    };

    assert!(topic.check().is_err() && header.check().is_err());
    assert!(ParkedEdit::default().check().is_ok());
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
    let log = onceward::LogDatabase::new(
        database.url_as(&name).parse().unwrap(),
        onceward::Schema::default(),
    );
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

//! Parked messages: listed, edited, replayed, discarded.

use std::collections::BTreeMap;

use onceward::{Edited, ParkedEdit, ParkedFilter, ParkedState};

use super::{hold, with_parked};
use crate::support::{execute, migrated};

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

    let due = keeper.due(0, 10).await.unwrap().remove(0);
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
async fn each_replay_is_another_run_to_the_broker() {
    let database = migrated().await;
    let (mut admin, mut keeper) = with_parked(&database).await;
    admin.replay_parked("events", &[1], "ann").await.unwrap();
    let first = keeper.due(0, 10).await.unwrap().remove(0);
    admin.discard_parked("events", &[1], "ann").await.unwrap();
    admin.replay_parked("events", &[1], "ann").await.unwrap();

    let second = keeper.due(0, 10).await.unwrap().remove(0);
    assert_ne!(first.run, second.run);

    // The end of the first run does not settle the second.
    keeper.replayed(&first, None).await.unwrap();
    assert_eq!(keeper.due(0, 10).await.unwrap().len(), 1);
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

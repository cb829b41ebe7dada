//! What is refused, and by which kind of error.

use onceward::{
    Draft, EnqueueError, InvalidHeader, InvalidKey, InvalidMessage, InvalidTopic, MAX_PAYLOAD,
    Message, Outbox,
};
use onceward_testkit::postgres::Postgres;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgPoolOptions;
use uuid::Uuid;

use crate::{draft, log, migrated};

#[tokio::test]
async fn bad_messages_are_refused_before_the_database_is_asked() {
    let database = migrated().await;
    let outbox = Outbox::new();
    let mut transaction = database.pool().begin().await.unwrap();
    let crowd = (0..65).fold(draft(), |draft, n| draft.header(format!("h{n}"), "v"));
    let bad = [
        Message::bytes("", "x"),
        Message::bytes(&"x".repeat(250), "x"),
        Message::bytes("a b", "x"),
        draft().key("k".repeat(10_240)),
        draft().key("a\nb"),
        draft().header("a\rb", "v"),
        draft().header("a\nb", "v"),
        draft().header("a\0b", "v"),
        draft().header("a:b", "v"),
        draft().header("ce-id", "v"),
        draft().header("ce_id", "v"),
        draft().header("Nats-Msg-Id", "v"),
        draft().header("onceward-seq", "v"),
        draft().header("a", "\r\n"),
        crowd,
        Message::bytes("t", vec![0; MAX_PAYLOAD + 1]),
        draft().lane_named("urgent"),
    ];

    for draft in bad {
        let shown = format!("{draft:?}").chars().take(80).collect::<String>();
        let one = outbox.enqueue(&mut transaction, draft.clone()).await;
        let many = outbox
            .enqueue_many(&mut transaction, [Message::bytes("t", "x"), draft])
            .await;

        assert!(
            matches!(one, Err(EnqueueError::Invalid { position: 0, .. })),
            "{shown}"
        );
        assert!(
            matches!(many, Err(EnqueueError::Invalid { position: 1, .. })),
            "{shown}"
        );
    }

    // The transaction can go on.
    outbox
        .enqueue(&mut transaction, Message::bytes("t", vec![0; MAX_PAYLOAD]))
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(log(database.pool()).await.len(), 1);
}

#[tokio::test]
async fn each_refusal_has_its_own_kind() {
    let refusal = |draft: Draft| match Outbox::new().max_payload(3).statement([draft]) {
        Err(EnqueueError::Invalid { source, .. }) => source,
        other => panic!("{other:?}"),
    };

    assert!(matches!(
        refusal(Message::bytes("", "x")),
        InvalidMessage::Topic(InvalidTopic::Empty)
    ));
    assert!(matches!(
        refusal(draft().key("k".repeat(10_240))),
        InvalidMessage::Key(InvalidKey::TooLong(10_240))
    ));
    assert!(matches!(
        refusal(draft().header("ce-x", "v")),
        InvalidMessage::Header(InvalidHeader::Reserved(_))
    ));
    assert!(matches!(
        refusal(Message::bytes("t", "four")),
        InvalidMessage::PayloadTooLarge { bytes: 4, cap: 3 }
    ));
    assert!(matches!(
        refusal(draft().lane_named("urgent")),
        InvalidMessage::Lane(_)
    ));
}

#[tokio::test]
async fn an_id_given_twice_in_one_call_is_refused() {
    let database = migrated().await;
    let mut connection = database.pool().acquire().await.unwrap();
    let id = Uuid::now_v7();

    let error = Outbox::new()
        .enqueue_many(&mut connection, [draft().id(id), draft(), draft().id(id)])
        .await
        .unwrap_err();

    assert!(matches!(error, EnqueueError::DuplicateId(doubled) if doubled == id));
    assert_eq!(log(database.pool()).await.len(), 0);
}

#[tokio::test]
async fn a_database_without_the_schema_and_a_user_without_the_right_are_named() {
    let database = Postgres::shared().await.database().await;
    let mut connection = database.pool().acquire().await.unwrap();
    let missing = Outbox::new()
        .enqueue(&mut connection, draft())
        .await
        .unwrap_err();
    assert!(matches!(missing, EnqueueError::NoSchema { .. }));
    assert!(missing.to_string().contains("run the migrations"));

    onceward_migrations::run(database.pool()).await.unwrap();
    let role = onceward_testkit::unique("stranger");
    sqlx::raw_sql(AssertSqlSafe(format!("create role {role} login")))
        .execute(database.pool())
        .await
        .unwrap();
    let pool = PgPoolOptions::new()
        .connect(&database.url_as(&role))
        .await
        .unwrap();
    let mut stranger = pool.acquire().await.unwrap();
    let forbidden = Outbox::new()
        .enqueue_many(&mut stranger, [draft()])
        .await
        .unwrap_err();
    assert!(
        matches!(forbidden, EnqueueError::Forbidden { .. }),
        "{forbidden:?}"
    );
}

use onceward_testkit::postgres::Database;
use sqlx::Row;
use uuid::Uuid;

async fn plan(database: &Database, explain: &'static str) -> String {
    let plan: Vec<String> = sqlx::query_scalar(explain)
        .fetch_all(database.pool())
        .await
        .unwrap();
    plan.join("\n")
}

#[tokio::test]
async fn the_slot_of_a_mark_is_the_day_of_its_uuid_or_its_last_bytes() {
    let database = super::migrated().await;
    let day = |id: Uuid| {
        let (seconds, _) = id.get_timestamp().unwrap().to_unix();
        i16::try_from(seconds / 86_400 % 12).unwrap()
    };
    let cases = [
        (Uuid::now_v7(), None),
        (
            Uuid::parse_str("ffffffff-ffff-4fff-8fff-ffffffffffff").unwrap(),
            Some(3),
        ),
        (
            Uuid::parse_str("00000000-0000-5000-8000-000000000017").unwrap(),
            Some(11),
        ),
        // Says version 7 and is no uuid of this layout: spread like any other.
        (
            Uuid::parse_str("ffffffff-ffff-7fff-ffff-00000000000d").unwrap(),
            Some(1),
        ),
        (Uuid::nil(), Some(0)),
    ];

    for (id, slot) in cases {
        let found: i16 = sqlx::query_scalar("select onceward.mark_slot($1)")
            .bind(id)
            .fetch_one(database.pool())
            .await
            .unwrap();

        assert_eq!(found, slot.unwrap_or_else(|| day(id)), "{id}");
    }
}

#[tokio::test]
async fn the_slot_of_a_mark_is_computed_within_the_statement() {
    let database = super::migrated().await;
    let explain = "
        explain (verbose, costs off)
        select onceward.mark_slot(message_id) from onceward.processed_messages";

    let plan = plan(&database, explain).await;

    assert!(plan.contains("message_id"), "{plan}");
    assert!(!plan.contains("mark_slot"), "{plan}");
}

#[tokio::test]
async fn a_mark_of_no_consumer_or_of_an_unknown_outcome_is_refused() {
    let database = super::migrated().await;
    let insert = "
        insert into onceward.processed_messages (slot, consumer, message_id, outcome)
        values (0, $1, gen_random_uuid(), $2)";
    let too_long = "c".repeat(64);

    for (consumer, outcome, refused) in [
        ("", 0, true),
        (&too_long[..], 0, true),
        ("billing", -1, true),
        ("billing", 5, true),
        (&too_long[1..], 4, false),
    ] {
        let written = sqlx::query(insert)
            .bind(consumer)
            .bind(outcome)
            .execute(database.pool())
            .await;

        let code = written.err().and_then(|error| {
            error
                .as_database_error()?
                .code()
                .map(|code| code.to_string())
        });
        let wanted = refused.then_some("23514");
        assert_eq!(code.as_deref(), wanted, "{consumer} {outcome}");
    }
}

#[tokio::test]
async fn the_names_of_consumers_are_checked_in_every_table() {
    let database = super::migrated().await;

    let unchecked: Vec<String> = sqlx::query_scalar(
        "select table_name::text
         from information_schema.columns
         where table_schema = 'onceward' and column_name = 'consumer' and domain_name is distinct from 'consumer_name'",
    )
    .fetch_all(database.pool())
    .await
    .unwrap();

    assert_eq!(unchecked, Vec::<String>::new());
}

#[tokio::test]
async fn a_mark_is_looked_for_in_one_partition() {
    let database = super::migrated().await;
    let explain = "
        explain
        select from onceward.processed_messages
        where slot = onceward.mark_slot('00000000-0000-5000-8000-000000000017') and consumer = 'billing'
          and message_id = '00000000-0000-5000-8000-000000000017'";

    let plan = plan(&database, explain).await;

    assert!(plan.contains("processed_messages_11"), "{plan}");
    assert_eq!(plan.matches(" on processed_messages_").count(), 1, "{plan}");
}

#[tokio::test]
async fn any_uuid_has_a_slot_and_the_slots_are_used_evenly() {
    let database = super::migrated().await;

    let rows = sqlx::query(
        "select onceward.mark_slot(gen_random_uuid()) as slot, count(*) as n
         from generate_series(1, 12000)
         group by 1",
    )
    .fetch_all(database.pool())
    .await
    .unwrap();

    assert_eq!(rows.len(), 12);
    for row in rows {
        let (slot, n): (i16, i64) = (row.get("slot"), row.get("n"));
        assert!(
            (0..12).contains(&slot) && (700..1300).contains(&n),
            "{slot}: {n}"
        );
    }
}

#[tokio::test]
async fn a_mark_is_inserted_once() {
    let database = super::migrated().await;
    let mark = "insert into onceward.processed_messages (slot, consumer, message_id, outcome)
                values (onceward.mark_slot($1), $2, $1, 0)";
    let id = Uuid::now_v7();

    let insert = |consumer: &'static str| {
        sqlx::query(mark)
            .bind(id)
            .bind(consumer)
            .execute(database.pool())
    };

    assert!(insert("billing").await.is_ok());
    assert!(insert("shipping").await.is_ok());
    assert_eq!(super::code(insert("billing").await), "23505");
}

//! Tests of the mark's insert in a real database.

use onceward_testkit::wait;
use sqlx::PgPool;

use super::super::testing;
use super::*;

#[tokio::test]
async fn a_line_that_came_to_be_held_while_the_mark_waited_is_seen() {
    let (test, database) = testing::database().await;
    let (id, line) = (Uuid::now_v7(), Uuid::now_v7());
    let mark = Mark { id, digest: None };
    let limit = Duration::from_secs(30);
    let mut other = test.pool().begin().await.unwrap();
    database
        .insert_mark(&mut other, &mark, Says::Handled, limit)
        .await
        .unwrap()
        .expect("the mark is not there yet");

    let mut connection = test.pool().acquire().await.unwrap();
    let insert =
        database.insert_mark_of_line(&mut connection, &mark, Some(line), Says::Handled, limit);
    let (inserted, ()) = tokio::join!(insert, async {
        until_one_waits(&database.pool).await;
        sqlx::query("insert into onceward.held_keys (consumer, line, topic, due_at) values ('billing', $1, 'orders', now())")
            .bind(line)
            .execute(&database.pool)
            .await
            .unwrap();
        other.rollback().await.unwrap();
    });

    let (_, held) = inserted.unwrap().expect("the mark was given up");
    assert!(held);
}

#[tokio::test]
async fn the_slot_of_a_mark_is_the_schemas() {
    let (test, _database) = testing::database().await;
    let versions = (0..16).map(|version| (version << 76) | (0b10 << 62));
    let variants = (0..4).map(|variant| (7 << 76) | (variant << 62));
    let mut ids: Vec<Uuid> = versions.chain(variants).map(Uuid::from_u128).collect();
    ids.extend([Uuid::nil(), Uuid::max()]);
    for _ in 0..500 {
        let bits = fastrand::u128(..);
        ids.push(Uuid::from_u128(bits));
        ids.push(
            uuid::Builder::from_u128(bits)
                .with_version(uuid::Version::SortRand)
                .into_uuid(),
        );
    }

    let slots: Vec<(Uuid, i16)> =
        sqlx::query_as("select id, onceward.mark_slot(id) from unnest($1::uuid[]) as id")
            .bind(&ids)
            .fetch_all(test.pool())
            .await
            .unwrap();

    assert_eq!(slots.len(), ids.len());
    for (id, slot) in slots {
        let mark = Mark { id, digest: None };
        assert_eq!(mark.slot(), slot, "{id}");
    }
}

async fn until_one_waits(pool: &PgPool) {
    let waits = "
        select exists (
          select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock')";
    wait::until_true(Duration::from_secs(30), "a wait for the mark", || async {
        sqlx::query_scalar(waits).fetch_one(pool).await.unwrap()
    })
    .await;
}

use sqlx::{AssertSqlSafe, Row};

#[tokio::test]
async fn every_table_but_the_log_has_a_primary_key() {
    let database = super::migrated().await;

    let without: Vec<String> = sqlx::query_scalar(
        "select c.relname::text
         from pg_class c
         where c.relnamespace = 'onceward'::regnamespace
           and c.relkind in ('r', 'p')
           and not exists (select from pg_index i where i.indrelid = c.oid and i.indisprimary)
           and c.relname !~ '^messages(_[0-9]+)?$'",
    )
    .fetch_all(database.pool())
    .await
    .unwrap();

    assert_eq!(without, [""; 0]);
}

#[tokio::test]
async fn the_slot_is_the_day_in_the_ring_at_every_hour() {
    let database = super::migrated().await;
    let default: String = sqlx::query_scalar(
        "select pg_get_expr(d.adbin, d.adrelid)
         from pg_attrdef d
         join pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum
         where d.adrelid = 'onceward.messages'::regclass and a.attname = 'slot'",
    )
    .fetch_one(database.pool())
    .await
    .unwrap();
    // The same expression, for every hour of two years in place of now.
    let at = default.replace("clock_timestamp()", "t.at");
    assert_ne!(at, default);

    let row = sqlx::query(AssertSqlSafe(format!(
        "select count(*) filter (where {at} not between 0 and 11) as outside,
                count(*) filter (where {at} <> (t.at at time zone 'UTC')::date - date '1970-01-01' - 12 *
                  (((t.at at time zone 'UTC')::date - date '1970-01-01') / 12)) as wrong
         from generate_series(timestamptz '2026-01-01 00:30Z', '2028-01-01 00:30Z', interval '1 hour') t (at)"
    )))
    .fetch_one(database.pool())
    .await
    .unwrap();

    assert_eq!(row.get::<i64, _>("outside"), 0);
    assert_eq!(row.get::<i64, _>("wrong"), 0);
}

#[tokio::test]
async fn the_settings_describe_the_tables() {
    let database = super::migrated().await;

    let row = sqlx::query(
        "select s.message_slots::int8 as slots, s.mark_slots::int8 as marks,
                (select count(*) from pg_inherits where inhparent = 'onceward.messages'::regclass) as partitions,
                (select count(*) from pg_inherits where inhparent = 'onceward.processed_messages'::regclass) as mark_partitions
         from onceward.settings s",
    )
    .fetch_one(database.pool())
    .await
    .unwrap();

    assert_eq!(row.get::<i64, _>("slots"), row.get::<i64, _>("partitions"));
    assert_eq!(
        row.get::<i64, _>("marks"),
        row.get::<i64, _>("mark_partitions")
    );
    let second = sqlx::query("insert into onceward.settings select false, 1, 1, 1, 1, 1")
        .execute(database.pool())
        .await;
    assert_eq!(super::code(second), "23514");
}

#[tokio::test]
async fn dropping_a_stream_takes_its_cursors_along() {
    let database = super::migrated().await;
    sqlx::raw_sql(
        "insert into onceward.streams (stream) values ('events');
         insert into onceward.cursors (stream, lane, snapshot) values ('events', 1, pg_current_snapshot());
         delete from onceward.streams where stream = 'events'",
    )
    .execute(database.pool())
    .await
    .unwrap();

    let left: i64 = sqlx::query_scalar("select count(*) from onceward.cursors")
        .fetch_one(database.pool())
        .await
        .unwrap();

    assert_eq!(left, 0);
}

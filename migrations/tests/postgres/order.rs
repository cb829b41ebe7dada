use std::time::Duration;

use onceward_testkit::postgres::Database;
use onceward_testkit::wait;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor};

const SOON: Duration = Duration::from_secs(30);

const COLUMNS: &str = "lane, id, topic, type, payload";

const PREPARE: &str = "set plan_cache_mode = force_generic_plan; prepare enqueue(text[]) as";

/// As clients enqueue many at once.
const ARRAYS: &str = "
select 1, gen_random_uuid(), m.topic, m.topic, ''::bytea
from unnest($1) with ordinality as m (topic, position)
order by m.position";

/// The ways in which rows come into the log.
fn ways() -> [(&'static str, String); 7] {
    let values = "(1, gen_random_uuid(), 'orders', 'orders', '')";
    let into = format!("insert into onceward.messages ({COLUMNS})");
    let many =
        "select 1, gen_random_uuid(), 'orders', 'orders', ''::bytea from generate_series(1, 3) n";
    [
        ("one row", format!("{into} values {values}")),
        ("some rows", format!("{into} values {values}, {values}")),
        ("a query", format!("{into} {many}")),
        ("a sorted query", format!("{into} {many} order by n desc")),
        (
            "the function",
            "select onceward.enqueue('orders', '')".to_owned(),
        ),
        (
            "a prepared statement of arrays",
            format!("{PREPARE} {into} {ARRAYS}; execute enqueue('{{orders,orders}}')"),
        ),
        (
            "copy",
            format!("copy onceward.messages ({COLUMNS}) from stdin"),
        ),
    ]
}

async fn write(connection: &mut PgConnection, sql: &str) {
    if sql.starts_with("copy") {
        let mut copy = connection.copy_in_raw(sql).await.unwrap();
        let row = "1\t01900000-0000-7000-8000-000000000000\torders\torders\t\n";
        copy.send(row.as_bytes()).await.unwrap();
        copy.finish().await.unwrap();
    } else {
        let sql = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        connection.execute(sql).await.unwrap();
    }
}

/// Writes this way while nobody gets a number, and tells whether the transaction has its id by then.
async fn has_id_first(database: &Database, way: &str, sql: &str) -> bool {
    let mut owner = PgConnection::connect(database.url()).await.unwrap();
    let mut held = owner.begin().await.unwrap();
    let hold = "alter sequence onceward.messages_seq_seq increment by 1";
    held.execute(hold).await.unwrap();
    let mut writer = PgConnection::connect(database.url()).await.unwrap();
    let pid: i32 = sqlx::query_scalar("select pg_backend_pid()")
        .fetch_one(&mut writer)
        .await
        .unwrap();
    let sql = sql.to_owned();
    let writing = tokio::spawn(async move { write(&mut writer, &sql).await });
    wait::until(SOON, &format!("{way} to wait for a number"), || async {
        let waits = "
            select true
            from pg_locks
            where pid = $1 and not granted and relation = 'onceward.messages_seq_seq'::regclass";
        let waits = sqlx::query_scalar::<_, bool>(waits).bind(pid);
        waits.fetch_optional(database.pool()).await.unwrap()
    })
    .await;
    // Asked only now: a view that shows both has looked at ids before it looks at waits.
    let has_id = "select backend_xid is not null from pg_stat_activity where pid = $1";
    let has_id: bool = sqlx::query_scalar(has_id)
        .bind(pid)
        .fetch_one(database.pool())
        .await
        .unwrap();
    held.rollback().await.unwrap();
    writing.await.unwrap();
    has_id
}

/// Readers go by it, and the server's manual does not promise it.
#[tokio::test]
async fn a_transaction_has_its_id_before_it_takes_a_number() {
    let database = super::migrated().await;

    for (way, sql) in ways() {
        assert!(has_id_first(&database, way, &sql).await, "{way}");
    }

    let numbers = "select array_agg(seq order by seq) from onceward.messages";
    let numbers: Vec<i64> = sqlx::query_scalar(numbers)
        .fetch_one(database.pool())
        .await
        .unwrap();
    assert_eq!(numbers, (1..=13).collect::<Vec<_>>());
}

#[tokio::test]
async fn with_its_columns_the_other_way_round_it_has_none() {
    let database = super::migrated().await;
    let turned = "
        alter table onceward.messages drop column txid cascade;
        alter table onceward.messages add column txid xid8 not null default pg_current_xact_id()";
    let turned = sqlx::raw_sql(turned);
    database.pool().execute(turned).await.unwrap();

    let (way, sql) = &ways()[0];

    assert!(!has_id_first(&database, way, sql).await);
}

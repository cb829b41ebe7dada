//! The plan of the read on a real server: by index, whatever the planner knows and however it plans.

use onceward_core::{Lane, Schema};
use onceward_testkit::postgres::{Database, Postgres};
use serde_json::Value;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor, Row};

use super::read_sql::{PER_CURSOR, statement};

const PER_SLOT: usize = 10_000;
const ROWS: usize = 500;
const ALL: [i16; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];

/// Twelve slots, full of one lane, written by many transactions; nothing is known to the planner.
async fn filled() -> Database {
    let database = Postgres::shared().await.database().await;
    onceward_migrations::run(database.pool()).await.unwrap();
    let mut connection = database.pool().acquire().await.unwrap();
    for slot in 0..12 {
        let text = format!(
            "alter table onceward.messages_{slot} set (autovacuum_enabled = off);
             insert into onceward.messages (slot, lane, id, topic, key, type, payload)
             select {slot}, 1, gen_random_uuid(), 'orders', (i % 100)::text, 'orders', decode(repeat('ab', 200), 'hex')
             from generate_series(1, {PER_SLOT}) i"
        );
        connection
            .execute(sqlx::raw_sql(AssertSqlSafe(text)))
            .await
            .unwrap();
    }
    database
}

/// The session of a reader, with the plan cache as told.
async fn reader(database: &Database, plans: &str, slots: &[i16]) -> PgConnection {
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    connection
        .execute(super::session::READ_SETTINGS)
        .await
        .unwrap();
    let text = format!("set plan_cache_mode = {plans}; set default_transaction_read_only = off");
    connection
        .execute(sqlx::raw_sql(AssertSqlSafe(text)))
        .await
        .unwrap();
    let of_cursor = [
        "bigint", "bigint", "text", "text", "bigint", "bigint", "bigint", "text",
    ];
    let types: Vec<&str> = (0..3).flat_map(|_| of_cursor).collect();
    assert_eq!(types.len(), 3 * PER_CURSOR);
    let sql = statement(&Schema::default(), &Lane::ALL, slots);
    let prepare = format!("prepare read({}) as {}", types.join(","), sql.as_str());
    connection
        .execute(sqlx::raw_sql(AssertSqlSafe(prepare)))
        .await
        .unwrap();
    connection
}

/// What a run of the read cost.
#[derive(Debug, Default)]
struct Cost {
    rows: u64,
    thrown_away: u64,
    buffers: u64,
    scans: Vec<String>,
}

/// Where all lanes stand.
struct At<'a> {
    last: i64,
    snapshot: &'a str,
    pinned: Option<&'a str>,
    late_below: Option<&'a str>,
}

/// Runs the read with all lanes at one position.
async fn explain(connection: &mut PgConnection, at: &At<'_>) -> Cost {
    let text = |text: Option<&str>| text.map_or("null".to_owned(), |text| format!("'{text}'"));
    let (last, snapshot) = (at.last, at.snapshot);
    let (pinned, late_below) = (text(at.pinned), text(at.late_below));
    let new_rows = if at.pinned.is_some() { 0 } else { ROWS };
    let lane =
        format!("{last}, 0, '{snapshot}', {pinned}, {ROWS}, {new_rows}, 1000000000, {late_below}");
    let text =
        format!("explain (analyze, buffers, format json) execute read({lane}, {lane}, {lane})");
    let row = connection
        .fetch_one(sqlx::raw_sql(AssertSqlSafe(text)))
        .await
        .unwrap();
    let plan: Value = row.get(0);
    let plan = &plan[0]["Plan"];
    let mut cost = Cost {
        buffers: number(plan, "Shared Hit Blocks") + number(plan, "Shared Read Blocks"),
        ..Cost::default()
    };
    walk(plan, &mut cost);
    cost
}

fn number(node: &Value, name: &str) -> u64 {
    node[name].as_f64().map_or(0, |number| number as u64)
}

fn walk(node: &Value, cost: &mut Cost) {
    let loops = number(node, "Actual Loops");
    if node["Relation Name"]
        .as_str()
        .is_some_and(|name| name.starts_with("messages"))
    {
        cost.rows += number(node, "Actual Rows") * loops;
        cost.thrown_away += number(node, "Rows Removed by Filter") * loops;
        let kind = node["Node Type"].as_str().unwrap().to_owned();
        if !cost.scans.contains(&kind) {
            cost.scans.push(kind);
        }
    }
    for child in node["Plans"].as_array().into_iter().flatten() {
        walk(child, cost);
    }
}

async fn text(connection: &mut PgConnection, sql: &'static str) -> String {
    let row = connection.fetch_one(sql).await.unwrap();
    row.get(0)
}

fn assert_by_index(cost: &Cost, rows: u64, buffers: u64, case: &str) {
    let by_index =
        |scan: &String| ["Index Scan", "Index Only Scan", "Tid Scan"].contains(&scan.as_str());
    assert!(cost.scans.iter().all(by_index), "{case}: {cost:?}");
    assert!(cost.rows <= rows, "{case}: {cost:?}");
    assert!(cost.thrown_away <= rows, "{case}: {cost:?}");
    assert!(cost.buffers <= buffers, "{case}: {cost:?}");
}

/// Snapshots of the filled log, as texts.
struct Snapshots {
    now: String,
    /// The transaction that filled the first slot ran: all of it is late.
    first_ran: String,
    /// The one that filled the last slot had not begun: all of it is late as well.
    before_last: String,
    /// The one that filled the last slot.
    last: String,
}

async fn snapshots(connection: &mut PgConnection) -> Snapshots {
    let now = text(connection, "select pg_current_snapshot()::text").await;
    let ends = "select min(txid)::text || ':' || max(txid)::text from onceward.messages";
    let ends = text(connection, ends).await;
    let (first, last) = ends.split_once(':').unwrap();
    let xmax = now.split(':').nth(1).unwrap();
    Snapshots {
        first_ran: format!("{first}:{xmax}:{first}"),
        before_last: format!("{last}:{last}:"),
        last: last.to_owned(),
        now,
    }
}

#[tokio::test]
async fn the_read_goes_by_index_whatever_the_planner_knows() {
    let database = filled().await;
    let all = i64::try_from(12 * PER_SLOT).unwrap();
    let (rows, per_slot) = (ROWS as u64, PER_SLOT as u64);

    for statistics in [false, true] {
        if statistics {
            database
                .pool()
                .execute("analyze onceward.messages")
                .await
                .unwrap();
        }
        for (plans, slots) in [
            ("force_custom_plan", &ALL[..]),
            ("force_generic_plan", &ALL[..]),
            ("force_generic_plan", &[0, 11]),
            ("force_generic_plan", &[0]),
        ] {
            let mut connection = reader(&database, plans, slots).await;
            let at = snapshots(&mut connection).await;
            let page = 3 * rows + 100;
            // All of that transaction is gone through, once.
            let begun = page + if slots.contains(&11) { per_slot } else { 0 };
            let read = |last, snapshot| At {
                last,
                snapshot,
                pinned: None,
                late_below: None,
            };
            let pinned = At {
                pinned: Some(&at.now),
                ..read(all, &at.first_ran)
            };
            let told = At {
                late_below: Some(&at.last),
                ..read(all, &at.before_last)
            };
            for (what, at, rows, buffers) in [
                ("nothing new", read(all, &at.now), 0, 400),
                ("new rows", read(all / 2, &at.now), 2 * rows + 100, 1_500),
                // Nothing is below: what is late is not looked for.
                ("first", read(0, &at.before_last), 2 * rows + 100, 1_500),
                ("late rows", read(all, &at.first_ran), page, 2_500),
                ("pinned", pinned, page, 2_500),
                ("begun since", read(all, &at.before_last), begun, 3_000),
                // None that had not begun is late.
                ("begun since, told", told, 0, 400),
            ] {
                let cost = explain(&mut connection, &at).await;
                let case = format!("{what}, statistics: {statistics}, {plans}, {slots:?}");
                assert_by_index(&cost, rows, buffers, &case);
                let some = slots.contains(&11) || !["new rows", "begun since"].contains(&what);
                assert_eq!(cost.rows > 0, rows > 0 && some, "{case}: {cost:?}");
            }
        }
    }
}

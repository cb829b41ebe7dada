//! What was done to tables that a consumer relies on, and would lose or double messages without a sign.

use onceward_core::Schema;
use sqlx::PgPool;

use crate::ConsumerError;

/// The tables of a consumer; marks have partitions besides.
const TABLES: [&str; 10] = [
    "settings",
    "processed_messages",
    "consumers",
    "dead_letters",
    "retries",
    "held_keys",
    "consumer_positions",
    "key_sequences",
    "starts",
    "paused_types",
];

/// Slots of the marks, and of the log.
const SLOTS: u8 = 12;

/// What one table has that it must not have. A trigger that runs after rows are written is let be: it may only tell others of them. Bits 2
/// and 64 of a trigger's type: before the row or statement, and in place of it. `D`: disabled.
///
/// By the catalog's own indexes. $1 schema, $2 tables and partitions.
const ALTERED: &str = "
with ours as (
  select c.oid, c.relname::text as name, c.relrowsecurity, c.relpersistence
  from unnest($2::text[]) as w (name)
  join pg_namespace n on n.nspname = $1
  join pg_class c on c.relnamespace = n.oid and c.relname = w.name
)
select name, 'row security, which may hide rows'
from ours
where relrowsecurity
union all
select name, 'no write-ahead log, so that a crash empties it'
from ours
where relpersistence = 'u'
union all
select o.name, 'the trigger ' || t.tgname || ', which may change or drop rows'
from ours o
join pg_trigger t on t.tgrelid = o.oid
where not t.tgisinternal
  and t.tgenabled <> 'D'
  and t.tgtype & (2 | 64) <> 0
union all
select o.name, 'the rule ' || r.rulename || ', which may change or drop rows'
from ours o
join pg_rewrite r on r.ev_class = o.oid
where r.ev_enabled <> 'D'
order by 1, 2
limit 1";

/// Refuses tables that were altered so. `sends`: the consumer enqueues too.
pub(crate) async fn refuse(
    pool: &PgPool,
    schema: &Schema,
    sends: bool,
) -> Result<(), ConsumerError> {
    let altered: Option<(String, String)> = sqlx::query_as(ALTERED)
        .bind(schema.as_str())
        .bind(names(sends))
        .fetch_optional(pool)
        .await
        .map_err(ConsumerError::Database)?;
    match altered {
        None => Ok(()),
        Some((table, what)) => Err(ConsumerError::Altered {
            table: format!("{schema}.{table}"),
            what,
        }),
    }
}

fn names(sends: bool) -> Vec<String> {
    let log = sends.then_some("messages");
    let tables = TABLES.into_iter().chain(log).map(str::to_owned);
    let rings = ["processed_messages"].into_iter().chain(log);
    let slots = rings.flat_map(|ring| (0..SLOTS).map(move |slot| format!("{ring}_{slot}")));
    tables.chain(slots).collect()
}

//! What was done to tables that a consumer relies on, and would lose or double messages without a sign.

use onceward_core::Schema;
use sqlx::PgPool;

use crate::ConsumerError;

/// The tables of a consumer; those of marks have partitions besides.
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

/// What one table has that it must not have. A trigger that runs after rows are written is let be: it may only tell others of them. Bits 2
/// and 64 of a trigger's type: before the row or statement, and in place of it.
///
/// By the catalog's own indexes. $1 schema, $2 tables, $3 those of them with partitions.
const ALTERED: &str = "
with ours as (
  select c.oid, c.relname::text as name, c.relrowsecurity, c.relpersistence
  from pg_namespace n
  join pg_class c on c.relnamespace = n.oid
  where n.nspname = $1
    and c.relkind in ('r', 'p')
    and (c.relname = any ($2) or regexp_replace(c.relname, '_[0-9]+$', '') = any ($3))
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
  and t.tgtype & (2 | 64) <> 0
union all
select o.name, 'the rule ' || r.rulename || ', which may change or drop rows'
from ours o
join pg_rewrite r on r.ev_class = o.oid
order by 1, 2
limit 1";

/// Refuses tables that were altered so. `sends`: the consumer enqueues too.
pub(super) async fn refuse(
    pool: &PgPool,
    schema: &Schema,
    sends: bool,
) -> Result<(), ConsumerError> {
    let of_log = sends.then_some("messages");
    let tables: Vec<&str> = TABLES.into_iter().chain(of_log).collect();
    let rings: Vec<&str> = ["processed_messages"].into_iter().chain(of_log).collect();
    let altered: Option<(String, String)> = sqlx::query_as(ALTERED)
        .bind(schema.as_str())
        .bind(tables)
        .bind(rings)
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

//! What was done to tables that a consumer relies on, and would lose or double messages without a sign.

use onceward_core::Schema;
use sqlx::PgPool;

use super::Right;
use crate::ConsumerError;
use crate::within::{Borrowed, START, within};

/// What one table has that it must not have. A trigger that runs after rows are written is let be: it may only tell others of them. Bits 2
/// and 64 of a trigger's type: before the row or statement, and in place of it. `D`: disabled; the copies that a table's partitions have of
/// its trigger may be enabled still, and are internal before PostgreSQL 15.
///
/// Served by the catalog's indexes, but for the copies of a disabled trigger, for which all triggers are gone through; locks nothing. $1
/// names of tables, to which their partitions are added.
const ALTERED: &str = "
with named as (
  select distinct name::regclass as oid
  from unnest($1::text[]) as w (name)
),
ours as (
  select c.oid, c.relname::text as name, c.relrowsecurity, c.relpersistence
  from (
    select oid
    from named
    union
    select i.inhrelid
    from named
    join pg_inherits i on i.inhparent = oid
  ) as t
  join pg_class c on c.oid = t.oid
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
  and (
    t.tgenabled <> 'D'
    or exists (
      select from pg_trigger copy
      where copy.tgparentid = t.oid
        and copy.tgenabled <> 'D'
    )
  )
  and t.tgtype & (2 | 64) <> 0
union all
select o.name, 'the rule ' || r.rulename || ', which may change or drop rows'
from ours o
join pg_rewrite r on r.ev_class = o.oid
where r.ev_enabled <> 'D'
order by 1, 2
limit 1";

/// Refuses if one of the tables on which there are these rights was altered so.
pub(crate) async fn refuse(
    pool: &PgPool,
    schema: &Schema,
    rights: &[Right],
) -> Result<(), ConsumerError> {
    let tables = rights.iter().filter(|right| right.kind == "table");
    let names: Vec<&str> = tables.map(|right| right.object.as_str()).collect();
    match altered(pool, &names)
        .await
        .map_err(ConsumerError::Database)?
    {
        None => Ok(()),
        Some((table, what)) => Err(ConsumerError::Altered {
            table: format!("{schema}.{table}"),
            what,
        }),
    }
}

/// The first table that was altered so, and what it has.
async fn altered(pool: &PgPool, names: &[&str]) -> Result<Option<(String, String)>, sqlx::Error> {
    let mut borrowed = Borrowed::of(pool).await?;
    let ask = sqlx::query_as(ALTERED)
        .bind(names)
        .fetch_optional(borrowed.connection());
    let altered = within(START, ask).await?;
    borrowed.give_back();
    Ok(altered)
}

//! What a consumer needs of its database: tables that are there and as they were made, rights of its role. Asked at the start.

pub(crate) mod altered;

use onceward_core::Schema;
use serde::Serialize;
use sqlx::{FromRow, PgPool};
use time::OffsetDateTime;

use crate::within::{Borrowed, START, within};
use crate::{ConsumerError, sql};

/// A right that a consumer's role needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub struct Right {
    /// The role that asked.
    pub role: String,
    /// `schema`, `table` or `function`.
    pub kind: String,
    /// What it is a right on, with its schema.
    pub object: String,
    /// `SELECT`, `INSERT` and so on.
    pub privilege: String,
    /// Whether it is there.
    pub exists: bool,
    /// Whether the role has it.
    pub held: bool,
}

impl Right {
    /// The statement that grants it.
    #[must_use]
    pub fn grant(&self) -> String {
        let privilege = self.privilege.to_lowercase();
        let role = format!("\"{}\"", self.role.replace('"', "\"\""));
        format!(
            "grant {privilege} on {} {} to {role};",
            self.kind, self.object
        )
    }
}

/// By the catalog's own indexes. Names instead of casts to `regclass`: those fail where a right is missing.
const RIGHTS: &str = "
with wanted (kind, name, privilege) as (
  values
    ('table', 'settings', 'SELECT'),
    ('table', 'processed_messages', 'SELECT'),
    ('table', 'processed_messages', 'INSERT'),
    ('table', 'processed_messages', 'UPDATE'),
    ('table', 'consumers', 'SELECT'),
    ('table', 'consumers', 'INSERT'),
    ('table', 'consumers', 'UPDATE'),
    ('table', 'dead_letters', 'SELECT'),
    ('table', 'dead_letters', 'INSERT'),
    ('table', 'dead_letters', 'UPDATE'),
    ('table', 'consumer_positions', 'SELECT'),
    ('table', 'consumer_positions', 'INSERT'),
    ('table', 'consumer_positions', 'UPDATE'),
    ('table', 'key_sequences', 'SELECT'),
    ('table', 'key_sequences', 'INSERT'),
    ('table', 'key_sequences', 'UPDATE')
  union all
  select 'table', name, privilege
  from unnest(array['retries', 'held_keys', 'paused_types', 'starts']) as name, unnest(array['SELECT', 'INSERT', 'UPDATE', 'DELETE']) as privilege
  union all
  select 'table', 'processed_messages_' || slot, privilege
  from generate_series(0, 11) as slot, unnest(array['SELECT', 'DELETE', 'TRUNCATE']) as privilege
)
select
  current_user::text as role,
  w.kind,
  quote_ident($1) || '.' || w.name as object,
  w.privilege,
  c.oid is not null as exists,
  coalesce(has_table_privilege(c.oid, w.privilege), false) as held
from wanted w
left join pg_namespace n on n.nspname = $1
left join pg_class c on c.relnamespace = n.oid and c.relname = w.name
union all
select
  current_user::text, 'function', quote_ident($1) || '.' || w.name, 'EXECUTE', p.oid is not null,
  coalesce(has_function_privilege(p.oid, 'EXECUTE'), false)
from unnest(array['is_held']) as w (name)
left join pg_namespace n on n.nspname = $1
left join pg_proc p on p.pronamespace = n.oid and p.proname = w.name
union all
select
  current_user::text, 'schema', quote_ident($1), 'USAGE', n.oid is not null,
  coalesce(has_schema_privilege(n.oid, 'USAGE'), false)
from (select 1) as one
left join pg_namespace n on n.nspname = $1";

/// All rights that a consumer's role needs, with what this pool's role has of them.
///
/// # Errors
/// Any database error; [`sqlx::Error::PoolTimedOut`] when the pool gives no connection within its own limit, and [`sqlx::Error::Io`] when the
/// database does not answer within 15 s.
///
/// # Cancel safety
/// Safe to drop.
pub async fn rights(pool: &PgPool, schema: &Schema) -> Result<Vec<Right>, sqlx::Error> {
    rights_by(pool, schema, RIGHTS).await
}

/// Rights that are looked for by a statement.
async fn rights_by(
    pool: &PgPool,
    schema: &Schema,
    statement: &'static str,
) -> Result<Vec<Right>, sqlx::Error> {
    let mut borrowed = Borrowed::of(pool).await?;
    let ask = sqlx::query_as(statement)
        .bind(schema.as_str())
        .fetch_all(borrowed.connection());
    let rights = within(START, ask).await?;
    borrowed.give_back();
    Ok(rights)
}

/// What enqueueing takes: rights on columns, and on functions that may have several forms.
const ENQUEUE_RIGHTS: &str = "
select
  current_user::text as role,
  'table' as kind,
  quote_ident($1) || '.messages' as object,
  'INSERT (' || a.attname || ')' as privilege,
  true as exists,
  has_column_privilege(c.oid, a.attnum, 'INSERT') as held
from pg_namespace n
join pg_class c on c.relnamespace = n.oid and c.relname = 'messages'
join pg_attribute a on a.attrelid = c.oid
  and a.attname in ('lane', 'id', 'topic', 'key', 'type', 'headers', 'payload')
where n.nspname = $1
union all
select
  current_user::text, 'function', quote_ident($1) || '.' || p.proname, 'EXECUTE', true,
  has_function_privilege(p.oid, 'EXECUTE')
from pg_namespace n
join pg_proc p on p.pronamespace = n.oid
where n.nspname = $1
  and p.proname in ('enqueue', 'append', 'refuse', 'uuid_v7', 'lane_number', 'check_names', 'checked_headers')";

/// Which of the roles are there, and not granted to the user.
const LACKING_ROLES: &str = "
select wanted
from unnest($1::text[]) as wanted
join pg_roles r on r.rolname = wanted
where not pg_has_role(r.oid, 'member')";

/// A type that is paused, because most of its messages fail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub struct PausedType {
    /// Whose.
    pub consumer: String,
    /// The type.
    #[serde(rename = "type")]
    #[sqlx(rename = "type")]
    pub kind: String,
    /// What the message failed with that paused it.
    pub error: String,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    pub paused_at: OffsetDateTime,
    /// How many keys, and messages without one, wait for it.
    pub waiting: i64,
}

/// By primary key; for each, `held_keys_waits_for`.
const PAUSED_TYPES: &str = "
select
  p.consumer, p.type, p.error, p.paused_at,
  (
    select count(*)
    from {schema}.held_keys h
    where h.consumer = p.consumer
      and h.waits_for = p.type) as waiting
from {schema}.paused_types p
where p.resumed_at is null
order by p.consumer, p.type";

/// The types that are paused, of all consumers.
///
/// # Errors
/// Any database error.
///
/// # Cancel safety
/// Safe to drop.
pub async fn paused_types(pool: &PgPool, schema: &Schema) -> Result<Vec<PausedType>, sqlx::Error> {
    sqlx::query_as(sql::over(schema, PAUSED_TYPES))
        .fetch_all(pool)
        .await
}

/// Refuses to start where a consumer could not do its work, else tells the rights that it needs. `sends`: it enqueues too.
pub(crate) async fn check(
    pool: &PgPool,
    schema: &Schema,
    sends: bool,
) -> Result<Vec<Right>, ConsumerError> {
    if is_standby(pool).await.map_err(ConsumerError::Database)? {
        return Err(ConsumerError::Standby);
    }
    let mut rights = rights(pool, schema)
        .await
        .map_err(ConsumerError::Database)?;
    let consumes = rights.len();
    if sends {
        let enqueue = rights_by(pool, schema, ENQUEUE_RIGHTS).await;
        rights.extend(enqueue.map_err(ConsumerError::Database)?);
    }
    if rights.iter().any(|right| !right.exists) {
        return Err(ConsumerError::NoSchema(schema.clone()));
    }
    let lacks = |rights: &[Right]| rights.iter().any(|right| !right.held);
    let (consuming, sending) = rights.split_at(consumes);
    let wanted = [
        lacks(consuming).then_some("onceward_consumer"),
        lacks(sending).then_some("onceward_writer"),
    ];
    let wanted: Vec<&'static str> = wanted.into_iter().flatten().collect();
    let (held, missing): (Vec<Right>, Vec<Right>) =
        rights.into_iter().partition(|right| right.held);
    match missing.first() {
        None => Ok(held),
        Some(first) => Err(ConsumerError::Rights {
            role: first.role.clone(),
            roles: lacking(pool, wanted)
                .await
                .map_err(ConsumerError::Database)?,
            missing,
        }),
    }
}

async fn is_standby(pool: &PgPool) -> Result<bool, sqlx::Error> {
    let mut borrowed = Borrowed::of(pool).await?;
    let ask = sqlx::query_scalar("select pg_is_in_recovery()").fetch_one(borrowed.connection());
    let standby = within(START, ask).await?;
    borrowed.give_back();
    Ok(standby)
}

/// Those of the roles that would help if they were granted to the user.
async fn lacking(
    pool: &PgPool,
    mut roles: Vec<&'static str>,
) -> Result<Vec<&'static str>, sqlx::Error> {
    let mut borrowed = Borrowed::of(pool).await?;
    let ask = sqlx::query_scalar(LACKING_ROLES)
        .bind(&roles)
        .fetch_all(borrowed.connection());
    let lacking: Vec<String> = within(START, ask).await?;
    borrowed.give_back();
    roles.retain(|role| lacking.iter().any(|lacking| lacking == role));
    Ok(roles)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_right_is_named_as_the_statement_that_grants_it() {
        let right = Right {
            role: "billing\"x".to_owned(),
            kind: "table".to_owned(),
            object: "onceward.dead_letters".to_owned(),
            privilege: "INSERT".to_owned(),
            exists: true,
            held: false,
        };

        assert_eq!(
            right.grant(),
            "grant insert on table onceward.dead_letters to \"billing\"\"x\";"
        );
    }
}

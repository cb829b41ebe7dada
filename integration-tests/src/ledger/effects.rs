//! The effects that handlers write: a table without a unique constraint, so that what happens twice is seen.

use sqlx::postgres::{PgConnection, PgPool};
use uuid::Uuid;

use super::facts::Effect;

const TABLE: &str = "
create schema if not exists ledger;
create table if not exists ledger.effects (
  n bigserial primary key,
  message_id uuid not null
);
grant usage on schema ledger to public;
grant select, insert on ledger.effects to public;
grant usage on sequence ledger.effects_n_seq to public;
";

/// Makes the table in the consumer's database. Any role may write to it.
///
/// # Panics
/// When the database refuses.
pub async fn install(pool: &PgPool) {
    sqlx::raw_sql(TABLE)
        .execute(pool)
        .await
        .expect("the table of effects can be made");
}

/// What a handler does: writes that the message took effect, in the handler's transaction.
///
/// # Errors
/// The database's own; a handler passes it on.
pub async fn record(connection: &mut PgConnection, message: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query("insert into ledger.effects (message_id) values ($1)")
        .bind(message)
        .execute(connection)
        .await?;
    Ok(())
}

/// All effects, in the order in which they were written.
pub(super) async fn all(pool: &PgPool) -> Result<Vec<Effect>, sqlx::Error> {
    let ids: Vec<Uuid> = sqlx::query_scalar("select message_id from ledger.effects order by n")
        .fetch_all(pool)
        .await?;
    Ok(ids.into_iter().map(|id| Effect { id }).collect())
}

/// How many messages took effect.
pub(super) async fn count(pool: &PgPool) -> Result<u64, sqlx::Error> {
    let count: i64 = sqlx::query_scalar("select count(distinct message_id) from ledger.effects")
        .fetch_one(pool)
        .await?;
    Ok(u64::try_from(count).unwrap_or(0))
}

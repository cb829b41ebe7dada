//! Watches who takes a lease and who moves a cursor, from inside the database, so that a checkpoint of a relay that
//! had lost its lease is seen. Relays are told apart by the `application_name` in their database URL.

use sqlx::Row as _;
use sqlx::postgres::PgPool;

use super::facts::FenceEvent;

// The functions run with the rights of whoever makes them: the relay's role has none here.
const TRIGGERS: &str = "
create schema if not exists ledger;
create table ledger.fence (
  n bigserial primary key,
  what text not null,
  stream text not null,
  who text not null,
  lane smallint,
  detour text,
  last_seq bigint
);

create function ledger.saw_claim() returns trigger language plpgsql security definer as $$
begin
  if new.lease_token is not null and (tg_op = 'INSERT' or new.lease_token is distinct from old.lease_token) then
    insert into ledger.fence (what, stream, who)
    values ('claim', new.stream, current_setting('application_name'));
  end if;
  return null;
end $$;

create function ledger.saw_checkpoint() returns trigger language plpgsql security definer as $$
begin
  insert into ledger.fence (what, stream, who, lane, detour, last_seq)
  values ('checkpoint', new.stream, current_setting('application_name'), new.lane, new.detour, new.last_seq);
  return null;
end $$;

create trigger ledger_saw_claim after insert or update on onceward.streams
for each row execute function ledger.saw_claim();

create trigger ledger_saw_checkpoint after update on onceward.cursors
for each row execute function ledger.saw_checkpoint();
";

/// Begins to watch. The product's tables must be there.
pub(super) async fn install(pool: &PgPool) {
    sqlx::raw_sql(TRIGGERS)
        .execute(pool)
        .await
        .expect("the product's tables are there and are not watched yet");
}

/// What was seen, in order: writers of one stream wait for one another on its row.
pub(super) async fn all(pool: &PgPool) -> Result<Vec<FenceEvent>, sqlx::Error> {
    let statement = "select what, stream, who, lane, detour, last_seq from ledger.fence order by n";
    let rows = sqlx::query(statement).fetch_all(pool).await?;
    rows.iter()
        .map(|row| {
            let (stream, who) = (row.try_get("stream")?, row.try_get("who")?);
            if row.try_get::<String, _>("what")? == "claim" {
                return Ok(FenceEvent::Claim { stream, who });
            }
            let cursor = (row.try_get("lane")?, row.try_get("detour")?);
            Ok(FenceEvent::Checkpoint {
                stream,
                who,
                cursor,
                last_seq: row.try_get("last_seq")?,
            })
        })
        .collect()
}

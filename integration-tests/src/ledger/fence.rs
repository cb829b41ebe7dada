//! Watches who takes a lease and who moves a cursor, from inside the database, so that a checkpoint under a token that
//! is no longer valid is seen.
//!
//! A lease's token is made by the server and told to the connection that claims, and each claim writes on over its own
//! connection. So what a checkpoint is made under is the token that its connection was told last, whatever its statement
//! asks for; a session that claims is made to remember it. It is compared with the token in the stream's row, in the
//! transaction of the checkpoint.
//!
//! With each claim it notes the stored cursors, at which whoever claims begins. So it is known of each message whether a
//! claim may have had it published once more: when it was committed by then, and a cursor of its lane had not passed it.

use std::collections::HashMap;

use sqlx::Row as _;
use sqlx::postgres::PgPool;
use uuid::Uuid;

use super::facts::FenceEvent;

// The functions run with the rights of whoever makes them: the relay's role has none here. What a session remembers goes
// back with its transaction, as the claim does.
const TRIGGERS: &str = "
create schema if not exists ledger;
create table ledger.fence (
  n bigserial primary key,
  what text not null,
  stream text not null,
  who text not null,
  token uuid,
  valid uuid,
  lane smallint,
  detour text,
  last_seq bigint
);

create table ledger.begins (
  claim bigint not null references ledger.fence,
  lane smallint not null,
  last_seq bigint not null,
  snapshot pg_snapshot not null,
  seen pg_snapshot not null
);

create function ledger.saw_claim() returns trigger language plpgsql security definer as $$
declare
  claim bigint;
begin
  if new.lease_token is not null and (tg_op = 'INSERT' or new.lease_token is distinct from old.lease_token) then
    perform set_config('ledger.token_' || new.stream, new.lease_token::text, false);
    insert into ledger.fence (what, stream, who, token)
    values ('claim', new.stream, current_setting('application_name'), new.lease_token)
    returning n into claim;
    -- None at the first claim of a stream: there was nobody before, whose messages it could repeat.
    insert into ledger.begins (claim, lane, last_seq, snapshot, seen)
    select claim, lane, last_seq, snapshot, pg_current_snapshot()
    from onceward.cursors
    where stream = new.stream;
  end if;
  return null;
end $$;

create function ledger.saw_checkpoint() returns trigger language plpgsql security definer as $$
begin
  insert into ledger.fence (what, stream, who, token, valid, lane, detour, last_seq)
  values (
    'checkpoint', new.stream, current_setting('application_name'),
    nullif(current_setting('ledger.token_' || new.stream, true), '')::uuid,
    (select lease_token from onceward.streams where stream = new.stream),
    new.lane, new.detour, new.last_seq);
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
    let statement = "
        select what, stream, who, token, valid, lane, detour, last_seq
        from ledger.fence
        order by n";
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
                under: row.try_get("token")?,
                valid: row.try_get("valid")?,
                cursor,
                last_seq: row.try_get("last_seq")?,
            })
        })
        .collect()
}

/// How many claims may have had each of these messages published once more. What a cursor has passed of late rows in the
/// middle of its pages counts as not passed.
pub(super) async fn repeats(
    pool: &PgPool,
    messages: &[Uuid],
) -> Result<HashMap<Uuid, u64>, sqlx::Error> {
    let statement = "
        select m.id, count(distinct b.claim)
        from onceward.messages m
        join ledger.begins b on b.lane = m.lane
          and pg_visible_in_snapshot(m.txid, b.seen)
          and (m.seq > b.last_seq or not pg_visible_in_snapshot(m.txid, b.snapshot))
        where m.id = any($1)
        group by m.id";
    let rows: Vec<(Uuid, i64)> = sqlx::query_as(statement)
        .bind(messages)
        .fetch_all(pool)
        .await?;
    let counted = |(id, claims)| (id, u64::try_from(claims).unwrap_or(0));
    Ok(rows.into_iter().map(counted).collect())
}

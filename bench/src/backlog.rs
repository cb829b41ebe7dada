//! Fills a log with committed messages.

use sqlx::PgPool;
use uuid::Uuid;

use crate::outcome::Outcome;

/// The topic of all messages.
pub(crate) const TOPIC: &str = "bench.events";

/// Keys of all messages.
pub(crate) const KEYS: u64 = 1_000;

/// Bytes of a payload.
pub(crate) const PAYLOAD: usize = 300;

/// What is done for the tables after a fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Care {
    /// Vacuum and statistics.
    Vacuum,
    /// Nothing: autovacuum is dead.
    None,
}

/// The procedures may commit within their loops; a million statements from here would take minutes. What is retained is of three
/// days, the last one's today, each in the slot of its day.
const PROCEDURES: &str = "
create or replace procedure fill(messages bigint, per_transaction bigint) language plpgsql as $$
declare body bytea := convert_to(rpad('{\"order\":17,\"note\":\"', 298, 'x') || '\"}', 'utf8');
begin
  for n0 in 0 .. messages - 1 by per_transaction loop
    insert into onceward.messages (lane, id, topic, key, type, headers, payload)
    select 1, gen_random_uuid(), 'bench.events', 'k' || n % 1000, 'bench.event', '{}', body
    from generate_series(n0, least(n0 + per_transaction, messages) - 1) as n;
    commit;
  end loop;
end $$;
create or replace procedure retain(messages bigint, per_transaction bigint) language plpgsql as $$
declare
  body bytea := convert_to(rpad('{\"order\":17,\"note\":\"', 298, 'x') || '\"}', 'utf8');
  at timestamptz;
begin
  for n0 in 0 .. messages - 1 by per_transaction loop
    at := clock_timestamp() - make_interval(days => 2 - (n0 * 3 / messages)::integer);
    insert into onceward.messages (created_at, slot, lane, id, topic, key, type, headers, payload)
    select at, (floor(date_part('epoch', at) / 86400)::bigint % 12)::smallint,
      1, gen_random_uuid(), 'bench.events', 'k' || n % 1000, 'bench.event', '{}', body
    from generate_series(n0, least(n0 + per_transaction, messages) - 1) as n;
    commit;
  end loop;
end $$";

/// Writes messages of 300 bytes over 1,000 keys, `per_transaction` of them in each transaction, then brings the
/// statistics up to date. Commits of the filling itself do not wait for the disk.
pub(crate) async fn fill(pool: &PgPool, messages: u64, per_transaction: u64) -> Outcome {
    write(pool, messages, per_transaction, Care::Vacuum).await
}

/// The same with such care.
pub(crate) async fn write(
    pool: &PgPool,
    messages: u64,
    per_transaction: u64,
    care: Care,
) -> Outcome {
    eprintln!("filling a log: {messages} messages, {per_transaction} a transaction …");
    call(pool, "call fill($1, $2)", (messages, per_transaction), care).await
}

/// Writes messages that are kept after they were published: of today and the two days before.
pub(crate) async fn retain(pool: &PgPool, messages: u64) -> Outcome {
    eprintln!("filling a log: {messages} messages that are retained …");
    let what = (messages, 1_000);
    call(pool, "call retain($1, $2)", what, Care::Vacuum).await
}

async fn call(
    pool: &PgPool,
    statement: &'static str,
    (messages, per_transaction): (u64, u64),
    care: Care,
) -> Outcome {
    let mut connection = pool.acquire().await?;
    sqlx::raw_sql(PROCEDURES).execute(&mut *connection).await?;
    sqlx::raw_sql("set synchronous_commit = off")
        .execute(&mut *connection)
        .await?;
    sqlx::query(statement)
        .bind(i64::try_from(messages)?)
        .bind(i64::try_from(per_transaction)?)
        .execute(&mut *connection)
        .await?;
    // Apart, as they cannot run in the one transaction that several statements of a text are.
    let after: &[&'static str] = match care {
        Care::Vacuum => &["reset synchronous_commit", VACUUM, "checkpoint"],
        Care::None => &["reset synchronous_commit", "checkpoint"],
    };
    for statement in after {
        sqlx::raw_sql(*statement).execute(&mut *connection).await?;
    }
    Ok(())
}

const VACUUM: &str = "vacuum analyze onceward.messages";

/// Takes the newest messages out of the log, as if they had never been written.
pub(crate) async fn take_last(pool: &PgPool, messages: u64) -> Outcome {
    let sql = "
delete from onceward.messages
where lane = 1
  and seq >= (select min(seq) from (select seq from onceward.messages where lane = 1 order by seq desc limit $1) newest)";
    let taken = sqlx::query(sql).bind(i64::try_from(messages)?);
    let taken = taken.execute(pool).await?.rows_affected();
    if taken != messages {
        return Err(format!("took {taken} messages of {messages}").into());
    }
    sqlx::raw_sql(VACUUM).execute(pool).await?;
    Ok(())
}

/// Turns autovacuum off for all tables of the schema.
pub(crate) async fn without_autovacuum(pool: &PgPool) -> Outcome {
    let sql = "
do $$
declare name text;
begin
  for name in
    select c.oid::regclass::text
    from pg_class c
    where c.relnamespace = 'onceward'::regnamespace and c.relkind = 'r'
  loop
    execute format('alter table %s set (autovacuum_enabled = false, toast.autovacuum_enabled = false)', name);
  end loop;
end $$";
    sqlx::raw_sql(sql).execute(pool).await?;
    Ok(())
}

/// What fills a payload that holds its id and its key, so that it has some 300 bytes.
pub(crate) const PADDING: usize = 232;

/// A payload for those who do not send the id beside it.
pub(crate) fn payload_of(id: Uuid, key: &str) -> String {
    let note = "x".repeat(PADDING);
    format!(r#"{{"id":"{id}","key":"{key}","note":"{note}"}}"#)
}

/// The id in such a payload, also when somebody has written its JSON anew.
pub(crate) fn id_in(payload: &[u8]) -> Option<Uuid> {
    let text = std::str::from_utf8(payload).ok()?;
    let (_, behind) = text.split_once(r#""id""#)?;
    let (_, value) = behind.split_once('"')?;
    value.get(..36)?.parse().ok()
}

/// A payload like those of the log.
pub(crate) fn payload() -> Vec<u8> {
    let mut payload = br#"{"order":17,"note":""#.to_vec();
    payload.resize(PAYLOAD - 2, b'x');
    payload.extend_from_slice(br#""}"#);
    payload
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_found_in_a_payload_however_its_json_is_written() {
        let id = Uuid::from_u128(7);
        let written = payload_of(id, "k17");
        let anew = format!(r#"{{"key": "k17", "id": "{id}"}}"#);

        assert_eq!(id_in(written.as_bytes()), Some(id));
        assert_eq!(id_in(anew.as_bytes()), Some(id));
        assert_eq!(id_in(b"{}"), None);
        assert!((295..=300).contains(&written.len()), "{}", written.len());
    }
}

//! Fills a log with committed messages.

use sqlx::PgPool;

use crate::outcome::Outcome;

/// The topic of all messages.
pub(crate) const TOPIC: &str = "bench.events";

/// Keys of all messages.
pub(crate) const KEYS: u64 = 1_000;

/// Bytes of a payload.
pub(crate) const PAYLOAD: usize = 300;

/// Writes messages of 300 bytes over 1,000 keys, `per_transaction` of them in each transaction, then brings the
/// statistics up to date. Commits of the filling itself do not wait for the disk.
pub(crate) async fn fill(pool: &PgPool, messages: u64, per_transaction: u64) -> Outcome {
    eprintln!("filling a log: {messages} messages, {per_transaction} a transaction …");
    let mut connection = pool.acquire().await?;
    // A procedure may commit within its loop; a million statements from here would take minutes.
    sqlx::raw_sql(
        "create procedure fill(messages bigint, per_transaction bigint) language plpgsql as $$
         declare body bytea := convert_to(rpad('{\"order\":17,\"note\":\"', 298, 'x') || '\"}', 'utf8');
         begin
           for n0 in 0 .. messages - 1 by per_transaction loop
             insert into onceward.messages (lane, id, topic, key, type, headers, payload)
             select 1, gen_random_uuid(), 'bench.events', 'k' || n % 1000, 'bench.event', '{}', body
             from generate_series(n0, least(n0 + per_transaction, messages) - 1) as n;
             commit;
           end loop;
         end $$",
    )
    .execute(&mut *connection)
    .await?;
    sqlx::raw_sql("set synchronous_commit = off")
        .execute(&mut *connection)
        .await?;
    sqlx::query("call fill($1, $2)")
        .bind(i64::try_from(messages)?)
        .bind(i64::try_from(per_transaction)?)
        .execute(&mut *connection)
        .await?;
    // Apart, as they cannot run in the one transaction that several statements of a text are.
    for statement in [
        "reset synchronous_commit",
        "vacuum analyze onceward.messages",
        "checkpoint",
    ] {
        sqlx::raw_sql(statement).execute(&mut *connection).await?;
    }
    Ok(())
}

/// A payload like those of the log.
pub(crate) fn payload() -> Vec<u8> {
    let mut payload = br#"{"order":17,"note":""#.to_vec();
    payload.resize(PAYLOAD - 2, b'x');
    payload.extend_from_slice(br#""}"#);
    payload
}

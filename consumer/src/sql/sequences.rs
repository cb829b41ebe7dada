//! The numbers of keys. Who settles a numbered message locks the row of its key first, or makes it.

/// Takes the number behind the highest, as nearly every message does. By primary key; waits for whoever changes the same row. No row: it is
/// not that one, or the key has none yet, or none was taken since this consumer started. $1 consumer, $2 line, $3 number, $4 what its
/// message would be marked by, $5 its number in the log, $6 its time, $7 when the consumer started.
pub(super) const NEXT: &str = "
update {schema}.key_sequences
set
  high = $3,
  high_mark = $4,
  seen = greatest(seen, $5),
  seen_at = greatest(seen_at, $6),
  raised_at = clock_timestamp()
where consumer = $1
  and line = $2
  and high = $3 - 1
  and not reused
  and raised_at >= $7
returning
  pg_current_xact_id()::xid::text,
  pg_backend_pid(),
  clock_timestamp()";

/// Locks the numbers of a key. By primary key. $1 consumer, $2 line.
pub(super) const LOCK: &str = "
select
  high,
  high_mark,
  array(select lower(gap) from unnest(gaps) as gap order by 1) as starts,
  array(select upper(gap) from unnest(gaps) as gap order by 1) as ends,
  closed,
  seen,
  seen_at,
  reused,
  raised_at
from {schema}.key_sequences
where consumer = $1
  and line = $2
for no key update";

/// Writes the numbers of a key that this transaction has locked. By primary key.
/// $1 consumer, $2 line, $3 high, $4 its mark, $5 the starts of the gaps, $6 their ends, $7 closed, $8 seen, $9 when, $10 reused.
pub(super) const SET: &str = "
update {schema}.key_sequences
set
  high = $3,
  high_mark = $4,
  gaps = (
    select coalesce(range_agg(int8range(gap.low, gap.high)), '{}')
    from unnest($5::bigint[], $6::bigint[]) as gap (low, high)
  ),
  closed = $7,
  seen = $8,
  seen_at = $9,
  reused = $10,
  raised_at = case when high = $3 then raised_at else clock_timestamp() end
where consumer = $1
  and line = $2
returning
  pg_current_xact_id()::xid::text,
  pg_backend_pid(),
  clock_timestamp()";

/// Writes the first numbers of a key, unless they are there. Waits for whoever is inserting the same. As above, and $11 topic, $12 key.
pub(super) const FIRST: &str = "
insert into {schema}.key_sequences (
  consumer, line, high, high_mark, gaps, closed, seen, seen_at, reused, topic, key)
select
  $1, $2, $3, $4, coalesce(range_agg(int8range(gap.low, gap.high)), '{}'), $7, $8, $9, $10, $11, $12
from unnest($5::bigint[], $6::bigint[]) as gap (low, high)
on conflict do nothing
returning
  pg_current_xact_id()::xid::text,
  pg_backend_pid(),
  clock_timestamp()";

/// As for a mark: whether a transaction that is over has left it behind. By primary key. $1 consumer, $2 line, $3 its xid.
pub(super) const LEFT_BEHIND: &str = "
select xmin = $3::text::xid
from {schema}.key_sequences
where consumer = $1
  and line = $2";

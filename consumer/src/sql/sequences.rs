//! The numbers of keys. Who settles a numbered message locks the row of its key first, or makes it.

/// Takes the number behind the highest, as nearly every message does. By primary key; waits for whoever changes the same row. No row: it is
/// not that one, or the key has none yet. $1 consumer, $2 line, $3 number, $4 its number in the log.
pub(super) const NEXT: &str = "
update {schema}.key_sequences
set high = $3, seen = greatest(seen, $4), changed_at = clock_timestamp()
where consumer = $1
  and line = $2
  and high = $3 - 1
  and not reused
returning
  pg_current_xact_id()::xid::text,
  pg_backend_pid(),
  (select backend_start from pg_stat_get_activity(pg_backend_pid()))";

/// Locks the numbers of a key. By primary key. $1 consumer, $2 line.
pub(super) const LOCK: &str = "
select high, gaps::text, closed, seen, reused
from {schema}.key_sequences
where consumer = $1
  and line = $2
for no key update";

/// Writes the numbers of a key that this transaction has locked. By primary key.
/// $1 consumer, $2 line, $3 high, $4 gaps, $5 closed, $6 seen, $7 reused.
pub(super) const SET: &str = "
update {schema}.key_sequences
set
  high = $3,
  gaps = $4::text::int8multirange,
  closed = $5,
  seen = $6,
  reused = $7,
  changed_at = clock_timestamp()
where consumer = $1
  and line = $2
returning
  pg_current_xact_id()::xid::text,
  pg_backend_pid(),
  (select backend_start from pg_stat_get_activity(pg_backend_pid()))";

/// Writes the first numbers of a key, unless they are there. Waits for whoever is inserting the same. As above, and $8 topic, $9 key.
pub(super) const FIRST: &str = "
insert into {schema}.key_sequences (consumer, line, high, gaps, closed, seen, reused, topic, key)
values ($1, $2, $3, $4::text::int8multirange, $5, $6, $7, $8, $9)
on conflict do nothing
returning
  pg_current_xact_id()::xid::text,
  pg_backend_pid(),
  (select backend_start from pg_stat_get_activity(pg_backend_pid()))";

/// As for a mark: whether the row is of this very transaction. By primary key. $1 consumer, $2 line.
pub(super) const PROOF: &str = "
select xmin = pg_current_xact_id()::xid, set_config('statement_timeout', '0', true)
from {schema}.key_sequences
where consumer = $1
  and line = $2";

/// As for a mark: whether a transaction that is over has left it behind. By primary key. $1 consumer, $2 line, $3 its xid.
pub(super) const LEFT_BEHIND: &str = "
select xmin = $3::text::xid
from {schema}.key_sequences
where consumer = $1
  and line = $2";

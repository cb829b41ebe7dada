//! Marks and lines of a batch: each statement is for all of its messages. What two batches could wait for in a circle is
//! taken in one order.

/// Inserts marks in the order in which they are given, but for those that are there. One index entry each; waits for whoever is
/// inserting one of them. $1 consumer, $2 marks, $3 their digests.
pub(super) const MARKS: &str = "
insert into {schema}.processed_messages (slot, consumer, message_id, outcome, digest)
select {schema}.mark_slot(m.id), $1, m.id, 0, m.digest
from unnest($2::uuid[], $3::bytea[]) with ordinality as m (id, digest, place)
order by m.place
on conflict do nothing
returning
  message_id,
  slot,
  pg_current_xact_id()::xid::text,
  pg_backend_pid(),
  clock_timestamp()";

/// The digests beside marks. By primary key, one by one: the limit keeps the planner from reading the whole ring.
/// $1 consumer, $2 marks.
pub(super) const DIGESTS: &str = "
select m.id, p.digest
from unnest($2::uuid[]) as m (id)
cross join lateral (
  select digest
  from {schema}.processed_messages
  where slot = {schema}.mark_slot(m.id)
    and consumer = $1
    and message_id = m.id
  limit 1) p";

/// Which lines are held. By primary key; locks nothing. $1 consumer, $2 lines.
pub(super) const HELD_LINES: &str = "
select line
from {schema}.held_keys
where consumer = $1
  and line = any ($2)";

/// How many of the marks are there and of this very transaction; else as for one mark. By primary key, one by one.
/// $1 consumer, $2 slots, $3 marks.
pub(super) const PROOFS: &str = "
select count(*), set_config('statement_timeout', '0', true)
from unnest($2::smallint[], $3::uuid[]) as m (slot, id)
cross join lateral (
  select xmin
  from {schema}.processed_messages
  where slot = m.slot
    and consumer = $1
    and message_id = m.id
  limit 1) p
where p.xmin = pg_current_xact_id()::xid";

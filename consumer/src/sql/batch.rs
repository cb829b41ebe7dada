//! Marks and lines of a batch: each statement is for all of its messages. What two batches could wait for in a circle is
//! taken in one order.

/// Inserts marks in the order in which they are given, but for those that are there, and gives one row: which it has inserted, and by which
/// transaction, if any. One index entry each; waits for whoever is inserting one of them. $1 consumer, $2 slots, $3 marks, $4 their digests.
pub(super) const MARKS: &str = "
with inserted as (
  insert into {schema}.processed_messages (slot, consumer, message_id, outcome, digest)
  select m.slot, $1, m.id, 0, m.digest
  from unnest($2::smallint[], $3::uuid[], $4::bytea[]) with ordinality as m (slot, id, digest, place)
  order by m.place
  on conflict do nothing
  returning message_id)
select
  coalesce(array_agg(message_id), '{}'),
  case when count(*) > 0 then pg_current_xact_id()::xid::text end,
  pg_backend_pid(),
  clock_timestamp()
from inserted";

/// The digests beside marks. By primary key, one by one: the limit keeps the planner from reading the whole ring.
/// $1 consumer, $2 slots, $3 marks.
pub(super) const DIGESTS: &str = "
select m.id, p.digest
from unnest($2::smallint[], $3::uuid[]) as m (slot, id)
cross join lateral (
  select digest
  from {schema}.processed_messages
  where slot = m.slot
    and consumer = $1
    and message_id = m.id
  limit 1) p";

/// Which lines are held. Where few are, all of them are looked through once, else by primary key; locks nothing. A join, since a plan for
/// any array compares each row with each of its elements. $1 consumer, $2 lines.
pub(super) const HELD_LINES: &str = "
select h.line
from unnest($2::uuid[]) as l (line)
join {schema}.held_keys h on h.consumer = $1 and h.line = l.line";

//! Starts of handlers. They need not survive a crash of the server, only one of the consumer: their transactions do not wait for the disk.

/// Begins a transaction that also ends on the server, without `$`s: in one round trip with the two below. Milliseconds.
pub(super) const BEGIN: &str = "
begin isolation level read committed read write;
set local statement_timeout = {statement};
set local lock_timeout = {lock};
set local synchronous_commit = off;";

/// Says that handlers start, beside others. Gives those that it is said of; the others have a start without an end of another life, or
/// were handled alone because of one. By primary key.
pub(super) const START: &str = "
insert into {schema}.starts as s (consumer, message_id, member)
select '{consumer}', m.id, '{member}'
from unnest('{{marks}}'::uuid[]) as m (id)
order by m.id
on conflict (consumer, message_id) do update
set started_at = clock_timestamp()
where s.member = excluded.member
  and not s.alone
returning message_id;";

/// The starts without an end of another life, and those of messages that were handled alone: one of our own has not killed us. By
/// primary key. $1 consumer, $2 marks, $3 member.
pub(super) const UNFINISHED: &str = "
select message_id, alone and member <> $3, crashes
from {schema}.starts
where consumer = $1
  and message_id = any ($2)
  and (alone or member <> $3)";

/// Takes over the start of another life, to handle the message alone. By primary key. $1 consumer, $2 mark, $3 member, $4 crashes.
pub(super) const START_ALONE: &str = "
update {schema}.starts
set member = $3, alone = true, crashes = $4, started_at = clock_timestamp()
where consumer = $1
  and message_id = $2";

/// Says that handlers have ended that this member started. One that was handled alone and has failed is nobody's from then on: its
/// next attempt may kill its process yet, so it is handled alone again, and its crashes stay known. By primary key; what is locked is
/// passed over: a commit whose answer was lost is taking it away.
pub(super) const END: &str = "
with ended as materialized (
  select s.message_id, s.alone
  from {schema}.starts s
  where s.consumer = '{consumer}'
    and s.message_id = any ('{{marks}}'::uuid[])
    and s.member = '{member}'
  for update skip locked
),
kept as (
  update {schema}.starts s
  set member = '00000000-0000-0000-0000-000000000000', alone = false
  from ended
  where s.consumer = '{consumer}'
    and s.message_id = ended.message_id
    and ended.alone
)
delete from {schema}.starts s
using ended
where s.consumer = '{consumer}'
  and s.message_id = ended.message_id
  and not ended.alone;";

/// Forgets the starts of messages whose marks this transaction holds. By primary key. $1 consumer, $2 marks.
pub(super) const FORGET_START: &str = "
delete from {schema}.starts
where consumer = $1
  and message_id = any ($2)";

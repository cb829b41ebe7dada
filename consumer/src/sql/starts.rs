//! Starts of handlers. They need not survive a crash of the server: only one of the consumer.

/// Says that a handler starts. Gives no row if the start of another life is there. By primary key.
/// $1 consumer, $2 mark, $3 member.
pub(super) const START: &str = "
with fast as materialized (select set_config('synchronous_commit', 'off', true))
insert into {schema}.starts as s (consumer, message_id, member)
select $1, $2, $3
from fast
on conflict (consumer, message_id) do update
set started_at = clock_timestamp()
where s.member = $3
returning true";

/// Takes over the start of another life. One that was alone is a crash of this message and of no other; $4: any is.
/// By primary key. $1 consumer, $2 mark, $3 member.
pub(super) const START_ALONE: &str = "
with fast as materialized (select set_config('synchronous_commit', 'off', true))
update {schema}.starts s
set
  member = $3,
  crashes = crashes + case when s.alone or $4 then 1 else 0 end,
  alone = true,
  started_at = clock_timestamp()
from fast
where s.consumer = $1
  and s.message_id = $2
returning s.crashes";

/// Says that it has ended. By primary key. $1 consumer, $2 mark, $3 member.
pub(super) const END: &str = "
delete from {schema}.starts
where consumer = $1
  and message_id = $2
  and member = $3";

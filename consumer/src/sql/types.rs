//! Types that fail. One row for each that is paused.

/// Pauses a type, unless it is. By primary key. $1 consumer, $2 type, $3 error, $4 seconds until one is tried.
pub(super) const PAUSE: &str = "
insert into {schema}.paused_types (consumer, type, error, probe_at)
values ($1, $2, $3, clock_timestamp() + make_interval(secs => $4))
on conflict do nothing";

/// The types that are paused. By primary key. $1 consumer.
pub(super) const PAUSED: &str = "
select type, probe_at <= clock_timestamp()
from {schema}.paused_types
where consumer = $1";

/// Whether a type is paused. By primary key. $1 consumer, $2 type.
pub(super) const IS_PAUSED: &str = "
select exists (select from {schema}.paused_types where consumer = $1 and type = $2)";

/// As before, and keeps it as it is until this transaction ends: who resumes the type waits for that, and then sees what was
/// deferred. By primary key. $1 consumer, $2 type.
pub(super) const STAYS_PAUSED: &str = "
select true
from {schema}.paused_types
where consumer = $1
  and type = $2
for share";

/// Takes the turn to try one message of a type, and gives a line that has one: only one member does. Null if none of the type
/// waits; no row if the turn is not ours. The first of the type by the primary key of `retries`, where most are of that type.
/// $1 consumer, $2 type, $3 seconds until the next turn.
pub(super) const PROBE: &str = "
with turn as (
  update {schema}.paused_types
  set probe_at = clock_timestamp() + make_interval(secs => $3)
  where consumer = $1
    and type = $2
    and probe_at <= clock_timestamp()
  returning type
)
select (
  select r.line
  from {schema}.retries r
  where r.consumer = $1
    and r.type = $2
  order by r.id
  limit 1)
from turn";

/// Makes a line due: its first message, then the line, as whoever works on it locks them. By `retries_line` and primary
/// keys. $1 consumer, $2 line.
pub(super) const PROBE_LINE: &str = "
with head as (
  update {schema}.retries
  set due_at = clock_timestamp()
  where id = (
    select f.id
    from {schema}.retries f
    where f.consumer = $1
      and f.line = $2
    order by f.id
    limit 1)
  returning line
)
update {schema}.held_keys
set due_at = clock_timestamp()
where consumer = $1
  and line in (select line from head)";

/// By primary key. $1 consumer, $2 type.
pub(super) const RESUME: &str = "
delete from {schema}.paused_types
where consumer = $1
  and type = $2";

/// What waited for a type is due. Scans the consumer's retries, once for each end of a pause. $1 consumer, $2 type.
pub(super) const MAKE_DUE: &str = "
with due as (
  update {schema}.retries
  set due_at = clock_timestamp()
  where consumer = $1
    and type = $2
    and due_at > clock_timestamp()
  returning line
)
update {schema}.held_keys
set due_at = clock_timestamp()
where consumer = $1
  and line in (select line from due)";

/// How many wait, up to a limit. By `retries_line`. $1 consumer, $2 limit.
pub(super) const COUNT: &str = "
select count(*)
from (select from {schema}.retries where consumer = $1 limit $2) r";

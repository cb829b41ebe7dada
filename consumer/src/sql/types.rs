//! Types that fail, one row for each that is paused. Who defers a message because of that holds the row by the weakest of
//! locks: it is in nobody's way but of whoever forgets the row, so no wait for a type outlives its pause.

/// Pauses a type, unless it is. By primary key. $1 consumer, $2 type, $3 error, $4 seconds until one is tried.
pub(super) const PAUSE: &str = "
insert into {schema}.paused_types as p (consumer, type, error, probe_at)
values ($1, $2, $3, clock_timestamp() + make_interval(secs => $4))
on conflict (consumer, type) do update
set
  error = excluded.error,
  paused_at = clock_timestamp(),
  probe_at = excluded.probe_at,
  resumed_at = null
where p.resumed_at is not null";

/// The types that are paused, and those that are handled again but whose messages are not all due yet; whether it is time to try
/// one, first of the one that has waited longest for it. By primary key. $1 consumer.
pub(super) const PAUSED: &str = "
select type, resumed_at is not null, probe_at <= clock_timestamp()
from {schema}.paused_types
where consumer = $1
order by probe_at";

/// Whether a type is paused, which nobody forgets before this transaction ends. By primary key. $1 consumer, $2 type.
pub(super) const STAYS_PAUSED: &str = "
select true
from {schema}.paused_types
where consumer = $1
  and type = $2
  and resumed_at is null
for key share";

/// Takes the turn to try one message of a type, and a line whose first one it is, soonest due first. One member has the turn, and
/// the line to itself for a while. No row: the turn is somebody else's; null: no line waits for the type, and the turn stays
/// open; else until when the turn is ours, which tells it from others. By primary key and `held_keys_waits_for`; what is locked is passed over.
/// $1 consumer, $2 type, $3 seconds until the next turn should nobody say that this one goes on, $4 seconds of the lease.
pub(super) const PROBE: &str = "
with turn as materialized (
  select type
  from {schema}.paused_types
  where consumer = $1
    and type = $2
    and resumed_at is null
    and probe_at <= clock_timestamp()
  for no key update skip locked
),
first as materialized (
  select h.line
  from {schema}.held_keys h
  where h.consumer = $1
    and h.waits_for = $2
    and exists (select from turn)
  order by h.due_at
  limit 1
  for no key update skip locked
),
leased as (
  update {schema}.held_keys h
  set
    due_at = clock_timestamp() + make_interval(secs => $4),
    waits_for = null
  from first
  where h.consumer = $1
    and h.line = first.line
  returning h.line
),
moved as (
  update {schema}.paused_types
  set probe_at = clock_timestamp() + make_interval(secs => $3)
  where consumer = $1
    and type = $2
    and exists (select from leased)
  returning probe_at
)
select (select line from leased), (select probe_at from moved)
from turn";

/// Says when the next turn is: of one that goes on, and of one that has ended without resuming its type. No row: it was no longer ours.
/// By primary key. $1 consumer, $2 type, $3 until when it was ours, $4 seconds until the next one.
pub(super) const MOVE_TURN: &str = "
update {schema}.paused_types
set probe_at = clock_timestamp() + make_interval(secs => $4)
where consumer = $1
  and type = $2
  and probe_at = $3
  and resumed_at is null
returning probe_at";

/// Says that a type is handled again. By primary key; in nobody's way. $1 consumer, $2 type.
pub(super) const RESUME: &str = "
update {schema}.paused_types
set resumed_at = clock_timestamp()
where consumer = $1
  and type = $2
  and resumed_at is null";

/// Makes lines due whose first message waits for a type, and no other, if that is handled again still: as many as may be due at a time
/// less those that are, or soon will be, but always a few. What waits for other types would come behind all of them. By
/// `held_keys_due` and `held_keys_waits_for`; what is locked is passed over.
/// $1 consumer, $2 type, $3 how many may be due, $4 how many are a few, $5 how many seconds away is soon.
pub(super) const MAKE_DUE: &str = "
with due as materialized (
  select count(*) as lines
  from (
    select
    from {schema}.held_keys
    where consumer = $1
      and due_at <= (select clock_timestamp()) + make_interval(secs => $5)
    limit $3) d
),
next as materialized (
  select h.line
  from {schema}.held_keys h
  where h.consumer = $1
    and h.waits_for = $2
    and exists (
      select
      from {schema}.paused_types
      where consumer = $1
        and type = $2
        and resumed_at is not null)
  order by h.due_at
  limit (select greatest($3 - lines, $4) from due)
  for no key update skip locked
)
update {schema}.held_keys h
set due_at = clock_timestamp(), waits_for = null
from next
where h.consumer = $1
  and h.line = next.line";

/// Locks a type that is handled again, unless somebody defers a message who saw it paused. By primary key.
/// $1 consumer, $2 type.
pub(super) const LOCK_RESUMED: &str = "
select true
from {schema}.paused_types
where consumer = $1
  and type = $2
  and resumed_at is not null
for update skip locked";

/// Forgets a type that this transaction has locked, if nothing waits for it. By primary key and `held_keys_waits_for`.
/// $1 consumer, $2 type.
pub(super) const FORGET: &str = "
delete from {schema}.paused_types
where consumer = $1
  and type = $2
  and not exists (
    select
    from {schema}.held_keys
    where consumer = $1
      and waits_for = $2)";

/// How many messages wait, up to a limit. By `retries_line`. $1 consumer, $2 limit.
pub(super) const COUNT: &str = "
select count(*)
from (select from {schema}.retries where consumer = $1 limit $2) r";

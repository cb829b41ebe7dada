//! Held keys and the messages that wait. Who adds to a line, or takes away from it, locks its row in `held_keys`, and only
//! then looks or writes, in a new statement: so a look sees whatever the lock has waited for.

/// Whether a line is held. By primary key; keeps it as it is until this transaction ends. $1 consumer, $2 line.
pub(super) const IS_HELD: &str = "select {schema}.is_held($1, $2)";

/// Holds a line, or locks it if it is held: `do nothing` would take no lock, and a row added behind it could be
/// stranded. $1 consumer, $2 line, $3 topic, $4 key, $5 seconds until it is due, $6 the paused type that it waits for.
pub(crate) const HOLD: &str = "
insert into {schema}.held_keys (consumer, line, topic, key, due_at, waits_for)
values ($1, $2, $3, $4, clock_timestamp() + make_interval(secs => $5), $6)
on conflict (consumer, line) do update
set line = excluded.line";

/// Puts a message at the end of its line, which this transaction has locked.
pub(crate) const ADD: &str = "
insert into {schema}.retries (
  consumer, line, message_id, mark_slot, digest, original_id, topic, key, type, headers, payload, source, created_at,
  origin, attempts, forgiven, history, error, due_at, dead_letter)
values (
  $1, $2, $3, $20, $4, $5, $6, $7, $8, $9, $10, $11, $12,
  $13, $14, $15, $16, $17, clock_timestamp() + make_interval(secs => $18), $19)";

/// Takes due lines for a while, so that no other member takes them too, and tells the types of their first messages: null for a
/// line that has none. Due lines by `held_keys_due`, up to the time that is asked for once, so that those that are not due cost
/// nothing; the first of each by `retries_line`; what is locked is passed over.
/// $1 consumer, $2 how many, $3 seconds of the lease.
pub(super) const DUE: &str = "
with due as materialized (
  select h.line
  from {schema}.held_keys h
  where h.consumer = $1
    and h.due_at <= (select clock_timestamp())
  order by h.due_at
  limit $2
  for no key update skip locked
)
update {schema}.held_keys h
set
  due_at = clock_timestamp() + make_interval(secs => $3),
  waits_for = null
from due
where h.consumer = $1
  and h.line = due.line
returning
  h.line,
  (
    select r.type
    from {schema}.retries r
    where r.consumer = h.consumer
      and r.line = h.line
    order by r.id
    limit 1)";

/// The database's time, and seconds until the next line is due: not above zero for one that is due and was not taken, since there was no
/// room for it or somebody else has it locked. By `held_keys_due`. $1 consumer.
pub(super) const NEXT_DUE: &str = "
select
  clock_timestamp(),
  (
    select extract(epoch from due_at - clock_timestamp())::float8
    from {schema}.held_keys
    where consumer = $1
    order by due_at
    limit 1
  )";

/// Claims the first message of a line, if it is due and nobody works on it: never a later one. By `retries_line`.
/// $1 consumer, $2 line.
pub(super) const CLAIM: &str = "
select
  id, message_id, digest, original_id, topic, key, type, headers, payload, source, created_at, origin,
  attempts, forgiven, history, dead_letter
from {schema}.retries
where id = (
    select f.id
    from {schema}.retries f
    where f.consumer = $1
      and f.line = $2
    order by f.id
    limit 1)
  and due_at <= clock_timestamp()
for update skip locked";

/// Claims a message again after its transaction was rolled back. By primary key. $1 id, $2 attempts then.
pub(super) const LOCK: &str = "
select true
from {schema}.retries
where id = $1
  and attempts = $2
for no key update skip locked";

/// Takes a message out. By primary key. $1 id.
pub(super) const REMOVE: &str = "
delete from {schema}.retries
where id = $1";

/// Locks a line against those who join it. By primary key. $1 consumer, $2 line.
pub(super) const LOCK_LINE: &str = "
select true
from {schema}.held_keys
where consumer = $1
  and line = $2
for update";

/// Seconds until the first of a line is due, and its type. By `retries_line`. $1 consumer, $2 line.
pub(super) const HEAD: &str = "
select extract(epoch from due_at - clock_timestamp())::float8, type
from {schema}.retries
where consumer = $1
  and line = $2
order by id
limit 1";

/// By primary key. $1 consumer, $2 line, $3 seconds until it is due, $4 the paused type that it waits for.
pub(super) const MOVE_LINE: &str = "
update {schema}.held_keys
set due_at = clock_timestamp() + make_interval(secs => $3), waits_for = $4
where consumer = $1
  and line = $2";

/// Moves the end of the lease of a line that was taken, and of no other: one that is due later waits for its own time. By primary key.
/// $1 consumer, $2 line, $3 seconds until it ends, $4 seconds of a lease.
pub(super) const LEASE_LINE: &str = "
update {schema}.held_keys
set due_at = clock_timestamp() + make_interval(secs => $3)
where consumer = $1
  and line = $2
  and waits_for is null
  and due_at <= clock_timestamp() + make_interval(secs => $4)";

/// By primary key. $1 consumer, $2 line.
pub(super) const END_LINE: &str = "
delete from {schema}.held_keys
where consumer = $1
  and line = $2";

/// By primary key. $1 id, $2 seconds until it is due, $3 attempts, $4 history, $5 error.
pub(super) const PUT_OFF: &str = "
update {schema}.retries
set
  due_at = clock_timestamp() + make_interval(secs => $2),
  attempts = $3,
  history = $4,
  error = $5
where id = $1";

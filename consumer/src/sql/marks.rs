//! Marks and dead letters.

/// Inserts the mark, unless it is there, and then looks whether its line is held, which sees what was committed while it waited. One index
/// entry; waits for whoever is inserting the same one, and locks a line that is held until the transaction ends, by primary key.
/// $1 consumer, $2 mark, $3 outcome, $4 digest, $5 the line, or null for none, $6 slot.
pub(super) const MARK: &str = "
insert into {schema}.processed_messages (slot, consumer, message_id, outcome, digest)
values ($6, $1, $2, $3, $4)
on conflict do nothing
returning
  pg_current_xact_id()::xid::text,
  pg_backend_pid(),
  clock_timestamp(),
  $5 is not null and {schema}.is_held($1, $5)";

/// The digest beside a mark. By primary key. $1 consumer, $2 mark, $3 slot.
pub(super) const DIGEST: &str = "
select digest
from {schema}.processed_messages
where slot = $3
  and consumer = $1
  and message_id = $2";

/// Takes up the mark of a deferred message, which only one can. Gives no row if somebody else has finished it. A mark that
/// somebody deleted is inserted again: the message itself is at hand. By primary key; waits for whoever changes the same one.
/// $1 consumer, $2 mark, $3 outcome, $4 digest, $5 slot.
pub(super) const TAKE_UP: &str = "
insert into {schema}.processed_messages as m (slot, consumer, message_id, outcome, digest)
values ($5, $1, $2, $3, $4)
on conflict (slot, consumer, message_id) do update
set outcome = excluded.outcome, settled_at = clock_timestamp()
where m.outcome = 1
returning
  pg_current_xact_id()::xid::text,
  pg_backend_pid(),
  clock_timestamp()";

/// Gives this transaction's own mark another outcome. By primary key. $1 slot, $2 consumer, $3 mark, $4 outcome.
pub(super) const CHANGE: &str = "
update {schema}.processed_messages
set outcome = $4
where slot = $1
  and consumer = $2
  and message_id = $3";

/// Whether this transaction is the one that wrote the mark, which it did before the handler had it and outside of any savepoint. Looks at no
/// table: a plan made while a slot was empty would scan it for as long as nobody renews its statistics. $1 the mark's xid.
pub(super) const PROOF: &str = "
select coalesce(pg_current_xact_id_if_assigned()::xid::text = $1, false)";

/// Whether a transaction that is over has left its mark behind. By primary key. $1 slot, $2 consumer, $3 mark, $4 its xid.
pub(super) const LEFT_BEHIND: &str = "
select xmin = $4::text::xid
from {schema}.processed_messages
where slot = $1
  and consumer = $2
  and message_id = $3";

/// Takes over the mark that a handler committed by itself. By primary key. $1 consumer, $2 mark, $3 its xid, $4 outcome, $5 slot.
pub(super) const TAKE_OVER: &str = "
update {schema}.processed_messages
set outcome = $4, settled_at = clock_timestamp()
where slot = $5
  and consumer = $1
  and message_id = $2
  and xmin = $3::text::xid";

/// Writes a dead letter.
pub(super) const LETTER: &str = "
insert into {schema}.dead_letters (
  consumer, message_id, original_id, topic, key, type, headers, payload, source, created_at,
  origin, reason, error, history, attempts, first_failed_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)";

/// A dead letter that was replayed is dead again, as it was replayed. By primary key. $1 its id, $2 consumer.
pub(super) const LETTER_AGAIN: &str = "
update {schema}.dead_letters
set
  state = 'dead',
  reason = $3,
  error = $4,
  history = $5,
  attempts = $6,
  dead_at = clock_timestamp(),
  changed_at = clock_timestamp()
where id = $1
  and consumer = $2
  and state = 'replayed'";

/// Enqueues a dead letter. $1 topic, $2 payload, $3 key, $4 type, $5 headers, $6 content type.
pub(crate) const ENQUEUE: &str = "
select {schema}.enqueue(
  topic => $1, payload => $2, key => $3, type => $4, headers => $5, content_type => $6)";

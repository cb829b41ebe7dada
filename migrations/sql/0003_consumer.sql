-- What consumers settle, and what they give up on.

-- Domains and not constraints of the tables, as for what the log takes: a mark is written for each message.
create domain {{schema}}.consumer_name as text check (octet_length(value) <@ int4range(1, 64));
create domain {{schema}}.mark_outcome as smallint check (value in (0, 1, 2, 3, 4));

-- Which consumers there are: no index on marks tells it.
create table {{schema}}.consumers (
  consumer {{schema}}.consumer_name not null,
  started_at timestamptz not null default clock_timestamp(),
  constraint consumers_pkey primary key (consumer)
);
comment on table {{schema}}.consumers is 'The consumers that have ever run on this database.';
comment on column {{schema}}.consumers.started_at is 'When a member of it started last.';

-- Whoever inserts the mark decides. The slot comes from the mark's own uuid, so that the primary key is unique over the whole ring. In the
-- key what has one width comes first: comparing it costs a third, and seldom comes to the consumer's name.
create table {{schema}}.processed_messages (
  message_id uuid not null,
  settled_at timestamptz not null default clock_timestamp(),
  slot smallint not null,
  outcome {{schema}}.mark_outcome not null,
  consumer {{schema}}.consumer_name not null,
  digest bytea,
  constraint processed_messages_pkey primary key (slot, message_id, consumer)
) partition by list (slot);
comment on table {{schema}}.processed_messages is 'The marks: one row for each message that a consumer has settled.';
comment on column {{schema}}.processed_messages.message_id is 'The mark''s key: the message''s own uuid, or one made from its source and id.';
comment on column {{schema}}.processed_messages.outcome is '0 handled, 1 deferred, 2 dead, 3 expired, 4 ignored.';
comment on column {{schema}}.processed_messages.digest is 'Of type and payload: the same id with another digest is another message.';

-- The newest mark of a slot, and marks to be deleted by age.
create index processed_messages_settled_at on {{schema}}.processed_messages (settled_at);

do $partitions$
begin
  for slot in 0..11 loop
    execute format(
      'create table {{schema}}.processed_messages_%s partition of {{schema}}.processed_messages for values in (%s)', slot, slot);
  end loop;
end
$partitions$;

-- A uuid of version 7 carries its time: its day in the ring of 12. Any other is spread by its last four bytes;
-- no hash function of the server, since a mark must have the same slot after an upgrade.
-- Parsed here and not at each call, so that no search path plays a part, and so that the planner puts it into the statement: called,
-- it costs more than the rest of a mark.
create function {{schema}}.mark_slot(message_id uuid) returns smallint
language sql immutable parallel safe
return (
  case
    when substr(message_id::text, 15, 1) = '7' and substr(message_id::text, 20, 1) in ('8', '9', 'a', 'b')
    then ('x' || replace(left(message_id::text, 13), '-', ''))::bit(48)::bigint / 86400000 % 12
    else ('x' || right(message_id::text, 8))::bit(32)::bigint % 12
  end
)::smallint;
comment on function {{schema}}.mark_slot is 'The slot of a mark in processed_messages.';

create table {{schema}}.dead_letters (
  id bigint generated always as identity primary key,
  consumer {{schema}}.consumer_name not null,
  message_id uuid not null,
  original_id text,
  topic text not null,
  key text,
  type text,
  headers jsonb not null default '{}',
  payload bytea not null,
  source text,
  created_at timestamptz,
  origin jsonb not null default '{}',
  reason text not null,
  error text not null default '',
  history jsonb not null default '[]',
  attempts integer not null default 0,
  first_failed_at timestamptz,
  dead_at timestamptz not null default clock_timestamp(),
  state text not null default 'dead',
  replays integer not null default 0,
  changed_at timestamptz not null default clock_timestamp(),
  constraint dead_letters_reason check (reason ~ '^[a-z][a-z_]*$'),
  constraint dead_letters_state check (state in ('dead', 'replayed', 'discarded')),
  constraint dead_letters_headers check (jsonb_typeof(headers) = 'object'),
  constraint dead_letters_origin check (jsonb_typeof(origin) = 'object'),
  constraint dead_letters_history check (jsonb_typeof(history) = 'array')
);
comment on table {{schema}}.dead_letters is 'Deliveries that a consumer has given up on, written with their mark in one transaction.';
comment on column {{schema}}.dead_letters.message_id is 'The key of the mark in processed_messages.';
comment on column {{schema}}.dead_letters.original_id is 'The id as it came on the wire; null if it came without.';
comment on column {{schema}}.dead_letters.created_at is 'When the message was written, if it says so.';
comment on column {{schema}}.dead_letters.origin is 'Where it was delivered: broker, route, partition, position and what else the adapter knows.';
comment on column {{schema}}.dead_letters.reason is 'A code such as rejected, attempts, undecodable, no_handler or id_conflict.';
comment on column {{schema}}.dead_letters.history is 'The attempts: an array of objects.';

-- A consumer's letters, newest last.
create index dead_letters_consumer on {{schema}}.dead_letters (consumer, id);
-- The letters of one message.
create index dead_letters_message on {{schema}}.dead_letters (message_id, consumer);

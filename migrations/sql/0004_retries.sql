-- Messages of a consumer that wait for another attempt, and what keeps their keys in order meanwhile.

-- There is a row for as long as `retries` has a message of that line. Whoever adds one to a line, or takes one away, locks this row.
create table {{schema}}.held_keys (
  consumer {{schema}}.consumer_name not null,
  line uuid not null,
  topic text not null,
  key text,
  due_at timestamptz not null,
  constraint held_keys_pkey primary key (consumer, line)
);
comment on table {{schema}}.held_keys is 'Keys whose first message waits for another attempt: later ones line up behind it in retries.';
comment on column {{schema}}.held_keys.line is 'A uuid made from topic and key, of any length; for a message without a key that of its mark, so that nobody lines up behind it.';
comment on column {{schema}}.held_keys.due_at is 'When the first of the line is due.';

-- What is due, for each consumer.
create index held_keys_due on {{schema}}.held_keys (consumer, due_at);

-- Whether a line is held, which then stays as it is until the transaction ends. Called within the statement that writes a mark, it looks
-- when the mark is written, and sees what was committed while that waited: each statement of a volatile function has a snapshot of its own.
create function {{schema}}.is_held(of_consumer text, of_line uuid) returns boolean
language plpgsql volatile
as $function$
begin
  perform
  from {{schema}}.held_keys
  where consumer = of_consumer
    and line = of_line
  -- The lock that joining the line takes as well: two that shared a weaker one would wait for each other.
  for no key update;
  return found;
end
$function$;
comment on function {{schema}}.is_held is 'Internal: whether earlier messages of a key wait.';

create table {{schema}}.retries (
  id bigint generated always as identity primary key,
  consumer {{schema}}.consumer_name not null,
  line uuid not null,
  message_id uuid not null,
  mark_slot smallint not null,
  digest bytea,
  original_id text,
  topic text not null,
  key text,
  type text not null,
  headers jsonb not null default '{}',
  payload bytea not null,
  source text,
  created_at timestamptz,
  origin jsonb not null default '{}',
  attempts integer not null default 0,
  forgiven integer not null default 0,
  history jsonb not null default '[]',
  error text not null default '',
  deferred_at timestamptz not null default clock_timestamp(),
  due_at timestamptz not null,
  dead_letter bigint,
  constraint retries_message unique (consumer, message_id),
  constraint retries_attempts check (attempts >= forgiven and forgiven >= 0),
  constraint retries_headers check (jsonb_typeof(headers) = 'object'),
  constraint retries_origin check (jsonb_typeof(origin) = 'object'),
  constraint retries_history check (jsonb_typeof(history) = 'array')
);
comment on table {{schema}}.retries is 'Messages that wait for another attempt, or behind one of their key. Their marks say deferred.';
comment on column {{schema}}.retries.id is 'The order within a line: whoever adds a row has locked the line in held_keys.';
comment on column {{schema}}.retries.message_id is 'The key of the mark in processed_messages.';
comment on column {{schema}}.retries.mark_slot is 'The slot of the mark, which is not forgotten while this row is there.';
comment on column {{schema}}.retries.forgiven is 'Attempts before the last replay: they count in the number of the attempt, and not against its limit.';
comment on column {{schema}}.retries.dead_letter is 'The dead letter that was replayed.';

-- The first of a line.
create index retries_line on {{schema}}.retries (consumer, line, id);
-- Whether a slot of marks may be emptied.
create index retries_mark_slot on {{schema}}.retries (mark_slot);

alter table {{schema}}.dead_letters
  add column decisions jsonb not null default '[]',
  add constraint dead_letters_decisions check (jsonb_typeof(decisions) = 'array');
comment on column {{schema}}.dead_letters.decisions is 'What was decided about it: an array of objects with at, what and by.';

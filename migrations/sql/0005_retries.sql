-- Messages of a consumer that wait for another attempt, and what keeps their keys in order meanwhile.

-- There is a row for as long as `retries` has a message of that line. Whoever adds one to a line, or takes one away, locks this row.
create table {{schema}}.held_keys (
  consumer text not null,
  line uuid not null,
  topic text not null,
  key text,
  due_at timestamptz not null,
  constraint held_keys_pkey primary key (consumer, line),
  constraint held_keys_consumer check (octet_length(consumer) between 1 and 63)
);
comment on table {{schema}}.held_keys is 'Keys whose first message waits for another attempt: later ones line up behind it in retries.';
comment on column {{schema}}.held_keys.line is 'A uuid made from topic and key, of any length; for a message without a key that of its mark, so that nobody lines up behind it.';
comment on column {{schema}}.held_keys.due_at is 'When the first of the line is due.';

-- What is due, for each consumer.
create index held_keys_due on {{schema}}.held_keys (consumer, due_at);

create table {{schema}}.retries (
  id bigint generated always as identity primary key,
  consumer text not null,
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
  constraint retries_consumer check (octet_length(consumer) between 1 and 63),
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

-- As before, but for when a message expires, and what a replay and a dead letter that is sent on say of themselves.
create or replace function {{schema}}.checked_headers(place text, headers jsonb, content_type text) returns jsonb
language plpgsql immutable
as $function$
declare
  header record;
  content text;
  bytes integer := 0;
  count integer := 0;
begin
  if headers is null then
    headers := '{}';
  elsif jsonb_typeof(headers) <> 'object' then
    perform {{schema}}.refuse(place, 'headers', 'the headers must be an object of names and texts');
  end if;

  for header in select e.key as name, e.value from jsonb_each(headers) e loop
    if header.name = '' then
      perform {{schema}}.refuse(place, 'headers', 'a header has an empty name');
    elsif header.name !~ '^[A-Za-z0-9._-]+$' then
      perform {{schema}}.refuse(place, 'headers', format(
        'the header name %s holds a character that is not allowed; allowed are A-Z a-z 0-9 - _ .', to_json(header.name)));
    elsif header.name !~ '^onceward-(expires-at|replay-of|dead-letter-[a-z]+)$'
      and header.name ~* '^(ce-|ce_|nats-|onceward-|content-type$)'
    then
      perform {{schema}}.refuse(place, 'headers', format(
        'the header name %s is reserved (ce-, ce_, Nats-, onceward- and content-type, in any case)', to_json(header.name)));
    elsif jsonb_typeof(header.value) <> 'string' then
      perform {{schema}}.refuse(place, 'headers', format('the value of header %s must be a text', to_json(header.name)));
    end if;
    content := header.value #>> '{}';
    if content ~ E'[\\u0001-\\u0008\\u000a-\\u001f\\u007f-\\u009f]' then
      perform {{schema}}.refuse(place, 'headers', format('the value of header %s holds a control character', to_json(header.name)));
    end if;
    count := count + 1;
    bytes := bytes + octet_length(header.name) + octet_length(content);
  end loop;

  if count > 64 then
    perform {{schema}}.refuse(place, 'headers', format('%s headers; at most 64 are allowed', count));
  elsif bytes > 16384 then
    perform {{schema}}.refuse(place, 'headers', format('the headers have %s bytes in all; at most 16384 are allowed', bytes));
  end if;

  if content_type is null then
    return headers;
  elsif content_type !~ '^[ -~]{1,255}$' then
    perform {{schema}}.refuse(place, 'content_type', 'the content type must have 1 to 255 printable ASCII characters');
  end if;
  return headers || jsonb_build_object('content-type', content_type);
end
$function$;

-- Grants each role that exists what it needs; run by the owner of the tables, also again at any time.
create or replace function {{schema}}.grant_rights() returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
declare
  present text[] := array(select rolname::text from pg_roles where rolname in
    ('onceward_writer', 'onceward_relay', 'onceward_consumer', 'onceward_admin'));
  member text;
begin
  foreach member in array present loop
    execute format('grant usage on schema {{schema}} to %I', member);
    execute format('grant select on {{schema}}.settings, {{schema}}.migrations to %I', member);
  end loop;

  if 'onceward_relay' = any (present) then
    grant select on {{schema}}.messages to onceward_relay;
    grant select on sequence {{schema}}.messages_seq_seq to onceward_relay;
    grant select, insert, update, delete on {{schema}}.streams, {{schema}}.cursors, {{schema}}.unrouted, {{schema}}.parked
    to onceward_relay;
    -- A right on the parent does not reach its partitions.
    for slot in 0..11 loop
      execute format('grant select, truncate on {{schema}}.messages_%s to onceward_relay', slot);
    end loop;
  end if;

  if 'onceward_consumer' = any (present) then
    grant select, insert, update, delete on {{schema}}.processed_messages, {{schema}}.retries, {{schema}}.held_keys to onceward_consumer;
    grant select, insert, update on {{schema}}.dead_letters to onceward_consumer;
    grant execute on function {{schema}}.mark_slot to onceward_consumer;
    for slot in 0..11 loop
      execute format('grant select, delete, truncate on {{schema}}.processed_messages_%s to onceward_consumer', slot);
    end loop;
  end if;

  if 'onceward_admin' = any (present) then
    grant select on
      {{schema}}.messages, {{schema}}.streams, {{schema}}.cursors, {{schema}}.unrouted, {{schema}}.parked,
      {{schema}}.processed_messages, {{schema}}.dead_letters, {{schema}}.retries, {{schema}}.held_keys
    to onceward_admin;
    grant select on sequence {{schema}}.messages_seq_seq to onceward_admin;
    grant delete on {{schema}}.streams, {{schema}}.cursors, {{schema}}.unrouted to onceward_admin;
    grant update, delete on {{schema}}.parked, {{schema}}.dead_letters to onceward_admin;
    -- To replay a dead letter: it moves into the retries, and its mark says so.
    grant insert, update on {{schema}}.processed_messages, {{schema}}.held_keys to onceward_admin;
    grant insert on {{schema}}.retries to onceward_admin;
    grant execute on function {{schema}}.mark_slot to onceward_admin;
    for slot in 0..11 loop
      execute format('grant select on {{schema}}.messages_%s, {{schema}}.processed_messages_%s to onceward_admin', slot, slot);
    end loop;
  end if;

  -- Who replays a dead letter as a new message writes to the log as a service does.
  foreach member in array array['onceward_writer', 'onceward_admin'] loop
    if member = any (present) then
      -- By column: a right on the whole table would let a writer forge seq, txid and slot.
      execute format('grant insert (lane, id, topic, key, type, headers, payload) on {{schema}}.messages to %I', member);
      execute format('grant execute on function
        {{schema}}.enqueue, {{schema}}.enqueue_json, {{schema}}.enqueue_many, {{schema}}.append, {{schema}}.refuse,
        {{schema}}.uuid_v7, {{schema}}.lane_number, {{schema}}.check_names, {{schema}}.checked_headers,
        {{schema}}.payload_of, {{schema}}.check_element to %I', member);
    end if;
  end loop;
end
$function$;
comment on function {{schema}}.grant_rights is 'Grants the onceward_ roles their rights in this schema.';

do $grants$
begin
  perform {{schema}}.grant_rights();
end
$grants$;

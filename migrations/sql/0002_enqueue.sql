-- Enqueue from SQL. All functions run with the caller's rights and keep no state, so they work behind a
-- transaction pooler. What they refuse has SQLSTATE OW001; the error's column field names the part that is wrong.
-- The functions that users call pin the search path, and with it that of the internal ones.

create function {{schema}}.refuse(place text, field text, problem text) returns void
language plpgsql immutable
as $function$
begin
  raise exception using errcode = 'OW001', message = place || problem, column = field;
end
$function$;
comment on function {{schema}}.refuse is 'Internal: raises SQLSTATE OW001.';

-- A uuid of version 7: 48 bits of milliseconds, then random bits of a version 4 uuid with its version bits set to 7.
create function {{schema}}.uuid_v7() returns uuid
language plpgsql volatile parallel safe
as $function$
begin
  return encode(
    set_bit(
      set_bit(
        overlay(
          uuid_send(gen_random_uuid())
          placing substring(int8send(floor(extract(epoch from clock_timestamp()) * 1000)::bigint) from 3)
          from 1 for 6
        ),
        52, 1
      ),
      53, 1
    ),
    'hex'
  )::uuid;
end
$function$;
comment on function {{schema}}.uuid_v7 is 'A new message id.';

create function {{schema}}.lane_number(place text, lane text) returns smallint
language plpgsql immutable
as $function$
begin
  case coalesce(lane, 'standard')
    when 'critical' then return 0;
    when 'standard' then return 1;
    when 'bulk' then return 2;
    else perform {{schema}}.refuse(place, 'lane', format('unknown lane %s: allowed are critical, standard and bulk', to_json(lane)));
  end case;
  return null;
end
$function$;
comment on function {{schema}}.lane_number is 'Internal: the stored number of a lane.';

create function {{schema}}.check_names(place text, topic text, key text, type text) returns void
language plpgsql immutable
as $function$
begin
  if topic is null or topic = '' then
    perform {{schema}}.refuse(place, 'topic', 'the topic is empty; give it 1 to 249 characters');
  elsif octet_length(topic) > 249 then
    perform {{schema}}.refuse(place, 'topic', format('the topic has %s bytes; at most 249 are allowed', octet_length(topic)));
  elsif topic !~ '^[A-Za-z0-9._-]+$' then
    perform {{schema}}.refuse(place, 'topic', format('the topic %s holds a character that is not allowed; allowed are A-Z a-z 0-9 . _ -', to_json(topic)));
  elsif topic !~ '^[^.]+([.][^.]+)*$' then
    perform {{schema}}.refuse(place, 'topic', format('the topic %s has an empty part between its dots', to_json(topic)));
  end if;

  -- Keys are not shown: they may be personal data.
  if key = '' then
    perform {{schema}}.refuse(place, 'key', 'the key is empty; leave it out for a message without order');
  elsif octet_length(key) > 1024 then
    perform {{schema}}.refuse(place, 'key', format('the key has %s bytes; at most 1024 are allowed', octet_length(key)));
  elsif key ~ E'[\\u0001-\\u001f\\u007f-\\u009f]' then
    perform {{schema}}.refuse(place, 'key', 'the key holds a control character');
  end if;

  if type = '' then
    perform {{schema}}.refuse(place, 'type', 'the type is empty; leave it out to use the topic');
  elsif octet_length(type) > 255 then
    perform {{schema}}.refuse(place, 'type', format('the type has %s bytes; at most 255 are allowed', octet_length(type)));
  elsif type ~ E'[\\u0001-\\u001f\\u007f-\\u009f]' then
    perform {{schema}}.refuse(place, 'type', format('the type %s holds a control character', to_json(type)));
  end if;
end
$function$;
comment on function {{schema}}.check_names is 'Internal: refuses what a broker would.';

-- Of the reserved names those are taken that say when a message expires, its producer's number of it, and what a replay and a dead letter that is sent on are.
create function {{schema}}.checked_headers(place text, headers jsonb, content_type text) returns jsonb
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
    elsif header.name !~ '^onceward-(expires-at|sequence|replay-of|dead-letter-[a-z]+)$'
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
    -- Compared as text: a number that is none must not end in another error.
    if header.name = 'onceward-sequence'
      and (content !~ '^[0-9]{1,19}$' or content ~ '^0+$' or lpad(content, 19, '0') collate "C" > '9223372036854775807')
    then
      perform {{schema}}.refuse(place, 'headers', 'the sequence must be a whole number from 1 to 9223372036854775807');
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
comment on function {{schema}}.checked_headers is 'Internal: the headers as they are stored.';

-- Appends one message. Neither returning nor on conflict: the writer may not read the log.
create function {{schema}}.append(
  place text, topic text, payload bytea, key text, type text, headers jsonb, content_type text, lane text, id uuid
) returns uuid
language plpgsql volatile
as $function$
declare
  cap integer;
begin
  perform {{schema}}.check_names(place, topic, key, type);
  if key is null and jsonb_typeof(headers) = 'object' and headers ? 'onceward-sequence' then
    perform {{schema}}.refuse(place, 'key', 'the message has a sequence and no key; a sequence numbers the messages of one key');
  end if;
  select s.max_payload into cap from {{schema}}.settings s;
  if payload is null then
    perform {{schema}}.refuse(place, 'payload', 'the payload is null; use an empty one for a message without content');
  elsif octet_length(payload) > cap then
    perform {{schema}}.refuse(place, 'payload', format('the payload has %s bytes; at most %s are allowed', octet_length(payload), cap));
  end if;
  id := coalesce(id, {{schema}}.uuid_v7());
  insert into {{schema}}.messages (lane, id, topic, key, type, headers, payload)
  values (
    {{schema}}.lane_number(place, lane), id, topic, key, coalesce(type, topic),
    {{schema}}.checked_headers(place, headers, content_type), payload
  );
  return id;
end
$function$;
comment on function {{schema}}.append is 'Internal: checks and inserts one message.';

create function {{schema}}.enqueue(
  topic text,
  payload bytea,
  key text default null,
  type text default null,
  headers jsonb default '{}',
  content_type text default null,
  lane text default 'standard',
  id uuid default null
) returns uuid
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
begin
  return {{schema}}.append('', topic, payload, key, type, headers, content_type, lane, id);
end
$function$;
comment on function {{schema}}.enqueue is 'Adds a message in the caller''s transaction and returns its id.';

create function {{schema}}.enqueue_json(
  topic text,
  payload json,
  key text default null,
  type text default null,
  headers jsonb default '{}',
  content_type text default null,
  lane text default 'standard',
  id uuid default null
) returns uuid
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
begin
  return {{schema}}.append(
    '', topic, convert_to(payload::text, 'UTF8'), key, type, headers, coalesce(content_type, 'application/json'), lane, id);
end
$function$;
comment on function {{schema}}.enqueue_json is 'Adds a message whose payload is JSON, its bytes kept as written.';

-- The payload of one element of enqueue_many.
create function {{schema}}.payload_of(place text, item jsonb) returns bytea
language plpgsql immutable
as $function$
begin
  if (item ? 'payload') = (item ? 'payload_base64') then
    perform {{schema}}.refuse(place, 'payload', 'give exactly one of payload and payload_base64');
  elsif item ? 'payload' then
    return convert_to((item -> 'payload')::text, 'UTF8');
  end if;
  begin
    return decode(item ->> 'payload_base64', 'base64');
  exception
    when invalid_parameter_value then
      perform {{schema}}.refuse(place, 'payload_base64', 'payload_base64 is no valid base64');
  end;
  return null;
end
$function$;
comment on function {{schema}}.payload_of is 'Internal: the payload of one element of enqueue_many.';

-- Refuses an element of enqueue_many whose shape is wrong: a misspelt name would lose what it holds.
create function {{schema}}.check_element(place text, item jsonb) returns void
language plpgsql immutable
as $function$
declare
  field record;
begin
  if jsonb_typeof(item) <> 'object' then
    perform {{schema}}.refuse(place, 'messages', 'a message must be an object');
  end if;
  for field in select e.key as name, jsonb_typeof(e.value) as kind from jsonb_each(item) e loop
    if field.name not in ('topic', 'payload', 'payload_base64', 'key', 'type', 'headers', 'content_type', 'lane', 'id') then
      perform {{schema}}.refuse(place, 'messages', format(
        'unknown name %s: allowed are topic, payload, payload_base64, key, type, headers, content_type, lane and id',
        to_json(field.name)));
    elsif field.name not in ('payload', 'headers') and field.kind not in ('string', 'null') then
      perform {{schema}}.refuse(place, field.name, format('%s must be a text', field.name));
    end if;
  end loop;
  if item ->> 'id' !~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then
    perform {{schema}}.refuse(place, 'id', 'the id is no uuid');
  end if;
end
$function$;
comment on function {{schema}}.check_element is 'Internal: checks the shape of one element of enqueue_many.';

create function {{schema}}.enqueue_many(messages jsonb) returns setof uuid
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
declare
  element record;
  place text;
  item jsonb;
  doubled text;
begin
  if messages is null or jsonb_typeof(messages) <> 'array' then
    perform {{schema}}.refuse('', 'messages', 'the messages must be an array of objects');
  end if;
  select lower(e.value ->> 'id') into doubled
  from jsonb_array_elements(messages) e
  where jsonb_typeof(e.value) = 'object' and jsonb_typeof(e.value -> 'id') = 'string'
  group by 1
  having count(*) > 1
  limit 1;
  if doubled is not null then
    perform {{schema}}.refuse('', 'id', format('the id %s is given twice; one message must not be two', to_json(doubled)));
  end if;

  for element in select e.value, e.ordinality from jsonb_array_elements(messages) with ordinality e order by e.ordinality loop
    place := format('message %s: ', element.ordinality);
    item := element.value;
    perform {{schema}}.check_element(place, item);
    return next {{schema}}.append(
      place,
      item ->> 'topic',
      {{schema}}.payload_of(place, item),
      item ->> 'key',
      item ->> 'type',
      nullif(item -> 'headers', 'null'),
      coalesce(item ->> 'content_type', case when item ? 'payload' then 'application/json' end),
      item ->> 'lane',
      (item ->> 'id')::uuid
    );
  end loop;
end
$function$;
comment on function {{schema}}.enqueue_many is
  'Adds an array of messages in their order and returns their ids. payload is JSON, payload_base64 any bytes.';

-- Four roles that cannot log in: grant them to the users of your services.

-- Grants each role that exists what it needs; run by the owner of the tables, also again at any time.
create function {{schema}}.grant_rights() returns void
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
    grant execute on function {{schema}}.watch to onceward_relay;
    -- A right on the parent does not reach its partitions.
    for slot in 0..11 loop
      execute format('grant select, truncate on {{schema}}.messages_%s to onceward_relay', slot);
    end loop;
  end if;

  if 'onceward_consumer' = any (present) then
    grant select, insert, update, delete on {{schema}}.processed_messages, {{schema}}.retries, {{schema}}.held_keys,
      {{schema}}.starts, {{schema}}.paused_types
    to onceward_consumer;
    grant select, insert, update on {{schema}}.consumers, {{schema}}.dead_letters, {{schema}}.consumer_positions, {{schema}}.key_sequences
    to onceward_consumer;
    grant execute on function {{schema}}.mark_slot, {{schema}}.is_held to onceward_consumer;
    for slot in 0..11 loop
      execute format('grant select, delete, truncate on {{schema}}.processed_messages_%s to onceward_consumer', slot);
    end loop;
  end if;

  if 'onceward_admin' = any (present) then
    grant select on
      {{schema}}.messages, {{schema}}.streams, {{schema}}.cursors, {{schema}}.unrouted, {{schema}}.parked,
      {{schema}}.processed_messages, {{schema}}.dead_letters, {{schema}}.retries, {{schema}}.held_keys, {{schema}}.consumer_positions,
      {{schema}}.starts, {{schema}}.paused_types, {{schema}}.key_sequences, {{schema}}.consumers
    to onceward_admin;
    grant select on sequence {{schema}}.messages_seq_seq to onceward_admin;
    grant delete on {{schema}}.streams, {{schema}}.cursors, {{schema}}.unrouted to onceward_admin;
    grant update, delete on {{schema}}.parked, {{schema}}.dead_letters to onceward_admin;
    grant delete on {{schema}}.consumers, {{schema}}.consumer_positions, {{schema}}.key_sequences to onceward_admin;
    -- To resume a type by hand.
    grant update (resumed_at) on {{schema}}.paused_types to onceward_admin;
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

do $roles$
declare
  wanted text;
  missing text[] := '{}';
begin
  foreach wanted in array array['onceward_writer', 'onceward_relay', 'onceward_consumer', 'onceward_admin'] loop
    if not exists (select from pg_roles where rolname = wanted) then
      begin
        execute format('create role %I nologin', wanted);
      exception
        -- Another database of this cluster created it at the same moment.
        when duplicate_object or unique_violation then null;
        when insufficient_privilege then missing := missing || format('create role %I nologin;', wanted);
      end;
    end if;
  end loop;
  perform {{schema}}.grant_rights();
  if missing <> '{}' then
    raise notice 'onceward: this user may not create roles. Have an administrator run: % Then, as the owner of the tables: select {{schema}}.grant_rights();',
      array_to_string(missing, ' ');
  end if;
end
$roles$;

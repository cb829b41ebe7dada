-- The log, its readers and what they set aside.

-- What the tables below were made with. Slots and their lengths are part of the tables: changing them here changes nothing.
create table {{schema}}.settings (
  one boolean primary key default true,
  message_slots smallint not null,
  message_slot_seconds integer not null,
  mark_slots smallint not null,
  mark_slot_seconds integer not null,
  max_payload integer not null,
  constraint settings_one check (one),
  constraint settings_max_payload check (max_payload between 1 and 1073741824)
);
comment on table {{schema}}.settings is 'One row: the shape of the rings, and the largest payload in bytes that the SQL functions take.';
comment on column {{schema}}.settings.max_payload is 'May be changed; every other column only describes the tables.';

insert into {{schema}}.settings (message_slots, message_slot_seconds, mark_slots, mark_slot_seconds, max_payload)
values (12, 86400, 12, 86400, 1000000);

-- What the log takes. Domains and not constraints of the table, which the server would parse anew at each statement. Each function
-- called here is set up anew at each insert: so a length is looked for in one range and not compared twice.
create domain {{schema}}.message_lane as smallint check (value in (0, 1, 2));
create domain {{schema}}.message_topic as text
check (octet_length(value) <= 249 and value ~ '^[A-Za-z0-9_-]+([.][A-Za-z0-9_-]+)*$');
create domain {{schema}}.message_key as text check (octet_length(value) <@ int4range(1, 1025));
create domain {{schema}}.message_type as text check (octet_length(value) <@ int4range(1, 256));
-- True for every object and for nothing else.
create domain {{schema}}.message_headers as jsonb check (value @> '{}');

-- Append-only: nothing ever updates or deletes a row. A slot is emptied by truncate.
-- The only table without a primary key: an index on random ids would cost the producer more than the rest of the insert.
-- The server gives the columns their values in this order: a transaction has its id before it takes a number. Readers go by it.
create table {{schema}}.messages (
  txid xid8 not null default pg_current_xact_id(),
  seq bigint generated always as identity,
  created_at timestamptz not null default clock_timestamp(),
  id uuid not null,
  slot smallint not null default (floor(date_part('epoch', clock_timestamp()) / 86400)::bigint % 12)::smallint,
  lane {{schema}}.message_lane not null,
  topic {{schema}}.message_topic not null,
  key {{schema}}.message_key,
  type {{schema}}.message_type not null,
  headers {{schema}}.message_headers not null default '{}',
  payload bytea not null
) partition by list (slot);
comment on table {{schema}}.messages is 'The log: every message that was enqueued, in order of seq. Append-only.';
comment on column {{schema}}.messages.seq is 'Order within a key. No identity: a failover may give a number again.';
comment on column {{schema}}.messages.txid is 'The transaction that wrote the row; finds rows that commit late.';
comment on column {{schema}}.messages.slot is 'The partition of the ring, from the time of the insert.';
comment on column {{schema}}.messages.lane is '0 critical, 1 standard, 2 bulk.';

-- New rows of a lane, and its newest row.
create index messages_lane_seq on {{schema}}.messages (lane, seq);
-- Rows of a lane that became visible late.
create index messages_lane_txid_seq on {{schema}}.messages (lane, txid, seq);

do $partitions$
begin
  for slot in 0..11 loop
    execute format('create table {{schema}}.messages_%s partition of {{schema}}.messages for values in (%s)', slot, slot);
  end loop;
end
$partitions$;

create table {{schema}}.streams (
  stream text primary key,
  lease_token uuid,
  owner text,
  lease_until timestamptz,
  topics text[] not null default '{*}',
  unrouted text not null default 'keep',
  paused jsonb not null default '[]',
  system_identifier bigint,
  timeline bigint,
  created_at timestamptz not null default clock_timestamp(),
  constraint streams_stream check (stream ~ '^[a-z][a-z0-9_]*$' and octet_length(stream) <= 63),
  constraint streams_unrouted check (unrouted in ('keep', 'discard')),
  constraint streams_paused check (jsonb_typeof(paused) = 'array')
) with (fillfactor = 50, autovacuum_vacuum_threshold = 100, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 0);
comment on table {{schema}}.streams is 'The readers of the log, and who holds the lease of each.';
comment on column {{schema}}.streams.lease_token is 'Random at each claim; whoever knows it may move the stream''s cursors.';
comment on column {{schema}}.streams.paused is 'Topics that wait for their destination: an array of objects with topic, reason and since.';
comment on column {{schema}}.streams.system_identifier is 'The cluster in which the cursors are true.';

create table {{schema}}.cursors (
  stream text not null references {{schema}}.streams on delete cascade,
  lane smallint not null,
  detour text not null default '',
  last_seq bigint not null default 0,
  snapshot pg_snapshot not null,
  pinned pg_snapshot,
  late_pos bigint,
  floor bigint not null default 0,
  late_upto bigint,
  late_below xid8,
  constraint cursors_pkey primary key (stream, lane, detour),
  constraint cursors_lane check (lane in (0, 1, 2)),
  constraint cursors_paging check ((pinned is null) = (late_pos is null)),
  constraint cursors_late check ((late_upto is null) = (late_below is null))
) with (fillfactor = 50, autovacuum_vacuum_threshold = 100, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 0);
comment on table {{schema}}.cursors is 'How far each stream has come in each lane. Detour is empty for the main cursor.';
comment on column {{schema}}.cursors.last_seq is 'The highest seq that was read; all of it that snapshot could see is published.';
comment on column {{schema}}.cursors.floor is 'Rows up to here are none of this cursor''s business.';
comment on column {{schema}}.cursors.late_below is 'No row up to the number late_upto is of this transaction or of a later one.';

create table {{schema}}.unrouted (
  slot smallint not null,
  lane smallint not null,
  topic text not null,
  noted_at timestamptz not null default clock_timestamp(),
  constraint unrouted_pkey primary key (slot, lane, topic)
);
comment on table {{schema}}.unrouted is 'Topics in the log that no stream asks for, by slot; noted by readers as they pass.';

create table {{schema}}.parked (
  stream text not null,
  seq bigint not null,
  lane smallint not null,
  id uuid not null,
  topic text not null,
  key text,
  type text not null,
  headers jsonb not null,
  payload bytea not null,
  created_at timestamptz not null,
  state text not null default 'parked',
  error_kind text not null,
  error text not null,
  history jsonb not null default '[]',
  replays integer not null default 0,
  parked_at timestamptz not null default clock_timestamp(),
  changed_at timestamptz not null default clock_timestamp(),
  constraint parked_pkey primary key (stream, seq),
  constraint parked_lane check (lane in (0, 1, 2)),
  constraint parked_state check (state in ('parked', 'due', 'published', 'discarded')),
  constraint parked_headers check (jsonb_typeof(headers) = 'object'),
  constraint parked_history check (jsonb_typeof(history) = 'array')
);
comment on table {{schema}}.parked is 'Messages that a destination refuses, with a full copy, for a person to decide.';
comment on column {{schema}}.parked.state is 'parked: waits for a person; due: to be published again; published, discarded: done.';
comment on column {{schema}}.parked.replays is 'How often it was made due; part of the broker''s dedupe id.';

-- What the lease holder publishes next.
create index parked_due on {{schema}}.parked (stream, seq) where state = 'due';

-- Waits until somebody has committed, looking every so many seconds, once at least and until the seconds of patience are over at most; tells what
-- can be seen then. Volatile, and so at READ COMMITTED each look sees what is there by then. Locks nothing; it keeps vacuum back for as long as it takes.
create function {{schema}}.watch(seen text, every double precision, patience double precision) returns text
language plpgsql volatile
as $function$
declare
  last timestamptz := clock_timestamp() + make_interval(secs => patience - every);
  current text := pg_current_snapshot()::text;
begin
  while current = seen loop
    perform pg_sleep(every);
    current := pg_current_snapshot()::text;
    exit when clock_timestamp() > last;
  end loop;
  return current;
end
$function$;
comment on function {{schema}}.watch is 'Internal: a relay waits for commits on an idle log.';

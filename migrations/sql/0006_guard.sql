-- Messages that kill their process, and types of which most messages fail.

create table {{schema}}.starts (
  consumer {{schema}}.consumer_name not null,
  message_id uuid not null,
  member uuid not null,
  alone boolean not null default false,
  crashes smallint not null default 0,
  started_at timestamptz not null default clock_timestamp(),
  constraint starts_pkey primary key (consumer, message_id)
);
comment on table {{schema}}.starts is 'Handlers that were started and have not ended: what a process that died was at.';
comment on column {{schema}}.starts.member is 'The life of a process that started it; zeros once it has failed alone, which is nobody''s.';
comment on column {{schema}}.starts.alone is 'Whether it was started with nothing beside it.';
comment on column {{schema}}.starts.crashes is 'How often a process had died while the message was handled with nothing beside it.';

create table {{schema}}.paused_types (
  consumer {{schema}}.consumer_name not null,
  type text not null,
  error text not null default '',
  paused_at timestamptz not null default clock_timestamp(),
  probe_at timestamptz not null,
  resumed_at timestamptz,
  constraint paused_types_pkey primary key (consumer, type)
);
comment on table {{schema}}.paused_types is 'Types of which most messages failed: one at a time is tried, the others wait in retries.';
comment on column {{schema}}.paused_types.error is 'What the message failed with that paused it.';
comment on column {{schema}}.paused_types.probe_at is 'When the next one is tried.';
comment on column {{schema}}.paused_types.resumed_at is 'Since when it is handled again. The row goes once all that waited for it is due.';

alter table {{schema}}.held_keys add column waits_for text;
comment on column {{schema}}.held_keys.waits_for is 'The paused type that the first of the line is of, while it waits for nothing else.';

-- What waits for a type, soonest due first.
create index held_keys_waits_for on {{schema}}.held_keys (consumer, waits_for, due_at) where waits_for is not null;

-- What consumers that dedupe by the producer's own numbers have settled: one row a key in place of a mark for each message.

create table {{schema}}.key_sequences (
  consumer {{schema}}.consumer_name not null,
  line uuid not null,
  topic text not null,
  key text not null,
  high bigint not null,
  high_mark uuid not null,
  gaps int8multirange not null default '{}',
  closed bigint not null default 0,
  seen bigint not null,
  seen_at timestamptz not null,
  reused boolean not null default false,
  raised_at timestamptz not null default clock_timestamp(),
  constraint key_sequences_pkey primary key (consumer, line),
  constraint key_sequences_numbers check (high > 0 and closed >= 0 and closed < high and seen > 0)
) with (fillfactor = 70, autovacuum_vacuum_threshold = 100, autovacuum_vacuum_scale_factor = 0.05);
comment on table {{schema}}.key_sequences is 'Of each consumer that dedupes by sequence, and each key: which of the producer''s numbers are settled.';
comment on column {{schema}}.key_sequences.line is 'A uuid made from source, topic and key, of any length.';
comment on column {{schema}}.key_sequences.high is 'The highest number settled. All below it are, but for the gaps.';
comment on column {{schema}}.key_sequences.high_mark is 'What the message with that number would be marked by.';
comment on column {{schema}}.key_sequences.gaps is 'Numbers below high that have not come yet.';
comment on column {{schema}}.key_sequences.closed is 'Of numbers up to here that lie in no gap nobody can tell whether they are settled: there were too many gaps.';
comment on column {{schema}}.key_sequences.seen is 'The highest onceward-seq settled. What is numbered anew lies above it, or after seen_at.';
comment on column {{schema}}.key_sequences.seen_at is 'The latest time in the log of all that is settled. Where the log has gone back, what it numbers again lies after it.';
comment on column {{schema}}.key_sequences.reused is 'A number was given twice: seen and seen_at stay where they are, and what lies above takes marks as well.';
comment on column {{schema}}.key_sequences.raised_at is 'When high was set. Since then the consumer goes by numbers, and not by marks.';

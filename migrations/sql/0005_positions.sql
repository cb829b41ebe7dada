-- How far consumers have come in the partitions of their brokers: what is older than any mark can be told from what is new by it.

create table {{schema}}.consumer_positions (
  consumer {{schema}}.consumer_name not null,
  partition text not null,
  highest_settled bigint not null,
  changed_at timestamptz not null default clock_timestamp(),
  constraint consumer_positions_pkey primary key (consumer, partition),
  constraint consumer_positions_highest check (highest_settled >= 0)
) with (fillfactor = 50);
comment on table {{schema}}.consumer_positions is 'How far each consumer has come in each partition of its broker. Brokers without positions have no rows.';
comment on column {{schema}}.consumer_positions.partition is 'The broker''s unit of order, by name: a Kafka topic and its partition, a NATS durable.';
comment on column {{schema}}.consumer_positions.highest_settled is 'This position and all before it are settled. Seconds behind what is.';

//! How far a consumer has come in each partition of its broker.

/// Notes how far; never less than what is there. By primary key; locks the rows in order. Its commit waits for no disk: one that is lost only
/// lags behind, and it can never be on disk before the marks, which were committed before it.
/// $1 consumer, $2 partitions, $3 positions.
pub(super) const NOTE: &str = "
insert into {schema}.consumer_positions as c (consumer, partition, highest_settled)
select $1, p.partition, p.highest
from (select set_config('synchronous_commit', 'off', true)) as quick,
  unnest($2::text[], $3::bigint[]) as p (partition, highest)
order by p.partition
on conflict (consumer, partition) do update
set highest_settled = excluded.highest_settled, changed_at = clock_timestamp()
where c.highest_settled < excluded.highest_settled";

/// How far the consumer has come in these partitions. By primary key. $1 consumer, $2 partitions.
pub(super) const HIGHEST: &str = "
select partition, highest_settled
from {schema}.consumer_positions
where consumer = $1
  and partition = any ($2)";

//! The statement that reads all cursors of a stream at one moment.

use onceward_core::{Lane, Schema};
use sqlx::error::BoxDynError;
use sqlx::postgres::PgArguments;
use sqlx::{Arguments, SqlStr};

use super::read::CursorRead;
use super::snapshot::Snapshot;
use crate::sql::render_parts;

/// The parameters of a statement, for each cursor: `last`, `after`, `snapshot`, `pinned`, the most late rows, the most
/// new rows, the most bytes of each kind, and `late_below`.
pub(super) const PER_CURSOR: usize = 8;

/// How the columns of the answer are numbered. What is no message has columns of its own only where one of these fits: each costs
/// something with every row.
pub(super) mod column {
    /// Which cursor, by its place in the statement.
    pub(crate) const PLACE: usize = 0;
    /// One of those of [`kind`](super::kind).
    pub(crate) const KIND: usize = 1;
    pub(crate) const SEQ: usize = 2;
    pub(crate) const SLOT: usize = 3;
    pub(crate) const ID: usize = 4;
    pub(crate) const TOPIC: usize = 5;
    pub(crate) const KEY: usize = 6;
    pub(crate) const TYPE: usize = 7;
    pub(crate) const HEADERS: usize = 8;
    pub(crate) const PAYLOAD: usize = 9;
    pub(crate) const CREATED_AT: usize = 10;
}

/// What a row of the answer is.
pub(super) mod kind {
    pub(crate) const NEW: i16 = 0;
    /// Late, and more late rows follow, here or in the next read.
    pub(crate) const LATE: i16 = 1;
    pub(crate) const LAST_LATE: i16 = 2;
}

/// The columns of the row that tells of the moment: those that its values fit into.
pub(super) mod moment {
    use super::column;

    pub(crate) const INSERTED: usize = column::SEQ;
    pub(crate) const SNAPSHOT: usize = column::TOPIC;
    pub(crate) const FLUSHED: usize = column::KEY;
    /// Numbers of partitions, with spaces between them.
    pub(crate) const IN_USE: usize = column::TYPE;
    pub(crate) const PID: usize = column::HEADERS;
    pub(crate) const NOW: usize = column::CREATED_AT;
}

/// What is read for one cursor. `$last` and the others stand for parameters, `$lane` for the lane's number, `$place` for the
/// cursor's place in the statement, `$slots` for the slots that are gone through: the planner leaves out all others.
///
/// Served by `messages (lane, txid, seq)` for late rows and by `messages (lane, seq)` for new ones; locks nothing.
/// - The late arm: for each transaction that ran at the cursor's snapshot and has ended since, a probe of its own; then
///   all transactions that had not begun, up to `$late_below` if that is known: of that one and later ones nothing is
///   late. Comparing pairs, ordering by both, and `seq + 0` keep the planner off `(lane, seq)`, which would walk the whole
///   log.
/// - A cursor with nothing below it, such as that of a new stream, goes through none of those that had not begun.
/// - It carries slot and ctid, so that the wide columns come by TID scans in one partition: rows are never updated, and
///   a truncate waits for the statement.
/// - A page has an order and a limit around both arms. No index gives that order, since `seq + 0` is none of its columns.
/// - Each row of a page is found again, as the statement sees one moment and rows never move; so the last one that is found is the last.
/// - The running sums of bytes walk rows that come sorted; sizes are known without fetching what is stored outside the row.
const PARTS: &str = "
seen_$place as materialized (
  select coalesce($pinned::text::pg_snapshot, pg_current_snapshot()) as snapshot
),
page_$place as materialized (
  select m.slot, m.row_, m.seq
  from unnest(array(select pg_snapshot_xip($snapshot::text::pg_snapshot))) x(txid)
  cross join lateral (
    select slot, ctid as row_, seq
    from {{schema}}.messages
    where slot in ($slots) and lane = $lane and (txid, seq) > (x.txid, $after) and (txid, seq) <= (x.txid, $last)
    order by txid, seq
    limit $rows + 1
  ) m
  where pg_visible_in_snapshot(x.txid, (select snapshot from seen_$place))
  union all
  select slot, ctid, seq + 0
  from {{schema}}.messages
  where slot in ($slots) and lane = $lane
    and txid >= pg_snapshot_xmax($snapshot::text::pg_snapshot)
    and txid < least(pg_snapshot_xmax((select snapshot from seen_$place)), $late_below::text::xid8)
    and seq + 0 <= $last
    and seq + 0 > $after
    and $after < $last
    and pg_visible_in_snapshot(txid, (select snapshot from seen_$place))
  order by seq
  limit $rows + 1
),
fetched_$place as (
  select *
  from (
    select w.seq, w.slot, w.id, w.topic, w.key, w.type, w.headers, w.payload, w.created_at,
      sum(octet_length(w.payload) + pg_column_size(w.headers)) over (order by p.seq rows unbounded preceding)
        - octet_length(w.payload) - pg_column_size(w.headers) as before,
      row_number() over (order by p.seq rows unbounded preceding) as place,
      lead(p.seq) over (order by p.seq rows unbounded preceding) is null as is_last
    from page_$place p
    join {{schema}}.messages w on w.slot = p.slot and w.ctid = p.row_ and w.slot in ($slots)
  ) f
  where f.before < $bytes and f.place <= $rows
),
new_$place as (
  select *
  from (
    select n.*,
      sum(octet_length(n.payload) + pg_column_size(n.headers)) over (order by n.seq rows unbounded preceding)
        - octet_length(n.payload) - pg_column_size(n.headers) as before
    from (
      select seq, slot, id, topic, key, type, headers, payload, created_at
      from {{schema}}.messages
      where slot in ($slots) and lane = $lane and seq > $last
      order by seq
      limit $new_rows
    ) n
  ) f
  where f.before < $bytes
)";

/// The rows for one cursor: late rows, then new ones.
const ROWS: &str = "
union all
select
  $place::smallint,
  case when is_last then $kind_of_last::smallint else $kind_of_late::smallint end,
  seq, slot, id, topic, key, type, headers, payload, created_at
from fetched_$place
union all
select $place::smallint, $kind_of_new::smallint, seq, slot, id, topic, key, type, headers, payload, created_at
from new_$place";

/// What is true of the whole read, in the columns of [`moment`]. Position and sizes are taken after the snapshot: the commit of every
/// row read lies before that position, and whatever the snapshot sees has a page.
///
/// `pg_relation_size` takes an access share lock on each partition, one after the other: it waits while a slot is truncated.
const MOMENT: &str = "
select null::smallint, null::smallint,
  (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint,
  null::smallint, null::uuid,
  pg_current_snapshot()::text,
  (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint::text,
  array_to_string(
    array(
      select inhrelid
      from pg_inherits
      where inhparent = '{{schema}}.messages'::regclass and pg_relation_size(inhrelid) > 0
    ),
    ' '
  ),
  to_jsonb(pg_backend_pid()),
  null::bytea, clock_timestamp()";

/// The statement for cursors in these lanes, in this order, which goes through these slots.
pub(super) fn statement(schema: &Schema, lanes: &[Lane], slots: &[i16]) -> SqlStr {
    let mut parts = Vec::new();
    let mut rows = String::new();
    for (place, lane) in lanes.iter().enumerate() {
        parts.push(for_cursor(PARTS, *lane, place));
        rows.push_str(&for_cursor(ROWS, *lane, place));
    }
    let slots: Vec<String> = slots.iter().map(i16::to_string).collect();
    let text = format!("with {}\n{MOMENT}{rows}", parts.join(","));
    render_parts(schema, &text.replace("$slots", &slots.join(", ")))
}

fn for_cursor(text: &str, lane: Lane, place: usize) -> String {
    let parameter = |number: usize| format!("${}", place * PER_CURSOR + number);
    text.replace("$kind_of_new", &kind::NEW.to_string())
        .replace("$kind_of_late", &kind::LATE.to_string())
        .replace("$kind_of_last", &kind::LAST_LATE.to_string())
        .replace("$late_below", &parameter(8))
        .replace("$snapshot", &parameter(3))
        .replace("$pinned", &parameter(4))
        .replace("$place", &place.to_string())
        .replace("$new_rows", &parameter(6))
        .replace("$last", &parameter(1))
        .replace("$after", &parameter(2))
        .replace("$rows", &parameter(5))
        .replace("$bytes", &parameter(7))
        .replace("$lane", &lane.number().to_string())
}

/// The most rows of each kind that are read for a cursor.
pub(super) fn most_rows(read: &CursorRead) -> usize {
    read.limit.clamp(1, 100_000)
}

/// The arguments for these cursors, in this order.
pub(super) fn arguments(cursors: &[CursorRead]) -> Result<PgArguments, BoxDynError> {
    let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let mut arguments = PgArguments::default();
    for read in cursors {
        let request = read.cursor.request();
        let rows = most_rows(read);
        let new_rows = if request.new_rows { rows } else { 0 };
        arguments.add(request.last)?;
        arguments.add(request.after)?;
        arguments.add(request.snapshot.to_string())?;
        arguments.add(request.pinned.map(Snapshot::to_string))?;
        arguments.add(number(rows))?;
        arguments.add(number(new_rows))?;
        arguments.add(number(read.bytes.max(1)))?;
        arguments.add(request.late_below.map(|txid| txid.to_string()))?;
    }
    Ok(arguments)
}

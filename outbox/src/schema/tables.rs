//! Facts about our tables that decide whether the log can be trusted.

use onceward_core::Schema;
use sqlx::{FromRow, PgConnection};

use super::InspectError;
use crate::log::numbers::NUMBERS;
use crate::sql::{render, render_parts};

/// One of our tables or partitions.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Table {
    /// Its name in the schema.
    pub name: String,
    /// Row security is on: whoever is not exempt sees fewer rows, without an error.
    pub row_security: bool,
    /// Not written to the WAL: empty after a crash.
    pub unlogged: bool,
    /// Triggers that are not ours and may change or drop rows: they run before a row or a statement, or in place of it.
    pub triggers: Vec<String>,
    /// Triggers that are not ours and run after a row or a statement.
    pub triggers_after: Vec<String>,
    /// Rules that are not ours.
    pub rules: Vec<String>,
    /// Roles that may insert into every column, and so forge what the log relies on. The owner does not count.
    pub full_writers: Vec<String>,
}

/// An index of one of our tables or partitions.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Index {
    /// The table or partition.
    pub table: String,
    /// The columns it is searched by, in order.
    pub columns: Vec<String>,
    /// No two rows have the same values in them.
    pub unique: bool,
    /// It has some of the rows only.
    pub partial: bool,
    /// Whether queries may use it.
    pub valid: bool,
}

/// The sequence behind `seq`.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Sequence {
    /// Numbers that a session takes at once. With more than one, messages come out of order or are never read.
    pub cache: i64,
    /// The step from one number to the next.
    pub increment: i64,
    /// Whether it starts again at its end.
    pub cycles: bool,
    /// Whether it gives one number after the other, as it was made to.
    pub one_by_one: bool,
    /// The number given last.
    pub last_number: i64,
    /// The highest number in the log; 0 if it is empty. Above `last_number` in a copy that left the sequence behind.
    pub highest: i64,
    /// The highest number that a stored cursor has come to. Above `last_number` if the sequence was set back.
    pub highest_read: i64,
    /// Whether a transaction gets its id before it takes a number: the server gives columns their values in their order.
    pub ids_first: bool,
}

/// How the tables were made.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Settings {
    /// Partitions of the log.
    pub message_slots: i16,
    /// Seconds for which one takes messages.
    pub message_slot_seconds: i32,
    /// Partitions of the marks.
    pub mark_slots: i16,
    /// Seconds of message time in one.
    pub mark_slot_seconds: i32,
    /// The largest payload in bytes that the SQL functions take.
    pub max_payload: i32,
}

pub(super) async fn read(
    connection: &mut PgConnection,
    schema: &Schema,
) -> Result<Vec<Table>, InspectError> {
    sqlx::query_as(
        "with user_triggers as (
           -- A partition's copy of its table's trigger is that trigger, and may be enabled where the table's is not.
           -- (Servers that are too old, and are told so, have no such column.) Copies are looked for among all triggers, and only where one
           -- is disabled.
           select t.tgrelid, t.tgname, t.tgtype
           from pg_trigger t
           where not t.tgisinternal
             and coalesce(to_jsonb(t) ->> 'tgparentid', '0') = '0'
             and (
               t.tgenabled <> 'D'
               or exists (
                 select from pg_trigger copy
                 where to_jsonb(copy) ->> 'tgparentid' = t.oid::text
                   and copy.tgenabled <> 'D'
               )
             )
         )
         select c.relname::text as name,
                c.relrowsecurity as row_security,
                c.relpersistence = 'u' as unlogged,
                -- Bits 2 and 64: before the row or statement, and in place of it.
                array(
                  select t.tgname::text
                  from user_triggers t
                  where t.tgrelid = c.oid and t.tgtype & (2 | 64) <> 0
                  order by t.tgname
                ) as triggers,
                array(
                  select t.tgname::text
                  from user_triggers t
                  where t.tgrelid = c.oid and t.tgtype & (2 | 64) = 0
                  order by t.tgname
                ) as triggers_after,
                array(
                  select r.rulename::text
                  from pg_rewrite r
                  where r.ev_class = c.oid and r.ev_enabled <> 'D'
                  order by r.rulename
                ) as rules,
                array(
                  select case when a.grantee = 0 then 'public' else pg_get_userbyid(a.grantee)::text end
                  from aclexplode(c.relacl) a
                  where a.privilege_type = 'INSERT' and a.grantee <> c.relowner
                  order by 1
                ) as full_writers
         from pg_class c
         join pg_namespace n on n.oid = c.relnamespace
         where n.nspname = $1 and c.relkind in ('r', 'p')
         order by c.relname",
    )
    .bind(schema.as_str())
    .fetch_all(connection)
    .await
    .map_err(InspectError::about("the tables"))
}

pub(super) async fn indexes(
    connection: &mut PgConnection,
    schema: &Schema,
) -> Result<Vec<Index>, InspectError> {
    sqlx::query_as(
        "select c.relname::text as table,
                array(
                  select a.attname::text
                  from unnest(i.indkey::int2[]) with ordinality k (attnum, position)
                  join pg_attribute a on a.attrelid = c.oid and a.attnum = k.attnum
                  where k.position <= i.indnkeyatts
                  order by k.position
                ) as columns,
                i.indisunique as unique,
                i.indpred is not null as partial,
                i.indisvalid and i.indisready and i.indislive as valid
         from pg_namespace n
         join pg_class c on c.relnamespace = n.oid and c.relkind = 'r'
         join pg_index i on i.indrelid = c.oid and i.indexprs is null
         where n.nspname = $1
         order by c.relname, i.indexrelid",
    )
    .bind(schema.as_str())
    .fetch_all(connection)
    .await
    .map_err(InspectError::about("the indexes"))
}

pub(super) async fn version(
    connection: &mut PgConnection,
    schema: &Schema,
) -> Result<Option<i32>, InspectError> {
    sqlx::query_scalar(render(
        schema,
        "select max(version) from {{schema}}.migrations",
    ))
    .fetch_one(connection)
    .await
    .map_err(InspectError::about("the schema's version"))
}

pub(super) async fn settings(
    connection: &mut PgConnection,
    schema: &Schema,
) -> Result<Option<Settings>, InspectError> {
    sqlx::query_as(render(
        schema,
        "select message_slots, message_slot_seconds, mark_slots, mark_slot_seconds, max_payload
         from {{schema}}.settings",
    ))
    .fetch_optional(connection)
    .await
    .map_err(InspectError::about("the settings of the tables"))
}

/// The highest number of each lane comes from (lane, seq), one entry from each partition.
pub(super) async fn sequence(
    connection: &mut PgConnection,
    schema: &Schema,
) -> Result<Option<Sequence>, InspectError> {
    const SEQUENCE: &str = "
select s.seqcache as cache,
  s.seqincrement as increment,
  s.seqcycle as cycles,
  coalesce(
    (
      select max(top.seq)
      from (values (0), (1), (2)) l (lane)
      cross join lateral (
        select m.seq
        from {{schema}}.messages m
        where m.lane = l.lane::int2
        order by m.seq desc
        limit 1
      ) top
    ),
    0
  ) as highest,
  $numbers
from pg_sequence s
where s.seqrelid = '{{schema}}.messages_seq_seq'::regclass";

    sqlx::query_as(render_parts(schema, &SEQUENCE.replace("$numbers", NUMBERS)))
        .fetch_optional(connection)
        .await
        .map_err(InspectError::about("the sequence of the log"))
}

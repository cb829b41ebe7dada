//! Whether the current user has the rights that its work needs.

use onceward_core::Schema;
use sqlx::{FromRow, PgConnection};

use super::InspectError;
use crate::sql::identifier;

/// What the current user is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    /// Enqueue.
    Write,
    /// Publish: read the log, keep cursors and parked messages, empty slots.
    Relay,
    /// Consume: keep marks, what waits for another attempt, dead letters and positions.
    Consume,
    /// Look at everything, decide on what is parked or dead, drop streams.
    Administer,
}

impl Duty {
    /// The role that has all rights for it.
    #[must_use]
    pub const fn role(self) -> &'static str {
        match self {
            Self::Write => "onceward_writer",
            Self::Relay => "onceward_relay",
            Self::Consume => "onceward_consumer",
            Self::Administer => "onceward_admin",
        }
    }

    const fn needs(self) -> &'static [Need] {
        match self {
            Self::Write => WRITE,
            Self::Relay => RELAY,
            Self::Consume => CONSUME,
            Self::Administer => ADMINISTER,
        }
    }

    /// Whether it takes reading the log and what is known of its streams.
    pub(super) const fn reads_the_log(self) -> bool {
        match self {
            Self::Write | Self::Consume => false,
            Self::Relay | Self::Administer => true,
        }
    }
}

/// The statement that gives a role to a user.
#[must_use]
pub fn grant(role: &str, user: &str) -> String {
    format!("grant {role} to {};", identifier(user))
}

/// The statement by which the owner of the tables gives the roles their rights.
#[must_use]
pub fn grant_rights(schema: &Schema) -> String {
    format!("select {}.grant_rights();", identifier(schema.as_str()))
}

/// How the current user stands to the role that has all rights for its duty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Membership {
    /// The cluster has no such role.
    NoRole,
    /// The role is not granted to it.
    NotGranted,
    /// It is a member, and does not inherit the role's rights.
    NotInherited,
    /// It has the rights of the role.
    Granted,
}

pub(super) async fn user(connection: &mut PgConnection) -> Result<String, InspectError> {
    sqlx::query_scalar("select current_user::text")
        .fetch_one(connection)
        .await
        .map_err(InspectError::about("the user"))
}

pub(super) async fn membership(
    connection: &mut PgConnection,
    duty: Duty,
) -> Result<Membership, InspectError> {
    let (exists, member, inherits): (bool, bool, bool) = sqlx::query_as(
        "select r.oid is not null, coalesce(pg_has_role(r.oid, 'member'), false), coalesce(pg_has_role(r.oid, 'usage'), false)
         from (select $1 as wanted) w
         left join pg_roles r on r.rolname = w.wanted",
    )
    .bind(duty.role())
    .fetch_one(connection)
    .await
    .map_err(InspectError::about("the role of this user"))?;
    Ok(match (exists, member, inherits) {
        (false, ..) => Membership::NoRole,
        (true, _, true) => Membership::Granted,
        (true, true, false) => Membership::NotInherited,
        (true, false, false) => Membership::NotGranted,
    })
}

const WRITE: &[Need] = &[
    need("^(settings|migrations)$", "", "SELECT"),
    need(
        "^messages$",
        "{lane,id,topic,key,type,headers,payload}",
        "INSERT",
    ),
    need(ENQUEUE, "", EXECUTE),
];

/// The functions by which SQL enqueues, and those that they call.
const ENQUEUE: &str = "^(enqueue(_json|_many)?|append|refuse|uuid_v7|lane_number|check_names|checked_headers|payload_of|check_element)$";

const RELAY: &[Need] = &[
    need(
        "^(settings|migrations|messages(_[0-9]+)?|messages_seq_seq)$",
        "",
        "SELECT",
    ),
    need("^messages_[0-9]+$", "", "TRUNCATE"),
    need("^(streams|cursors|unrouted|parked)$", "", "SELECT"),
    need("^(streams|cursors|unrouted|parked)$", "", "INSERT"),
    need("^(streams|cursors|unrouted|parked)$", "", "UPDATE"),
    need("^(streams|cursors|unrouted|parked)$", "", "DELETE"),
    need("^watch$", "", EXECUTE),
];

/// Tables whose rows a consumer adds, changes and deletes.
const WORK: &str = "^(retries|held_keys|starts|paused_types)$";

/// Tables whose rows a consumer adds and changes.
const KEPT: &str = "^(processed_messages|consumers|dead_letters|consumer_positions|key_sequences)$";

const CONSUME: &[Need] = &[
    need("^(settings|migrations)$", "", "SELECT"),
    need(WORK, "", "SELECT"),
    need(WORK, "", "INSERT"),
    need(WORK, "", "UPDATE"),
    need(WORK, "", "DELETE"),
    need(KEPT, "", "SELECT"),
    need(KEPT, "", "INSERT"),
    need(KEPT, "", "UPDATE"),
    need("^processed_messages_[0-9]+$", "", "SELECT"),
    need("^processed_messages_[0-9]+$", "", "DELETE"),
    need("^processed_messages_[0-9]+$", "", "TRUNCATE"),
    need("^(mark_slot|is_held)$", "", EXECUTE),
];

const ADMINISTER: &[Need] = &[
    need(
        "^(settings|migrations|messages|messages_seq_seq|streams|cursors|unrouted)$",
        "",
        "SELECT",
    ),
    need("^(parked|processed_messages|dead_letters)$", "", "SELECT"),
    need(
        "^(retries|held_keys|consumers|consumer_positions|key_sequences|starts|paused_types)$",
        "",
        "SELECT",
    ),
    need("^paused_types$", "{resumed_at}", "UPDATE"),
    // Dead letters are replayed as new messages too.
    need(
        "^messages$",
        "{lane,id,topic,key,type,headers,payload}",
        "INSERT",
    ),
    need("^(processed_messages|retries|held_keys)$", "", "INSERT"),
    need("^(processed_messages|held_keys)$", "", "UPDATE"),
    need(
        "^(consumers|consumer_positions|key_sequences)$",
        "",
        "DELETE",
    ),
    need(
        "^(streams|cursors|unrouted|parked|dead_letters)$",
        "",
        "DELETE",
    ),
    need("^(parked|dead_letters)$", "", "UPDATE"),
    need("^mark_slot$", "", EXECUTE),
    need(ENQUEUE, "", EXECUTE),
];

/// The privilege on functions; every other one is on tables and sequences. Everybody has it, unless it was taken from `public`.
const EXECUTE: &str = "EXECUTE";

/// A privilege on every object whose name matches, or on some of its columns.
struct Need {
    objects: &'static str,
    columns: &'static str,
    privilege: &'static str,
}

const fn need(objects: &'static str, columns: &'static str, privilege: &'static str) -> Need {
    Need {
        objects,
        columns,
        privilege,
    }
}

/// A right that the current user lacks.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct MissingRight {
    /// `SELECT`, `TRUNCATE`, …; `EXECUTE` of functions, `USAGE` of the schema.
    pub privilege: String,
    /// The table, sequence or function, or `schema`.
    pub object: String,
    /// The column, where the right is one on columns.
    pub column: Option<String>,
}

const MISSING: &str = "
with wanted as (
  select w.objects, w.columns::text[] as columns, w.privilege
  from unnest($2::text[], $3::text[], $4::text[]) w (objects, columns, privilege)
),
found as (
  select c.oid, c.relname::text as object, c.relkind, w.columns, w.privilege
  from wanted w
  join pg_namespace n on n.nspname = $1
  join pg_class c on c.relnamespace = n.oid and c.relname ~ w.objects and c.relkind in ('r', 'p', 'S')
  where w.privilege <> 'EXECUTE'
)
select 'USAGE' as privilege, 'schema' as object, null::text as column
from pg_namespace n
where n.nspname = $1 and not has_schema_privilege(n.oid, 'USAGE')
union all
select w.privilege, p.proname::text, null
from wanted w
join pg_namespace n on n.nspname = $1
join pg_proc p on p.pronamespace = n.oid and p.proname ~ w.objects
where w.privilege = 'EXECUTE' and not has_function_privilege(p.oid, w.privilege)
union all
select f.privilege, f.object, null
from found f
where f.columns = '{}'
  and not case
    when f.relkind = 'S' then has_sequence_privilege(f.oid, f.privilege)
    else has_table_privilege(f.oid, f.privilege)
  end
union all
select f.privilege, f.object, k.name
from found f
cross join unnest(f.columns) k (name)
where not has_column_privilege(f.oid, k.name, f.privilege)
order by 2, 1, 3";

pub(super) async fn missing(
    connection: &mut PgConnection,
    schema: &Schema,
    duty: Duty,
) -> Result<Vec<MissingRight>, InspectError> {
    let needs = duty.needs();
    let objects: Vec<&str> = needs.iter().map(|need| need.objects).collect();
    let columns: Vec<&str> = needs
        .iter()
        .map(|need| {
            if need.columns.is_empty() {
                "{}"
            } else {
                need.columns
            }
        })
        .collect();
    let privileges: Vec<&str> = needs.iter().map(|need| need.privilege).collect();
    sqlx::query_as(MISSING)
        .bind(schema.as_str())
        .bind(objects)
        .bind(columns)
        .bind(privileges)
        .fetch_all(connection)
        .await
        .map_err(InspectError::about("the rights of this user"))
}

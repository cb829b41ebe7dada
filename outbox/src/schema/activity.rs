//! Who keeps transactions open: their messages are not published yet, and slots cannot be emptied.

use sqlx::{FromRow, PgConnection};

use super::InspectError;

/// A transaction that has been open for more than a minute.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct OpenTransaction {
    /// Its process.
    pub pid: i32,
    /// Its user; none if the current user may not see it.
    pub user: Option<String>,
    /// The `application_name` of its session.
    pub application: Option<String>,
    /// Such as `idle in transaction`.
    pub state: Option<String>,
    /// For how long it has been open.
    pub seconds: f64,
    /// Whether it has written, so that it may hold messages.
    pub writes: bool,
}

/// A transaction that waits for `commit prepared`.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct PreparedTransaction {
    /// Its name.
    pub name: String,
    /// Its owner.
    pub owner: String,
    /// For how long it has been prepared.
    pub seconds: f64,
}

/// Sessions of other users show their transactions only to members of `pg_read_all_stats`; what is hidden is left out.
pub(super) async fn transactions(
    connection: &mut PgConnection,
) -> Result<Vec<OpenTransaction>, InspectError> {
    sqlx::query_as(
        "select a.pid,
                a.usename::text as user,
                nullif(a.application_name, '') as application,
                a.state,
                extract(epoch from clock_timestamp() - a.xact_start)::float8 as seconds,
                a.backend_xid is not null as writes
         from pg_stat_activity a
         where a.datname = current_database()
           and a.backend_type = 'client backend'
           and a.pid <> pg_backend_pid()
           and a.xact_start < clock_timestamp() - interval '1 minute'
         order by a.xact_start",
    )
    .fetch_all(connection)
    .await
    .map_err(InspectError::about("open transactions"))
}

pub(super) async fn prepared(
    connection: &mut PgConnection,
) -> Result<Vec<PreparedTransaction>, InspectError> {
    sqlx::query_as(
        "select p.gid as name,
                p.owner::text as owner,
                extract(epoch from clock_timestamp() - p.prepared)::float8 as seconds
         from pg_prepared_xacts p
         where p.database = current_database()
         order by p.prepared",
    )
    .fetch_all(connection)
    .await
    .map_err(InspectError::about("prepared transactions"))
}

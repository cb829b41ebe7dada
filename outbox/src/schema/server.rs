//! Facts about the server.

use sqlx::{FromRow, PgConnection};

use super::InspectError;

/// A server, as a session of ours sees it.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Server {
    /// As a number: 150018 is 15.18.
    pub version: i32,
    /// As text.
    pub version_text: String,
    /// The encoding of the database.
    pub encoding: String,
    /// A standby: it takes no writes.
    pub standby: bool,
    /// Transactions are read-only, by default or since it is a standby.
    pub read_only: bool,
    /// Tells one cluster from another.
    pub system_identifier: i64,
    /// Counts promotions; none on a standby.
    pub timeline: Option<i64>,
    /// Off: a crash of the machine may destroy committed messages.
    pub fsync: bool,
    /// What commits wait for, unless a session says otherwise.
    pub synchronous_commit: String,
    /// The standbys that a synchronous commit waits for; empty: none.
    pub synchronous_standby_names: String,
    /// The user of this session.
    pub user: String,
    /// Whether that user may see how far standbys are, and what others do: a member of `pg_read_all_stats`.
    pub sees_all_stats: bool,
    /// Standbys that are connected; with nothing but their names if the user may not see more.
    #[sqlx(skip)]
    pub standbys: Vec<Standby>,
}

/// A standby that is connected.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Standby {
    /// Its `application_name`.
    pub name: Option<String>,
    /// Such as `streaming`.
    pub state: Option<String>,
    /// `async`, `potential`, `sync` or `quorum`.
    pub sync_state: Option<String>,
    /// Bytes written here that it has not flushed.
    pub behind_bytes: Option<i64>,
}

pub(super) async fn read(connection: &mut PgConnection) -> Result<Server, InspectError> {
    let mut server: Server = sqlx::query_as(
        "select current_setting('server_version_num')::int4 as version,
                current_setting('server_version') as version_text,
                pg_encoding_to_char(d.encoding)::text as encoding,
                pg_is_in_recovery() as standby,
                current_setting('transaction_read_only') = 'on' as read_only,
                c.system_identifier,
                case
                  when not pg_is_in_recovery()
                  then ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int8
                end as timeline,
                current_setting('fsync') = 'on' as fsync,
                current_setting('synchronous_commit') as synchronous_commit,
                current_setting('synchronous_standby_names') as synchronous_standby_names,
                current_user::text as user,
                pg_has_role('pg_read_all_stats', 'usage') as sees_all_stats
         from pg_database d, pg_control_system() c
         where d.datname = current_database()",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(InspectError::about("the server"))?;
    server.standbys = sqlx::query_as(
        "select application_name as name,
                state,
                sync_state,
                case
                  when not pg_is_in_recovery()
                  then pg_wal_lsn_diff(pg_current_wal_lsn(), flush_lsn)::int8
                end as behind_bytes
         from pg_stat_replication
         order by application_name",
    )
    .fetch_all(connection)
    .await
    .map_err(InspectError::about("its standbys"))?;
    Ok(server)
}

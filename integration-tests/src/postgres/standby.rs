//! A streaming standby, made by the server's own backup functions: they need no program of the server's version.

use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Row as _};

use super::data;
use super::server::Server;
use crate::wait;

const CATCH_UP_TAKES_AT_MOST: Duration = Duration::from_secs(30);

/// Copies the running `primary` and starts the copy as its standby.
pub(super) async fn start(primary: &Server, primary_url: &str, name: &str) -> Server {
    let mut connection = PgConnection::connect(primary_url)
        .await
        .expect("the primary answers");
    let slot = crate::unique("standby");
    // Keeps what the standby needs from now on, so that nothing has to be copied from pg_wal.
    sqlx::query("select pg_create_physical_replication_slot($1, true)")
        .bind(&slot)
        .execute(&mut connection)
        .await
        .expect("the primary has a free replication slot");

    let standby = Server::prepare(primary.options().clone());
    let label = copy_running(&mut connection, primary, &standby).await;
    let conninfo = format!("{} application_name={name}", conninfo(primary_url));
    data::write(&standby.data().join("backup_label"), &label);
    data::write(&standby.data().join("standby.signal"), "");
    standby.configure(&[
        ("primary_conninfo", &conninfo),
        ("primary_slot_name", &slot),
        ("hot_standby", "on"),
    ]);
    standby.start_again().await;

    wait::until_true(CATCH_UP_TAKES_AT_MOST, "the standby to stream", || {
        let probe = streams(primary_url.to_owned(), name.to_owned());
        async { probe.await.unwrap_or(false) }
    })
    .await;
    standby
}

/// Copies the data directory between the two calls that make such a copy good; returns the backup's label.
async fn copy_running(connection: &mut PgConnection, primary: &Server, standby: &Server) -> String {
    sqlx::query("select pg_backup_start('standby', true)")
        .execute(&mut *connection)
        .await
        .expect("a backup can begin");
    // Files that vanish meanwhile are replayed from the log, so an error of the copy is none.
    drop(data::copy(&primary.data(), &standby.data()));
    for left_out in ["postmaster.pid", "postmaster.opts", "pg_wal", "pg_replslot"] {
        let path = standby.data().join(left_out);
        if path.is_dir() {
            std::fs::remove_dir_all(&path).expect("the copy is ours");
            data::own_directory(&path);
        } else if path.exists() {
            std::fs::remove_file(&path).expect("the copy is ours");
        }
    }
    let row = sqlx::query("select labelfile from pg_backup_stop(false)")
        .fetch_one(&mut *connection)
        .await
        .expect("the backup that was begun can be ended");
    row.get("labelfile")
}

async fn streams(primary_url: String, name: String) -> Result<bool, sqlx::Error> {
    let mut connection = PgConnection::connect(&primary_url).await?;
    let statement = "select exists (select from pg_stat_replication where application_name = $1 and state = 'streaming')";
    sqlx::query_scalar(statement)
        .bind(name)
        .fetch_one(&mut connection)
        .await
}

/// Promotes the standby at `url`.
pub(super) async fn promote(url: &str) {
    let mut connection = PgConnection::connect(url)
        .await
        .expect("the standby answers");
    let promoted: bool = sqlx::query_scalar("select pg_promote(true, 30)")
        .fetch_one(&mut connection)
        .await
        .expect("the server is a standby");
    assert!(promoted, "the standby is still one after 30 s");
}

/// A URL of the testkit's own server as a connection string; the standby reads no URL with `application_name` in it.
fn conninfo(url: &str) -> String {
    let (_, address) = url
        .rsplit_once('@')
        .expect("the URL of a server of ours names its user");
    let (address, _) = address
        .split_once('/')
        .expect("the URL of a server of ours names its database");
    let (host, port) = address
        .split_once(':')
        .expect("the URL of a server of ours names its port");
    format!("host={host} port={port} user=postgres")
}

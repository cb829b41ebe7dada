//! Visible is not yet durable: holds what was read back until a crash or a failover can no longer undo it.

use std::time::Duration;

use tokio::time::Instant;

use super::error::LogError;
use super::pause::pause;
use super::session::Session;

/// When a message that can be read may be published.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PublishAfter {
    /// Once its commit is on the server's disk.
    #[default]
    Flushed,
    /// Once the standby with this `application_name` has it on its disk too.
    Replicated(String),
    /// At once: a crash of the server may leave the broker with a message whose transaction never was.
    Visible,
}

/// A position in the server's write-ahead log, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lsn(pub(super) i64);

/// The positions that belong to a read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Positions {
    /// Taken after the read's snapshot: the commit of everything it saw lies before.
    pub(super) inserted: Lsn,
    /// What was on disk just after.
    pub(super) flushed: Lsn,
}

/// How long a busy server gets to flush by itself.
const BY_ITSELF: Duration = Duration::from_millis(5);

/// How often it is asked without a pause: most syncs take less, and a pause is the hand-over to a thread and back.
const AT_ONCE: u32 = 4;

/// Between two questions about the server's disk, after the first ones.
const FLUSH_PAUSE: Duration = Duration::from_micros(300);

/// Between two questions about the standby's disk.
const STANDBY_PAUSE: Duration = Duration::from_millis(1);

const FLUSHED: &str = "select (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint";

/// A commit of its own, as only that flushes. Read write, since the session is read only otherwise.
const FLUSH: &str = "
begin read write;
set local synchronous_commit = on;
select pg_logical_emit_message(true, 'onceward', '');
commit";

const REPLICATED: &str = "
select (flush_lsn - '0/0'::pg_lsn)::bigint
from pg_stat_replication
where application_name = $1 and flush_lsn is not null
order by 1 desc
limit 1";

/// Returns once what was read may be published.
pub(super) async fn wait(
    session: &mut Session,
    positions: Positions,
    publish_after: &PublishAfter,
) -> Result<(), LogError> {
    match publish_after {
        PublishAfter::Visible => Ok(()),
        PublishAfter::Flushed => flushed(session, positions).await,
        PublishAfter::Replicated(standby) => {
            flushed(session, positions).await?;
            replicated(session, positions.inserted, standby).await
        }
    }
}

async fn flushed(session: &mut Session, positions: Positions) -> Result<(), LogError> {
    if positions.flushed >= positions.inserted {
        return Ok(());
    }
    let patience = Instant::now() + BY_ITSELF;
    let mut asked = 0;
    loop {
        let flushed: i64 = session
            .call("asking what is flushed", async |connection| {
                sqlx::query_scalar(FLUSHED).fetch_one(connection).await
            })
            .await?;
        if Lsn(flushed) >= positions.inserted {
            return Ok(());
        }
        if Instant::now() >= patience {
            // On a quiet server nobody else would: a commit that nothing follows is flushed ten seconds later.
            return flush(session).await;
        }
        asked += 1;
        if asked >= AT_ONCE {
            pause(FLUSH_PAUSE).await;
        }
    }
}

async fn flush(session: &mut Session) -> Result<(), LogError> {
    session
        .call("flushing the write-ahead log", async |connection| {
            sqlx::raw_sql(FLUSH).execute(connection).await
        })
        .await
        .map(drop)
}

async fn replicated(session: &mut Session, position: Lsn, standby: &str) -> Result<(), LogError> {
    let within = session.within();
    let deadline = Instant::now() + within;
    loop {
        let reached: Option<i64> = session
            .call("asking what is replicated", async |connection| {
                sqlx::query_scalar(REPLICATED)
                    .bind(standby)
                    .fetch_optional(connection)
                    .await
            })
            .await?;
        if reached.is_some_and(|reached| Lsn(reached) >= position) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(LogError::NotReplicated {
                standby: standby.to_owned(),
                within,
            });
        }
        tokio::time::sleep(STANDBY_PAUSE).await;
    }
}

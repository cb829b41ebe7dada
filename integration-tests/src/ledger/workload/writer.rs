//! One writer: transaction after transaction on a connection of its own, which it replaces when it breaks.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::transaction::{self, Kind, Plan};

const A_TRANSACTION_TAKES_AT_MOST: Duration = Duration::from_secs(30);
const CONNECTING_TAKES_AT_MOST: Duration = Duration::from_secs(5);
const CLEAN_UP_TRIES: u32 = 600;
const PAUSE_AFTER_AN_ERROR: Duration = Duration::from_millis(50);

pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut connection = None;
    let mut pace = shared.workload.per_second.map(|rate| {
        let apart = Duration::from_secs(1) * shared.workload.writers / rate.max(1);
        let mut pace = tokio::time::interval(apart);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        pace
    });
    while !stop.is_cancelled() && shared.messages.load(Ordering::SeqCst) < shared.workload.messages
    {
        if let Some(pace) = &mut pace {
            pace.tick().await;
        }
        let plan = Plan::random(&shared.workload);
        if !once(&shared, &mut connection, &plan).await {
            clean_up(&shared, &mut connection, &plan).await;
        }
    }
}

/// Runs one transaction; says whether all is well.
async fn once(shared: &Shared, connection: &mut Option<PgConnection>, plan: &Plan) -> bool {
    let Some(open) = opened(shared, connection).await else {
        return false;
    };
    let work = Box::pin(transaction::run(open, &shared.workload, plan));
    if let Ok(Ok(committed)) = tokio::time::timeout(A_TRANSACTION_TAKES_AT_MOST, work).await {
        shared.messages.fetch_add(committed, Ordering::SeqCst);
        shared
            .aborted
            .fetch_add(u64::from(plan.kind == Kind::Abort), Ordering::SeqCst);
        return true;
    }
    // Whether it committed is not known, and the connection may be in the middle of anything.
    *connection = None;
    shared.unknown.fetch_add(1, Ordering::SeqCst);
    false
}

/// After an error: waits a moment, and until nothing is left prepared, as that would hold its locks for ever. Even
/// when the writers are told to stop, as long as the database may come back.
async fn clean_up(shared: &Shared, connection: &mut Option<PgConnection>, plan: &Plan) {
    for _ in 0..CLEAN_UP_TRIES {
        tokio::time::sleep(PAUSE_AFTER_AN_ERROR).await;
        if resolved(shared, connection, plan).await {
            return;
        }
    }
}

/// Makes sure that nothing of `plan` is left prepared; says whether that is so.
async fn resolved(shared: &Shared, connection: &mut Option<PgConnection>, plan: &Plan) -> bool {
    if plan.kind != Kind::TwoPhase {
        return true;
    }
    let Some(open) = opened(shared, connection).await else {
        return false;
    };
    let resolved = Box::pin(transaction::resolve(open, plan));
    let resolved = matches!(
        tokio::time::timeout(A_TRANSACTION_TAKES_AT_MOST, resolved).await,
        Ok(Ok(()))
    );
    if !resolved {
        *connection = None;
    }
    resolved
}

async fn opened<'a>(
    shared: &Shared,
    connection: &'a mut Option<PgConnection>,
) -> Option<&'a mut PgConnection> {
    if connection.is_none() {
        let connecting = PgConnection::connect(&shared.url);
        *connection = tokio::time::timeout(CONNECTING_TAKES_AT_MOST, connecting)
            .await
            .ok()?
            .ok();
    }
    connection.as_mut()
}

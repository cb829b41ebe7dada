//! Reads now and then how much waits, for metrics.

use std::time::Duration;

use metrics::gauge;
use onceward::schema::{self, CursorOverview, StreamOverview};
use onceward_core::{BoxError, Lane, Schema};
use sqlx::PgPool;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// How often the database is asked.
const EVERY: Duration = Duration::from_secs(5);

/// How long it may take to answer.
const WITHIN: Duration = Duration::from_secs(5);

/// Sets the gauges until told to stop. A database that does not answer leaves them as they are: the streams say so loudly.
///
/// # Cancel safety
/// Safe to drop.
pub(crate) async fn run(pool: PgPool, schema: Schema, stop: CancellationToken) {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => return,
        }
        match read(&pool, &schema, WITHIN).await {
            Ok(streams) => streams.iter().for_each(set),
            Err(error) => debug!(%error, "how much waits could not be read"),
        }
    }
}

async fn read(
    pool: &PgPool,
    schema: &Schema,
    within: Duration,
) -> Result<Vec<StreamOverview>, BoxError> {
    let mut connection = timeout(within, pool.acquire()).await??;
    let read = timeout(within, schema::overview(&mut connection, schema)).await;
    if !matches!(read, Ok(Ok(_))) {
        // It may still be busy, or silent: the pool would wait for it before it gives it to the next one.
        connection.close_on_drop();
    }
    Ok(read??)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a gauge is a float; these are counts that fit"
)]
fn set(stream: &StreamOverview) {
    let main = |cursor: &&CursorOverview| cursor.detour.is_empty();
    for cursor in stream.cursors.iter().filter(main) {
        // What waits in a detour is not published either.
        let of_lane = stream.cursors.iter().filter(|one| one.lane == cursor.lane);
        let oldest = of_lane.filter_map(|one| one.oldest_seconds);
        let oldest = oldest.fold(0.0, f64::max);
        let lane = Lane::from_number(cursor.lane).map_or("unknown", Lane::name);
        let labels = [("stream", stream.stream.clone()), ("lane", lane.to_owned())];
        gauge!("onceward_outbox_depth", &labels).set(cursor.depth as f64);
        gauge!("onceward_message_age_seconds", &labels).set(oldest);
    }
    let parked = stream
        .parked
        .iter()
        .filter(|parked| parked.state == "parked");
    let parked: i64 = parked.map(|parked| parked.count).sum();
    gauge!("onceward_parked", "stream" => stream.stream.clone()).set(parked as f64);
}

#[cfg(test)]
mod tests {
    use onceward_testkit::postgres::Postgres;
    use sqlx::postgres::PgPoolOptions;

    use super::*;

    #[tokio::test]
    async fn a_connection_that_did_not_answer_in_time_is_not_used_again() {
        let database = Postgres::shared().await.database().await;
        onceward_migrations::run(database.pool()).await.unwrap();
        let pool = PgPoolOptions::new().max_connections(1);
        let pool = pool.connect(database.url()).await.unwrap();
        let mut other = database.pool().begin().await.unwrap();
        sqlx::query("lock table onceward.streams in access exclusive mode")
            .execute(&mut *other)
            .await
            .unwrap();

        let read = read(&pool, &Schema::default(), Duration::from_millis(200)).await;

        assert!(read.is_err());
        let next = timeout(Duration::from_secs(10), pool.acquire()).await;
        sqlx::query("select 1")
            .execute(&mut *next.unwrap().unwrap())
            .await
            .unwrap();
    }
}

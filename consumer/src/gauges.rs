//! Counts now and then what waits in the database.

use std::time::Duration;

use onceward_core::Schema;
use sqlx::PgPool;
use tracing::debug;

use crate::meters::Meters;
use crate::trouble::chain;
use crate::{ConsumerName, dead_letter, sql};

const EVERY: Duration = Duration::from_secs(30);

/// By `retries_line`.
const RETRIES: &str = "select count(*) from {schema}.retries where consumer = $1";

/// Tells how many dead letters and retries wait. Never ends; safe to drop.
pub(crate) async fn keep(pool: PgPool, schema: Schema, name: ConsumerName, meters: Meters) {
    loop {
        if let Err(error) = count(&pool, &schema, &name, &meters).await {
            debug!(error = %chain(&error), "what waits could not be counted");
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn count(
    pool: &PgPool,
    schema: &Schema,
    name: &ConsumerName,
    meters: &Meters,
) -> Result<(), sqlx::Error> {
    let letters = dead_letter::counts(pool, schema).await?;
    let ours = letters.iter().filter(|one| one.consumer == name.as_str());
    meters.dead_letters(ours.map(|one| one.count).sum());
    let retries = sqlx::query_scalar(sql::over(schema, RETRIES))
        .bind(name.as_str())
        .fetch_one(pool)
        .await?;
    meters.retries(retries);
    Ok(())
}

//! Counts now and then what waits in the database.

use std::time::Duration;

use onceward_core::Schema;
use sqlx::PgPool;
use tracing::debug;

use crate::meters::Meters;
use crate::trouble::chain;
use crate::within::{Borrowed, within};
use crate::{ConsumerName, sql};

const EVERY: Duration = Duration::from_secs(30);

/// Counting many rows may take a while, and goes on at the server when nobody waits for it any more: so long takes only a connection
/// that is dead.
const LIMIT: Duration = Duration::from_secs(600);

/// Dead letters by `dead_letters_consumer`, retries by `retries_line`. $1 consumer.
const COUNT: &str = "
select
  (
    select count(*)
    from {schema}.dead_letters
    where consumer = $1
      and state = 'dead'
  ),
  (
    select count(*)
    from {schema}.retries
    where consumer = $1
  )";

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
    let mut borrowed = Borrowed::of(pool).await?;
    let count = sqlx::query_as(sql::over(schema, COUNT))
        .bind(name.as_str())
        .fetch_one(borrowed.connection());
    let (letters, retries) = within(LIMIT, count).await?;
    borrowed.give_back();
    meters.dead_letters(letters);
    meters.retries(retries);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transaction::testing::has_a_limit;

    #[tokio::test]
    async fn a_count_has_a_limit() {
        let name = ConsumerName::try_from("billing").unwrap();
        let meters = Meters::new(&name);

        has_a_limit("a count", async |pool| {
            count(pool, &Schema::default(), &name, &meters).await
        })
        .await;
    }
}

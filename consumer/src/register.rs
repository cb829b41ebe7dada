//! Says in the database which consumers there are. Nothing that happens to messages depends on it.

use std::time::Duration;

use onceward_core::Schema;
use sqlx::{PgPool, SqlStr};
use tracing::warn;

use crate::session::Session;
use crate::trouble::chain;
use crate::within::within;
use crate::{ConsumerName, sql};

/// How long it may take, with its connection.
const LIMIT: Duration = Duration::from_secs(5);
const ROLL_BACK: Duration = Duration::from_secs(1);

/// By itself, as the pool's connections may begin others: two members that start at once must not fail for each other, nor wait for a disk.
const BEGIN: &str = "
begin isolation level read committed read write;
set local statement_timeout = '4s';
set local lock_timeout = '2s';
set local synchronous_commit = off";

/// By primary key. $1 consumer.
const REGISTER: &str = "
insert into {schema}.consumers (consumer)
values ($1)
on conflict (consumer) do update
set started_at = clock_timestamp()";

/// Says that a member of the consumer starts, which has the rights to. If that fails, it starts all the same.
pub(crate) async fn register(pool: &PgPool, schema: &Schema, consumer: &ConsumerName) {
    if let Err(error) = within(LIMIT, write(pool, schema, consumer)).await {
        warn!(%consumer, error = %chain(&error), "the consumer could not be noted in the table consumers; `onceward dead-letters` may not know its name");
    }
}

async fn write(pool: &PgPool, schema: &Schema, consumer: &ConsumerName) -> Result<(), sqlx::Error> {
    let mut session = Session::begin(pool.acquire().await?, SqlStr::from_static(BEGIN)).await?;
    let written = sqlx::query(sql::over(schema, REGISTER))
        .bind(consumer.as_str())
        .execute(session.connection())
        .await;
    match written {
        Ok(_) => session.commit().await,
        Err(error) => {
            session.roll_back(ROLL_BACK).await;
            Err(error)
        }
    }
}

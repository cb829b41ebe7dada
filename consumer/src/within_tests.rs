//! Tests of connections that fall silent.

use onceward_core::Schema;
use sqlx::postgres::PgPoolOptions;

use super::*;
use crate::clock::DatabaseClock;
use crate::commits::Commits;
use crate::transaction::testing::{database, has_a_limit};
use crate::{ConsumerError, schema};

fn of_database<T>(asked: Result<T, ConsumerError>) -> Result<T, sqlx::Error> {
    asked.map_err(|error| {
        let ConsumerError::Database(error) = error else {
            panic!("{error}");
        };
        error
    })
}

#[tokio::test]
async fn whatever_is_asked_at_the_start_has_a_limit() {
    let schema = Schema::default();

    has_a_limit("the clock", async |pool| DatabaseClock::ask(pool).await).await;
    has_a_limit("what a commit waits for", async |pool| {
        Commits::ask(pool).await
    })
    .await;
    has_a_limit("the look at rights", async |pool| {
        schema::rights(pool, &schema).await
    })
    .await;
    has_a_limit("the check", async |pool| {
        of_database(schema::check(pool, &schema, true).await)
    })
    .await;
    has_a_limit("the look at what was altered", async |pool| {
        of_database(schema::altered::refuse(pool, &schema, &[]).await)
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_is_given_back_is_used_again() {
    let (test, _) = database().await;
    let pool = PgPoolOptions::new().max_connections(1);
    let pool = pool.connect(test.url()).await.unwrap();

    let mut backends = Vec::new();
    for _ in 0..2 {
        let mut borrowed = Borrowed::of(&pool).await.unwrap();
        let ask = sqlx::query_scalar("select pg_backend_pid()").fetch_one(borrowed.connection());
        let backend: i32 = within(START, ask).await.unwrap();
        borrowed.give_back();
        backends.push(backend);
    }

    assert_eq!(backends[0], backends[1]);
}

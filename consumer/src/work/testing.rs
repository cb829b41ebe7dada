//! A workshop for tests, in a real database.

use std::sync::Arc;

use onceward_testkit::postgres::Database as TestDatabase;
use tokio_util::sync::CancellationToken;

use super::Workshop;
use crate::clock::DatabaseClock;
use crate::handler::Whole;
use crate::health::Health;
use crate::keeper::Keeper;
use crate::meters::Meters;
use crate::room::Room;
use crate::router::Route;
use crate::transaction::testing;
use crate::types::Types;
use crate::{FailingTypes, Handler, HandlerError, HandlerSettings, Tx};

struct Nothing;

impl Handler for Nothing {
    async fn handle(&self, _: &onceward_core::Message, _: &mut Tx) -> Result<(), HandlerError> {
        Ok(())
    }
}

/// One whose handler does nothing, for all types.
pub(super) async fn workshop_with(keeper: Keeper) -> (TestDatabase, Arc<Workshop>) {
    let route = Route::new("*", Some(Arc::new(Whole(Nothing)))).unwrap();
    workshop_of(keeper, vec![route]).await
}

/// One that has no handler for anything: whatever comes is a dead letter.
pub(super) async fn without_handlers() -> (TestDatabase, Arc<Workshop>) {
    workshop_of(Keeper::new().0, Vec::new()).await
}

async fn workshop_of(keeper: Keeper, routes: Vec<Route>) -> (TestDatabase, Arc<Workshop>) {
    let (test, database) = testing::database().await;
    let clock = DatabaseClock::ask(&database.pool).await.unwrap();
    let shop = Workshop {
        meters: Meters::new(&database.consumer),
        database,
        routes,
        defaults: HandlerSettings::default(),
        clock,
        health: Health::new(),
        kill: CancellationToken::new(),
        types: Types::new(FailingTypes::default()),
        keeper,
        room: Room::of_process(),
    };
    (test, Arc::new(shop))
}

/// Has the database refuse so many dead letters, and then take them.
pub(super) async fn refuse_letters(shop: &Workshop, many: i64) {
    let refuse = format!(
        "create sequence tries;
         create function refuse() returns trigger language plpgsql as $$ begin
           -- What a sequence has given stays so when the transaction is rolled back.
           if nextval('public.tries') <= {many} then
             raise exception 'not yet';
           end if;
           return new;
         end $$;
         create trigger refuse before insert on onceward.dead_letters
         for each row execute function refuse()"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(refuse))
        .execute(&shop.database.pool)
        .await
        .unwrap();
}

/// How often a dead letter was written since, whether or not it was refused.
pub(super) async fn tries(shop: &Workshop) -> i64 {
    sqlx::query_scalar("select case when is_called then last_value else 0 end from tries")
        .fetch_one(&shop.database.pool)
        .await
        .unwrap()
}

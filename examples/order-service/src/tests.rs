use onceward_testkit::postgres::{Database, Postgres};

use super::*;

async fn shop() -> (Database, Shop) {
    let database = Postgres::shared().await.database().await;
    drop(onceward_migrations::run(database.pool()).await.unwrap());
    sqlx::raw_sql(include_str!("../schema.sql"))
        .execute(database.pool())
        .await
        .unwrap();
    let shop = Shop {
        pool: database.pool().clone(),
        outbox: Outbox::new(),
    };
    (database, shop)
}

fn wish(customer: &str) -> Json<Wish> {
    Json(Wish {
        customer: customer.to_owned(),
        cents: 1999,
    })
}

async fn count(shop: &Shop, statement: &'static str) -> i64 {
    sqlx::query_scalar(statement)
        .fetch_one(&shop.pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn an_order_is_written_together_with_its_message() {
    let (_database, shop) = shop().await;

    let (status, Json(order)) = create_order(State(shop.clone()), wish("ada"))
        .await
        .unwrap();

    assert_eq!((status, order.number), (StatusCode::CREATED, 1));
    let messages =
        "select count(*) from onceward.messages m join shop.orders o on o.customer = m.key";
    assert_eq!(count(&shop, messages).await, 1);
}

#[tokio::test]
async fn an_order_that_is_refused_leaves_neither_order_nor_message() {
    let (_database, shop) = shop().await;

    let refused = create_order(State(shop.clone()), wish("")).await;

    assert!(matches!(refused, Err(Failure::Refused(_))), "{refused:?}");
    assert_eq!(count(&shop, "select count(*) from shop.orders").await, 0);
    assert_eq!(
        count(&shop, "select count(*) from onceward.messages").await,
        0
    );
}

use onceward_consumer::Message;
use onceward_memory::MemoryBroker;
use onceward_testkit::postgres::Postgres;
use onceward_testkit::wait;
use serde_json::json;

use super::*;

const SOON: Duration = Duration::from_secs(20);

fn order(number: u64) -> onceward_core::Message {
    let id = Uuid::now_v7();
    let payload = json!({ "id": id, "customer": "ada", "number": number, "cents": 1999 });
    let draft = Message::json(ORDERS, &payload).unwrap().key("ada");
    draft.finish(onceward_core::MAX_PAYLOAD).unwrap().message
}

#[tokio::test]
async fn an_order_that_is_delivered_twice_is_billed_once() {
    let database = Postgres::shared().await.database().await;
    let pool = database.pool().clone();
    drop(onceward_migrations::run(&pool).await.unwrap());
    sqlx::raw_sql(include_str!("../schema.sql"))
        .execute(&pool)
        .await
        .unwrap();
    let broker = MemoryBroker::new();
    let (first, second) = (order(1), order(2));
    for message in [first.clone(), first, second] {
        broker.publish(message).unwrap();
    }

    let billing = Billing { fail_one_in: None };
    let consumer = Consumer::builder(CONSUMER)
        .pool(pool.clone())
        .on_with(ORDERS, billing, write_invoice)
        .build()
        .unwrap();
    let stop = CancellationToken::new();
    let member = broker.subscriber(CONSUMER, &[ORDERS]);
    let running = tokio::spawn(consumer.run(member, stop.clone()));

    // The second order comes after both copies of the first.
    let count = || async {
        let invoices = "select count(*), count(distinct order_id) from billing.invoices";
        let counts: (i64, i64) = sqlx::query_as(invoices).fetch_one(&pool).await.unwrap();
        (counts.1 == 2).then_some(counts)
    };
    assert_eq!(
        wait::until(SOON, "both orders to be billed", count).await,
        (2, 2)
    );
    stop.cancel();
    running.await.unwrap().unwrap();
}

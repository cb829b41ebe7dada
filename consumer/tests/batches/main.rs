//! Several messages in one transaction: once, in order, and the guilty one alone pays.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../common/mod.rs"]
mod common;
mod failing;
mod forming;
mod keys;
mod settings;

use common::{Order, SOON, Stage, quick};
use onceward_consumer::{BatchSettings, BatchTx, HandlerError, HandlerSettings, Settled};
use onceward_core::{MAX_PAYLOAD, Message};

async fn write_all(events: Vec<Order>, tx: &mut BatchTx) -> Result<(), HandlerError> {
    assert_eq!(events.len(), tx.messages().len());
    let orders: Vec<i64> = events.iter().map(|event| event.order).collect();
    let keys = tx.idempotency_keys().to_vec();
    sqlx::query(
        "insert into effects (order_id, message) select * from unnest($1::bigint[], $2::uuid[])",
    )
    .bind(orders)
    .bind(keys)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// How many messages each transaction has handled, in the order of the transactions.
async fn sizes(stage: &Stage) -> Vec<i64> {
    sqlx::query_scalar("select count(*) from effects group by xmin order by min(n)")
        .fetch_all(stage.pool())
        .await
        .unwrap()
}

async fn all_of(stage: &Stage, builder: onceward_consumer::ConsumerBuilder) -> Settled {
    let subscriber = stage.broker.subscriber("billing", &[common::TOPIC]);
    let consumer = builder.build().unwrap();
    let settled = consumer.run_until_idle(subscriber);
    tokio::time::timeout(SOON, settled).await.unwrap().unwrap()
}

fn of(batch: BatchSettings) -> HandlerSettings {
    HandlerSettings { batch, ..quick(3) }
}

impl Stage {
    fn publish_with(&self, order: i64, change: impl FnOnce(&mut Message)) {
        let event = serde_json::json!({ "order": order });
        let draft = Message::json(common::TOPIC, &event).unwrap();
        let mut message = draft.key(order).finish(MAX_PAYLOAD).unwrap().message;
        message.seq = Some(order + 1);
        change(&mut message);
        self.broker.publish(message).unwrap();
    }

    async fn sorted_effects(&self) -> Vec<i64> {
        let mut effects = self.effects().await;
        effects.sort_unstable();
        effects
    }
}

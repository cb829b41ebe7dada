//! When a batch is full, and when it starts.

use std::time::Duration;

use onceward_consumer::BatchSettings;

use super::{all_of, of, sizes, write_all};
use crate::common::Stage;

#[tokio::test]
async fn what_is_there_is_handled_in_one_transaction_and_each_message_is_marked() {
    let stage = Stage::new().await;
    for order in 0..50 {
        stage.publish(order, Some(order % 7));
    }
    stage.publish(50, None);

    let settled = all_of(&stage, stage.builder().on_batch("orders.*", write_all)).await;

    assert_eq!(settled.handled, 51);
    assert_eq!(sizes(&stage).await, [51]);
    assert_eq!(stage.outcomes().await, vec![0; 51]);
    stage.in_order(7).await;
    let same: i64 = sqlx::query_scalar(
        "select count(*) from effects e
         join onceward.processed_messages p on p.message_id = e.message and p.xmin = e.xmin",
    )
    .fetch_one(stage.pool())
    .await
    .unwrap();
    assert_eq!(same, 51, "each effect with the mark of its own message");
}

#[tokio::test]
async fn a_batch_keeps_its_limits_of_messages_and_of_bytes() {
    for (settings, most) in [
        (
            BatchSettings {
                messages: 8,
                ..BatchSettings::default()
            },
            8,
        ),
        (
            BatchSettings {
                bytes: 1,
                ..BatchSettings::default()
            },
            1,
        ),
    ] {
        let stage = Stage::new().await;
        for order in 0..20 {
            stage.publish(order, Some(order % 3));
        }

        let builder = stage.builder().on_batch("*", write_all);
        all_of(&stage, builder.with(of(settings))).await;

        let sizes = sizes(&stage).await;
        assert_eq!(sizes.iter().sum::<i64>(), 20);
        assert!(sizes.iter().all(|size| *size <= most), "{sizes:?}");
        stage.in_order(3).await;
    }
}

#[tokio::test]
async fn a_batch_waits_for_more_until_it_is_full() {
    let stage = Stage::new().await;
    let settings = BatchSettings {
        messages: 5,
        wait: Duration::from_secs(60),
        ..BatchSettings::default()
    };
    let builder = stage.builder().on_batch("*", write_all);
    let running = stage.run(builder.with(of(settings)));
    for order in 0..5 {
        stage.publish(order, Some(order % 2));
        tokio::task::yield_now().await;
    }
    stage.settled(5).await;
    assert_eq!(sizes(&stage).await, [5]);

    running.stop().await;

    assert_eq!(stage.sorted_effects().await, [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn a_batch_that_is_not_full_starts_when_its_wait_is_over() {
    let stage = Stage::new().await;
    let settings = BatchSettings {
        wait: Duration::from_millis(300),
        ..BatchSettings::default()
    };
    for order in 0..3 {
        stage.publish(order, None);
    }

    let builder = stage.builder().on_batch("*", write_all);
    let settled = all_of(&stage, builder.with(of(settings))).await;

    assert_eq!(settled.handled, 3);
    assert_eq!(sizes(&stage).await, [3]);
}

//! A handler that blocks its thread cannot be ended; it is counted.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::sync::{Arc, Barrier};
use std::time::Duration;

use common::{Order, SOON, Stage, effect, quick};
use metrics_exporter_prometheus::PrometheusBuilder;
use onceward_consumer::{HandlerError, HandlerSettings, Tx};
use onceward_testkit::wait;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_blocks_its_thread_is_counted_once() {
    async fn blocks(gate: Arc<Barrier>, event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        if tx.attempt() == 1 {
            gate.wait();
        }
        effect(event.order, tx).await
    }
    let recorder = PrometheusBuilder::new().build_recorder();
    let shown = recorder.handle();
    metrics::set_global_recorder(recorder).unwrap();
    let stage = Stage::new().await;
    let gate = Arc::new(Barrier::new(2));
    stage.publish(1, None);
    let settings = HandlerSettings {
        deadline: Duration::from_millis(200),
        ..quick(3)
    };

    let builder = stage.builder().on_with("*", gate.clone(), blocks);
    let running = stage.run(builder.with(settings));
    let line = r#"onceward_handler_overdue_total{consumer="billing"} 1"#;
    wait::until_true(SOON, line, || async {
        shown.render().lines().any(|one| one == line)
    })
    .await;
    tokio::task::spawn_blocking(move || gate.wait())
        .await
        .unwrap();
    // The server has ended the first attempt's transaction long ago; the next one has its effect.
    stage.settled(1).await;
    running.stop().await;

    assert_eq!(stage.effects().await, [1]);
    assert!(shown.render().lines().any(|one| one == line));
}

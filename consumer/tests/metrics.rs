//! What a consumer counts, as Prometheus sees it.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::time::Duration;

use common::{SOON, Stage, write_effect};
use metrics_exporter_prometheus::PrometheusBuilder;
use onceward_testkit::wait;

// On one thread, so that the recorder of this test is that of all its tasks.
#[tokio::test]
async fn outcomes_durations_lag_and_dead_letters_are_told() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let shown = recorder.handle();
    let _ours = metrics::set_default_local_recorder(&recorder);
    let stage = Stage::new().await;
    stage.put(&[], b"no json");
    for order in 1..=3 {
        stage.publish(order, Some(1));
    }
    let outcome = |outcome: &str, count: u64| {
        format!(r#"onceward_handled_total{{consumer="billing",outcome="{outcome}"}} {count}"#)
    };

    stage.broker.drop_acks(true);
    let first = stage.run(stage.builder().on("*", write_effect));
    stage.settled(4).await;
    first.kill().await;
    stage.broker.drop_acks(false);
    let second = stage.run(stage.builder().on("*", write_effect));
    let wanted = [
        outcome("handled", 3),
        outcome("dead", 1),
        outcome("duplicate", 4),
        r#"onceward_handler_failures_total{consumer="billing"} 1"#.to_owned(),
        r#"onceward_dead_letters{consumer="billing"} 1"#.to_owned(),
        // Nothing waits any more.
        r#"onceward_consumer_lag_seconds{consumer="billing"} 0"#.to_owned(),
        r#"onceward_handle_duration_seconds_count{consumer="billing"} 8"#.to_owned(),
    ];
    wait::until_true(SOON + Duration::from_secs(10), "all metrics", || async {
        let shown = shown.render();
        wanted
            .iter()
            .all(|line| shown.lines().any(|one| one == line))
    })
    .await;
    second.stop().await;
}

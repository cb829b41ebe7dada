//! What the relay counts, in the form that Prometheus reads.

use std::fmt;
use std::time::Duration;

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

/// From a local broker's answer to a night's outage, in seconds.
const SECONDS: [f64; 18] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    300.0, 1_800.0, 14_400.0,
];

/// How often what was observed is put into its buckets; without that it would pile up until somebody asks.
const UPKEEP: Duration = Duration::from_secs(5);

/// What this process has counted.
#[derive(Clone)]
pub(crate) struct Metrics {
    handle: PrometheusHandle,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Counts for the whole process from here on.
    pub(crate) fn install() -> Result<Self, BuildError> {
        let handle = builder()?.install_recorder()?;
        describe();
        Ok(Self { handle })
    }

    /// Everything, as text.
    pub(super) fn render(&self) -> String {
        self.handle.render()
    }

    /// Keeps the buckets up to date until told to stop.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(UPKEEP);
        loop {
            tokio::select! {
                _ = tick.tick() => self.handle.run_upkeep(),
                () = stop.cancelled() => return,
            }
        }
    }

    #[cfg(test)]
    pub(super) fn of_this_test() -> (Self, impl metrics::Recorder) {
        let recorder = builder().unwrap().build_recorder();
        let handle = recorder.handle();
        (Self { handle }, recorder)
    }
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
}

fn describe() {
    describe_counter!(
        "onceward_published_total",
        "Messages that the broker has confirmed."
    );
    describe_counter!(
        "onceward_parked_total",
        "Messages that were set aside because the broker refuses them."
    );
    describe_counter!(
        "onceward_unrouted_total",
        "Messages seen in the log whose topic no stream reads."
    );
    describe_gauge!(
        "onceward_lease_held",
        "1 while this relay publishes the stream."
    );
    describe_gauge!("onceward_in_flight", "Messages read and not yet confirmed.");
    describe_gauge!(
        "onceward_outbox_depth",
        "Highest seq less the cursor: an estimate of what waits."
    );
    describe_gauge!("onceward_parked", "Messages that wait for a person.");
    describe_gauge!(
        "onceward_message_age_seconds",
        Unit::Seconds,
        "Age of the oldest message that is not published."
    );
    describe_histogram!(
        "onceward_publish_duration_seconds",
        Unit::Seconds,
        "From handing messages over to the broker's answer."
    );
    describe_histogram!(
        "onceward_commit_to_confirm_seconds",
        Unit::Seconds,
        "From writing a message to the broker's confirmation."
    );
}

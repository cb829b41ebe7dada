//! What one stream counts.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use onceward_core::{Lane, Outgoing};
use time::OffsetDateTime;

/// The metrics of one stream.
pub(super) struct StreamMetrics {
    lanes: [LaneMetrics; 3],
    parked: Counter,
    unrouted: Counter,
    lease_held: Gauge,
    in_flight: Gauge,
    detours: Gauge,
    publish_duration: Histogram,
}

struct LaneMetrics {
    published: Counter,
    commit_to_confirm: Histogram,
}

impl StreamMetrics {
    pub(super) fn new(stream: &str) -> Self {
        let lane = |lane: Lane| {
            let labels = [
                ("stream", stream.to_owned()),
                ("lane", lane.name().to_owned()),
            ];
            LaneMetrics {
                published: counter!("onceward_published_total", &labels),
                commit_to_confirm: histogram!("onceward_commit_to_confirm_seconds", &labels),
            }
        };
        let labels = [("stream", stream.to_owned())];
        Self {
            lanes: Lane::ALL.map(lane),
            parked: counter!("onceward_parked_total", &labels),
            unrouted: counter!("onceward_unrouted_total", &labels),
            lease_held: gauge!("onceward_lease_held", &labels),
            in_flight: gauge!("onceward_in_flight", &labels),
            detours: gauge!("onceward_detours", &labels),
            publish_duration: histogram!("onceward_publish_duration_seconds", &labels),
        }
    }

    /// The broker has a message; `now` is the database's time.
    pub(super) fn published(&self, lane: Lane, outgoing: &Outgoing, now: OffsetDateTime) {
        let lane = self.lane(lane);
        lane.published.increment(1);
        if let Some(written) = outgoing.message.time {
            let seconds = (now - written).as_seconds_f64();
            lane.commit_to_confirm.record(seconds.max(0.0));
        }
    }

    /// The receipts of an offer came this long after it was handed over.
    pub(super) fn answered(&self, took: Duration) {
        self.publish_duration.record(took);
    }

    pub(super) fn parked(&self, count: usize) {
        self.parked.increment(count as u64);
    }

    pub(super) fn unrouted(&self, count: usize) {
        self.unrouted.increment(count as u64);
    }

    pub(super) fn held(&self, held: bool) {
        self.lease_held.set(if held { 1.0 } else { 0.0 });
        self.in_flight(0);
        if !held {
            self.detours(0);
        }
    }

    /// So many detours are open.
    #[expect(clippy::cast_precision_loss, reason = "at most some dozens")]
    pub(super) fn detours(&self, open: usize) {
        self.detours.set(open as f64);
    }

    /// So many messages are read and not confirmed.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a gauge is a float; the window's bound fits"
    )]
    pub(super) fn in_flight(&self, messages: usize) {
        self.in_flight.set(messages as f64);
    }

    fn lane(&self, lane: Lane) -> &LaneMetrics {
        match lane {
            Lane::Critical => &self.lanes[0],
            Lane::Standard => &self.lanes[1],
            Lane::Bulk => &self.lanes[2],
        }
    }
}

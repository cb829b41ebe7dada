//! What the stream tells about itself while this relay holds it.

use std::time::{Duration, Instant};

use super::holder::Holder;
use super::status::Paused;
use crate::destination::Destination;
use crate::pause::Pause;

/// How often the status is brought up to date.
const REPORT_EVERY: Duration = Duration::from_millis(200);

impl<D: Destination> Holder<D> {
    /// Brings the status up to date, if it is time.
    pub(super) fn report(&mut self, now: Instant) {
        if now < self.report_at {
            return;
        }
        self.report_at = now + REPORT_EVERY;
        let destination_paused = self.pauses.destination().map(|p| paused("", p));
        let paused_topics = self.paused_topics();
        let in_flight = self.window.open();
        self.metrics.in_flight(in_flight);
        self.status.update(|status| {
            status.destination_paused = destination_paused;
            status.paused_topics = paused_topics;
            status.in_flight = in_flight;
        });
    }

    /// The paused routes, by name.
    pub(super) fn paused_topics(&self) -> Vec<Paused> {
        let topics = self.pauses.topics();
        let mut paused: Vec<Paused> = topics
            .map(|(route, pause)| paused(route.as_str(), pause))
            .collect();
        paused.sort_by(|a, b| a.route.cmp(&b.route));
        paused
    }
}

fn paused(route: &str, pause: &Pause) -> Paused {
    Paused {
        route: route.to_owned(),
        kind: pause.refusal.kind.name(),
        what: pause.refusal.what.clone(),
        since: pause.since,
        attempt: pause.attempt,
    }
}

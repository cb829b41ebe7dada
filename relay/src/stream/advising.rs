//! The stream's look at the settings of its destination. It has a session of its own, so that publishing waits for nothing.

use std::sync::Arc;
use std::time::Instant;

use onceward_core::TopicReport;
use tracing::{debug, warn};

use super::advice::News;
use super::holder::Holder;
use super::jobs;
use crate::destination::Destination;
use crate::plan::chain;

impl<D: Destination> Holder<D> {
    /// Takes note of the routes that the settings name whole.
    pub(super) fn begin_advice(&mut self, now: Instant) {
        self.advice.begin(now);
        for route in self.settings.known_routes(&[]) {
            self.advice.meet(&route, now);
        }
    }

    /// Asks the destination about routes that were met, if it is time.
    pub(super) fn advise(&mut self, now: Instant) {
        if self.draining.is_some() {
            return;
        }
        for routes in self.routing.take_met() {
            for route in routes.iter() {
                self.advice.meet(route, now);
            }
        }
        let routes = self.advice.next(now);
        if !routes.is_empty() {
            let destination = Arc::clone(&self.destination);
            self.jobs
                .spawn(async move { jobs::advise(&*destination, &routes).await });
        }
    }

    pub(super) fn on_advised(&mut self, reports: &[TopicReport]) {
        for report in reports {
            let why = match &report.state {
                Ok(state) => state.unread.clone(),
                Err(error) => Some(chain(error)),
            };
            if let Some(why) = why {
                let (stream, route) = (&self.settings.name, &report.route);
                debug!(%stream, %route, error = %why, "settings not told; will ask again");
            }
        }
        let news = self.advice.answered(reports, Instant::now());
        self.tell(&news);
    }

    /// Logs what the destination says about its settings.
    pub(super) fn tell(&self, news: &[News]) {
        for one in news {
            warn!(
                stream = %self.settings.name, routes = one.names(), warning = one.warning,
                "the destination has a setting to look at; `onceward doctor` names all"
            );
        }
    }
}

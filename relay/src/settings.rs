//! What a stream is run by, apart from where its database and its broker are.

use std::collections::BTreeSet;
use std::time::Duration;

pub use onceward::{PublishAfter, Start, UnroutedPolicy as Unrouted};
use onceward_core::{Route, RouteTemplate, Source, Topic, TopicGlob};

use crate::window::Bounds;

/// What becomes of the later messages of a key when one of it is refused for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnRefusal {
    /// They are published; the refused one is set aside for a person.
    #[default]
    GoOn,
    /// They wait until a person has decided on the refused one, which then comes before them. Other keys go on.
    Hold,
}

/// How one stream reads and publishes. [`StreamSettings::new`] fills in what most need.
///
/// The bounds below are those that the configuration enforces; whoever sets a field by hand keeps to them.
#[derive(Debug, Clone)]
pub struct StreamSettings {
    /// The stream's name: `[a-z][a-z0-9_]*`, at most 63 bytes.
    pub name: String,
    /// Which topics it reads.
    pub topics: Vec<TopicGlob>,
    /// The broker's name for each topic.
    pub route: RouteTemplate,
    /// The CloudEvents source of every message.
    pub source: Source,
    /// Where a new stream begins.
    pub start: Start,
    /// What becomes of topics that no stream reads.
    pub unrouted: Unrouted,
    /// What becomes of the later messages of a key when one of it is refused for good.
    pub on_refusal: OnRefusal,
    /// When a message that can be read may be published.
    pub publish_after: PublishAfter,
    /// How long the lease lasts without being renewed; another relay takes over within it. 1 s to 5 min.
    pub lease_ttl: Duration,
    /// The longest wait between two polls of a log where nothing of the stream's own comes. 1 ms to 10 s.
    pub poll_ceiling: Duration,
    /// The most messages of one read and lane, and of one offer. 1 to 10,000.
    pub chunk: usize,
    /// The most messages read and not yet confirmed, all lanes together; each lane has a third. 1 to 1,000,000.
    pub in_flight_messages: usize,
    /// The most bytes of messages read and not yet confirmed, about; one larger message still passes. 64 KiB to 4 GiB.
    pub in_flight_bytes: usize,
    /// The most messages of one route read and not yet confirmed, so that one that waits does not fill the window at
    /// once. 1 to 1,000,000.
    pub in_flight_per_topic: usize,
    /// How long a topic is paused before it gets a detour, and the stream goes on without it. 0 s to 1 h.
    pub detour_after: Duration,
    /// How long a broker may take to confirm an offer before it counts as unknown. 1 s to 10 min.
    pub offer_deadline: Duration,
    /// How long a stop waits for what is in flight; what is not confirmed then is published again. 0 s to 10 min.
    pub drain: Duration,
}

impl StreamSettings {
    /// Settings for a stream of all topics.
    #[must_use]
    pub fn new(name: impl Into<String>, source: Source) -> Self {
        Self {
            name: name.into(),
            topics: vec![TopicGlob::all()],
            route: RouteTemplate::default(),
            source,
            start: Start::default(),
            unrouted: Unrouted::default(),
            on_refusal: OnRefusal::default(),
            publish_after: PublishAfter::default(),
            lease_ttl: Duration::from_secs(10),
            poll_ceiling: Duration::from_millis(19),
            chunk: 2_500,
            in_flight_messages: 30_000,
            in_flight_bytes: 16 << 20,
            in_flight_per_topic: 10_000,
            detour_after: Duration::from_secs(30),
            offer_deadline: Duration::from_secs(30),
            drain: Duration::from_secs(10),
        }
    }

    /// The routes that are known where these topics were seen: theirs, those of topics that are named whole, each that has a name
    /// of its own, and a `route` that hangs on no topic.
    pub(crate) fn known_routes(&self, seen: &[Topic]) -> BTreeSet<Route> {
        let globs = &self.topics;
        let named = globs
            .iter()
            .filter_map(|glob| Topic::try_from(glob.as_str()).ok());
        let read = |topic: &&Topic| globs.iter().any(|glob| glob.matches(topic.as_str()));
        let topics = seen.iter().filter(read).cloned().chain(named);
        let routes = topics.flat_map(|topic| {
            let routes = self.route.routes(&topic);
            routes.iter().cloned().collect::<Vec<_>>()
        });
        let mut routes: BTreeSet<Route> = routes.collect();
        routes.extend(self.route.named().map(|(_, route)| route.clone()));
        // Where each topic is named whole, those that take the template are known already.
        let open = globs
            .iter()
            .any(|glob| Topic::try_from(glob.as_str()).is_err());
        if let Some(fixed) = self.route.fixed().filter(|_| open) {
            routes.extend(fixed.iter().cloned());
        }
        routes
    }

    pub(crate) fn bounds(&self) -> Bounds {
        Bounds {
            messages: self.in_flight_messages,
            bytes: self.in_flight_bytes,
            per_route: self.in_flight_per_topic,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(topics: &[&str], template: &str, named: &[(&str, &str)]) -> Vec<String> {
        let source = Source::try_from("/shop").unwrap();
        let named = named
            .iter()
            .map(|(topic, route)| ((*topic).to_owned(), (*route).to_owned()));
        let globs = topics
            .iter()
            .map(|text| TopicGlob::try_from(*text).unwrap());
        let settings = StreamSettings {
            topics: globs.collect(),
            route: RouteTemplate::new(template, named.collect()).unwrap(),
            ..StreamSettings::new("events", source)
        };
        let routes = settings.known_routes(&[]).into_iter();
        routes.map(|route| route.to_string()).collect()
    }

    #[test]
    fn routes_that_hang_on_no_topic_are_known_while_the_log_is_empty() {
        assert_eq!(known(&["orders.*"], "all.fifo", &[]), ["all.fifo"]);
        assert_eq!(
            known(&["orders.*"], "{topic}", &[("orders.paid", "paid.fifo")]),
            ["paid.fifo"]
        );
        assert_eq!(
            known(&["orders"], "never", &[("orders", "orders.fifo")]),
            ["orders.fifo"]
        );
        assert!(known(&["orders.*"], "{topic}", &[]).is_empty());
    }
}

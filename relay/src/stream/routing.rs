//! Decides where a row of the log goes. Pure.

use std::collections::HashMap;

use onceward::StoredGlobs;
use onceward_core::{RouteTemplate, Routes, Topic, TopicGlob};

/// Where messages of one topic go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    /// To one of these routes: the topic is the stream's.
    Publish(Routes),
    /// Another stream reads the topic.
    Elsewhere,
    /// No stream reads the topic.
    Unrouted,
}

/// Knows the way of every topic seen so far.
#[derive(Debug)]
pub(super) struct Routing {
    own: Vec<TopicGlob>,
    template: RouteTemplate,
    /// What the streams of the database read; none until it is known.
    stored: Option<StoredGlobs>,
    known: HashMap<Topic, Way>,
    /// Routes of topics that were met and not taken since.
    met: Vec<Routes>,
}

/// Topics remembered at most; beyond that they are worked out anew.
const REMEMBERED: usize = 10_000;

impl Routing {
    pub(super) fn new(own: Vec<TopicGlob>, template: RouteTemplate) -> Self {
        Self {
            own,
            template,
            stored: None,
            known: HashMap::new(),
            met: Vec::new(),
        }
    }

    /// Takes note of what the streams of the database read.
    pub(super) fn set_stored(&mut self, stored: StoredGlobs) {
        if self.stored.as_ref() != Some(&stored) {
            self.stored = Some(stored);
            self.known.clear();
        }
    }

    /// Whether it is known what the streams of the database read. Before, nobody can tell what is unrouted.
    pub(super) fn is_ready(&self) -> bool {
        self.stored.is_some()
    }

    /// The way of a topic.
    pub(super) fn way(&mut self, topic: &Topic) -> Way {
        if let Some(way) = self.known.get(topic) {
            return way.clone();
        }
        let way = self.work_out(topic);
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        if let Way::Publish(routes) = &way {
            self.met.push(routes.clone());
        }
        self.known.insert(topic.clone(), way.clone());
        way
    }

    /// The routes of topics that were met since the last call. Some may have been met before.
    pub(super) fn take_met(&mut self) -> Vec<Routes> {
        std::mem::take(&mut self.met)
    }

    fn work_out(&self, topic: &Topic) -> Way {
        if self.own.iter().any(|glob| glob.matches(topic.as_str())) {
            Way::Publish(self.template.routes(topic))
        } else if self
            .stored
            .as_ref()
            .is_none_or(|stored| stored.read(topic.as_str()))
        {
            Way::Elsewhere
        } else {
            Way::Unrouted
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn glob(text: &str) -> TopicGlob {
        TopicGlob::try_from(text).unwrap()
    }

    fn topic(text: &str) -> Topic {
        Topic::try_from(text).unwrap()
    }

    #[test]
    fn a_topic_goes_to_its_route_or_to_another_stream_or_nowhere() {
        let mut routing = Routing::new(vec![glob("orders.*")], RouteTemplate::default());
        routing.set_stored(StoredGlobs(vec![glob("orders.*"), glob("payments.*")]));

        assert_eq!(
            routing.way(&topic("orders.created")),
            Way::Publish(RouteTemplate::default().routes(&topic("orders.created")))
        );
        assert_eq!(routing.way(&topic("payments.made")), Way::Elsewhere);
        assert_eq!(routing.way(&topic("stock.low")), Way::Unrouted);
    }

    #[test]
    fn routes_are_met_with_the_first_message_of_a_topic_that_is_the_streams() {
        let mut routing = Routing::new(vec![glob("orders.*")], RouteTemplate::default());
        for text in ["orders.paid", "stock.low", "orders.paid"] {
            routing.way(&topic(text));
        }

        let routes = RouteTemplate::default().routes(&topic("orders.paid"));
        assert_eq!(routing.take_met(), [routes]);
        assert!(routing.take_met().is_empty());
    }

    #[test]
    fn a_stream_that_appears_takes_over_what_was_unrouted() {
        let mut routing = Routing::new(vec![glob("orders.*")], RouteTemplate::default());
        routing.set_stored(StoredGlobs(vec![glob("orders.*")]));
        assert_eq!(routing.way(&topic("stock.low")), Way::Unrouted);

        routing.set_stored(StoredGlobs(vec![glob("orders.*"), glob("stock.*")]));

        assert_eq!(routing.way(&topic("stock.low")), Way::Elsewhere);
    }
}

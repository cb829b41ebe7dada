//! The broker's own name for a topic.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::Topic;

/// The broker's name for a topic: a Kafka topic, a NATS subject, an SQS queue.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route(Arc<str>);

impl Route {
    /// A route, taken as it is: its broker judges it.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The route as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a route template is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the route {template:?} {problem}; it may hold {{topic}} and plain text")]
pub struct InvalidRoute {
    /// The template as given.
    pub template: String,
    /// What is wrong with it.
    pub problem: String,
}

/// Gives each topic its route: by name where one is listed, else by a template such as `shop.{topic}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteTemplate {
    parts: Vec<Part>,
    named: BTreeMap<String, Route>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Topic,
}

impl RouteTemplate {
    /// Reads a template and the topics whose routes differ from it.
    ///
    /// # Errors
    /// [`InvalidRoute`] for an empty template or route, a brace that is not closed or a placeholder that is not known.
    pub fn new(template: &str, named: BTreeMap<String, String>) -> Result<Self, InvalidRoute> {
        let refuse = |problem: &str| InvalidRoute {
            template: template.to_owned(),
            problem: problem.to_owned(),
        };
        let mut parts = Vec::new();
        let mut rest = template;
        while let Some(open) = rest.find('{') {
            if open > 0 {
                parts.push(Part::Text(rest[..open].to_owned()));
            }
            let close = rest[open..]
                .find('}')
                .ok_or_else(|| refuse("has a { without its }"))?;
            match &rest[open + 1..open + close] {
                "topic" => parts.push(Part::Topic),
                other => return Err(refuse(&format!("holds the unknown {{{other}}}"))),
            }
            rest = &rest[open + close + 1..];
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        if parts.is_empty() {
            return Err(refuse("is empty"));
        }
        if let Some((topic, _)) = named.iter().find(|(_, route)| route.is_empty()) {
            return Err(InvalidRoute {
                template: topic.clone(),
                problem: "has an empty route".to_owned(),
            });
        }
        let named = named
            .into_iter()
            .map(|(topic, route)| (topic, Route::new(&route)))
            .collect();
        Ok(Self { parts, named })
    }

    /// The topics whose routes are listed by name, with these.
    pub fn named(&self) -> impl Iterator<Item = (&str, &Route)> {
        self.named
            .iter()
            .map(|(topic, route)| (topic.as_str(), route))
    }

    /// The route of a topic.
    #[must_use]
    pub fn route(&self, topic: &Topic) -> Route {
        if let Some(route) = self.named.get(topic.as_str()) {
            return route.clone();
        }
        let mut name = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => name.push_str(text),
                Part::Topic => name.push_str(topic.as_str()),
            }
        }
        Route::new(&name)
    }
}

impl RouteTemplate {
    /// Whether another topic, out of those that `read` says are read, may have the route of this one. In doubt it may.
    pub fn is_shared(&self, topic: &Topic, read: impl Fn(&str) -> bool) -> bool {
        let route = self.route(topic);
        let named = |name: &str| self.named.contains_key(name);
        let others = self
            .named
            .iter()
            .filter(|(name, _)| *name != topic.as_str());
        if others.map(|(_, route)| route).any(|other| *other == route) {
            return true;
        }
        match &self.parts[..] {
            [Part::Text(text)] => !named(topic.as_str()) || text == route.as_str(),
            _ if !named(topic.as_str()) => false,
            parts => {
                let text = |part: Option<&Part>| match part {
                    Some(Part::Text(text)) => text.clone(),
                    Some(Part::Topic) | None => String::new(),
                };
                let (before, after) = (text(parts.first()), text(parts.last()));
                let inner = route.as_str().strip_prefix(before.as_str());
                let inner = inner.and_then(|rest| rest.strip_suffix(after.as_str()));
                let several = parts.iter().filter(|part| **part == Part::Topic).count() > 1;
                inner.is_some_and(|name| several || (!named(name) && read(name)))
            }
        }
    }
}

impl Default for RouteTemplate {
    fn default() -> Self {
        Self {
            parts: vec![Part::Topic],
            named: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic() -> Topic {
        Topic::try_from("orders.created").unwrap()
    }

    #[test]
    fn a_template_puts_the_topic_in_its_place() {
        let template = RouteTemplate::new("shop.{topic}.v1", BTreeMap::new()).unwrap();

        assert_eq!(template.route(&topic()).as_str(), "shop.orders.created.v1");
        assert_eq!(
            RouteTemplate::default().route(&topic()).as_str(),
            "orders.created"
        );
    }

    #[test]
    fn a_named_topic_has_its_own_route() {
        let named = BTreeMap::from([("orders.created".to_owned(), "legacy".to_owned())]);
        let template = RouteTemplate::new("{topic}", named).unwrap();

        assert_eq!(template.route(&topic()).as_str(), "legacy");
    }

    #[test]
    fn it_is_known_which_topics_may_share_a_route() {
        let named = |pairs: &[(&str, &str)]| {
            let pairs = pairs
                .iter()
                .map(|(topic, route)| ((*topic).to_owned(), (*route).to_owned()));
            pairs.collect::<BTreeMap<_, _>>()
        };
        let shared = |template: &str, pairs: &[(&str, &str)], read: bool| {
            let template = RouteTemplate::new(template, named(pairs)).unwrap();
            template.is_shared(&topic(), |_| read)
        };

        assert!(!shared("{topic}", &[], true));
        assert!(!shared("shop.{topic}", &[("other", "legacy")], true));
        assert!(shared("events", &[], true));
        assert!(!shared("events", &[("orders.created", "legacy")], true));
        assert!(shared("events", &[("orders.created", "events")], true));
        assert!(shared("{topic}", &[("other", "orders.created")], true));
        assert!(shared("{topic}", &[("orders.created", "legacy")], true));
        assert!(!shared("{topic}", &[("orders.created", "legacy")], false));
        assert!(!shared(
            "shop.{topic}",
            &[("orders.created", "legacy")],
            true
        ));
    }

    #[test]
    fn a_broken_template_is_refused_with_what_is_allowed() {
        for text in ["", "{topic", "{key}"] {
            let error = RouteTemplate::new(text, BTreeMap::new()).unwrap_err();

            assert!(error.to_string().contains("{topic}"), "{error}");
        }
    }
}

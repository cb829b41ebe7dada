//! The broker's own name for a topic.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::{Key, MessageId, Topic};

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
#[error(
    "the route {template:?} {problem}; it may hold {{topic}}, {{partition/N}} with N from 1 to 256, and plain text"
)]
pub struct InvalidRoute {
    /// The template as given.
    pub template: String,
    /// What is wrong with it.
    pub problem: String,
}

/// The most parts that a template may spread a topic over.
const MOST_PARTITIONS: u32 = 256;

/// Gives each topic its route: by name where one is listed, else by a template such as `shop.{topic}`.
///
/// A template with `{partition/8}` gives a topic eight routes, which differ in a number from 0 to 7. A key always has the same
/// one; see [`Routes::of`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteTemplate {
    parts: Vec<Part>,
    partitions: u32,
    named: BTreeMap<String, Route>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Topic,
    Partition,
}

/// The routes of one topic: one, or as many as the template has partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routes(Arc<[Route]>);

impl Routes {
    /// The route of a message. Its number is the 32 bit FNV-1a hash of the key's bytes modulo the number of partitions, as in
    /// the NATS server's own `partition()` mapping by its source; a message without a key goes by the bytes of its id.
    #[must_use]
    pub fn of(&self, key: Option<&Key>, id: &MessageId) -> Route {
        match (key, id) {
            (Some(key), _) => self.of_key(key),
            (None, MessageId::Uuid(id) | MessageId::Position(id)) => self.by(id.as_bytes()),
            (None, MessageId::Foreign(id)) => self.by(id.as_bytes()),
        }
    }

    /// The route of all messages with this key.
    #[must_use]
    pub fn of_key(&self, key: &Key) -> Route {
        self.by(key.as_str().as_bytes())
    }

    fn by(&self, bytes: &[u8]) -> Route {
        let at = if self.0.len() > 1 {
            place(bytes, self.0.len())
        } else {
            0
        };
        self.0.get(at).cloned().unwrap_or_else(|| Route::new(""))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.0.iter()
    }
}

fn check_named(named: &BTreeMap<String, String>) -> Result<(), InvalidRoute> {
    for (topic, route) in named {
        let problem = if route.is_empty() {
            "has an empty route"
        } else if route.contains(['{', '}']) {
            "has a route of its own with braces, which would be taken as they are"
        } else {
            continue;
        };
        return Err(InvalidRoute {
            template: topic.clone(),
            problem: problem.to_owned(),
        });
    }
    Ok(())
}

/// Whether the number of a partition can be told from what is beside it: two topics must not come to one route.
fn apart(parts: &[Part]) -> bool {
    let apart = |pair: &[Part]| match pair {
        [Part::Partition, Part::Text(text)] => !text.starts_with(|c: char| c.is_ascii_digit()),
        [Part::Text(text), Part::Partition] => !text.ends_with(|c: char| c.is_ascii_digit()),
        pair => !pair.contains(&Part::Partition),
    };
    parts.windows(2).all(apart)
}

fn place(bytes: &[u8], count: usize) -> usize {
    let hash = bytes.iter().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    usize::try_from(hash).unwrap_or_default() % count
}

impl RouteTemplate {
    /// Reads a template and the topics whose routes differ from it.
    ///
    /// # Errors
    /// [`InvalidRoute`] for an empty template or route, a brace that is not closed, a placeholder that is not known, partitions
    /// outside 1 to 256 or in two numbers, a partition that runs into what is beside it, or braces in a route by name.
    pub fn new(template: &str, named: BTreeMap<String, String>) -> Result<Self, InvalidRoute> {
        let refuse = |problem: &str| InvalidRoute {
            template: template.to_owned(),
            problem: problem.to_owned(),
        };
        let mut parts = Vec::new();
        let mut partitions = None;
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
                other if other.starts_with("partition/") => {
                    let digits = other.strip_prefix("partition/");
                    let digits = digits.filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
                    let number = digits.and_then(|text| text.parse().ok());
                    let number = number.filter(|number| (1..=MOST_PARTITIONS).contains(number));
                    if number.is_none() || partitions.is_some_and(|before| Some(before) != number) {
                        return Err(refuse(&format!("cannot be spread by {{{other}}}")));
                    }
                    partitions = number;
                    parts.push(Part::Partition);
                }
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
        if !apart(&parts) {
            return Err(refuse(
                "must have another character than a digit, such as a dot, between {partition/N} and what is beside it",
            ));
        }
        check_named(&named)?;
        let named = named
            .into_iter()
            .map(|(topic, route)| (topic, Route::new(&route)))
            .collect();
        Ok(Self {
            parts,
            partitions: partitions.unwrap_or(1),
            named,
        })
    }

    /// The topics whose routes are listed by name, with these.
    pub fn named(&self) -> impl Iterator<Item = (&str, &Route)> {
        self.named
            .iter()
            .map(|(topic, route)| (topic.as_str(), route))
    }

    /// The routes of every topic that is not listed by name, if they hang on no topic: the template names none.
    #[must_use]
    pub fn fixed(&self) -> Option<Routes> {
        (!self.parts.contains(&Part::Topic)).then(|| self.filled(""))
    }

    /// The routes of a topic.
    #[must_use]
    pub fn routes(&self, topic: &Topic) -> Routes {
        if let Some(route) = self.named.get(topic.as_str()) {
            return Routes([route.clone()].into());
        }
        self.filled(topic.as_str())
    }

    fn filled(&self, topic: &str) -> Routes {
        let one = |partition: u32| {
            let parts = self.parts.iter().map(|part| match part {
                Part::Text(text) => text.clone(),
                Part::Topic => topic.to_owned(),
                Part::Partition => partition.to_string(),
            });
            Route::new(&parts.collect::<String>())
        };
        Routes((0..self.partitions).map(one).collect())
    }
}

impl RouteTemplate {
    /// Whether another topic, out of those that `read` says are read, may have the route of this one. In doubt it may.
    pub fn is_shared(&self, topic: &Topic, read: impl Fn(&str) -> bool) -> bool {
        let routes = self.routes(topic);
        let is_own = |other: &Route| routes.iter().any(|route| route == other);
        let named = |name: &str| self.named.contains_key(name);
        let others = self
            .named
            .iter()
            .filter(|(name, _)| *name != topic.as_str());
        if others.map(|(_, route)| route).any(is_own) {
            return true;
        }
        if !named(topic.as_str()) {
            return !self.parts.contains(&Part::Topic);
        }
        let text = |part: Option<&Part>| match part {
            Some(Part::Text(text)) => text.clone(),
            Some(Part::Topic | Part::Partition) | None => String::new(),
        };
        let (before, after) = match &self.parts[..] {
            [Part::Text(text)] => return routes.iter().any(|route| route.as_str() == text),
            parts => (text(parts.first()), text(parts.last())),
        };
        let placeholders = self.parts.iter().filter(|part| match part {
            Part::Topic | Part::Partition => true,
            Part::Text(_) => false,
        });
        let several = placeholders.count() > 1 || self.parts.contains(&Part::Partition);
        routes.iter().any(|route| {
            let inner = route.as_str().strip_prefix(before.as_str());
            let inner = inner.and_then(|rest| rest.strip_suffix(after.as_str()));
            inner.is_some_and(|name| several || (!named(name) && read(name)))
        })
    }
}

impl Default for RouteTemplate {
    fn default() -> Self {
        Self {
            parts: vec![Part::Topic],
            partitions: 1,
            named: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests;

//! Which handler a message goes to, by its type. Pure but for the handlers it holds.

use std::fmt;
use std::sync::Arc;

use onceward_core::{InvalidGlob, TopicGlob};

use crate::HandlerSettings;
use crate::batch::{Alone, AnyBatch};
use crate::handler::AnyHandler;

/// What is done with messages whose type matches a pattern.
#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) pattern: TopicGlob,
    /// None: they are ignored.
    pub(crate) handler: Option<Arc<dyn AnyHandler>>,
    /// The same handler, for several messages at once.
    pub(crate) batch: Option<Arc<dyn AnyBatch>>,
    /// None: the consumer's defaults.
    pub(crate) settings: Option<HandlerSettings>,
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route")
            .field("pattern", &self.pattern.as_str())
            .field("ignored", &self.handler.is_none())
            .field("batches", &self.batch.is_some())
            .field("settings", &self.settings)
            .finish()
    }
}

impl Route {
    pub(crate) fn new(
        pattern: &str,
        handler: Option<Arc<dyn AnyHandler>>,
    ) -> Result<Self, InvalidGlob> {
        Ok(Self {
            pattern: TopicGlob::try_from(pattern)?,
            handler,
            batch: None,
            settings: None,
        })
    }

    pub(crate) fn of_batches(pattern: &str, batch: Arc<dyn AnyBatch>) -> Result<Self, InvalidGlob> {
        let alone = Arc::new(Alone(Arc::clone(&batch)));
        Ok(Self {
            batch: Some(batch),
            ..Self::new(pattern, Some(alone))?
        })
    }
}

/// The place of the route that a type goes to: a pattern without `*` before any with one, then the one with the
/// most characters that are not `*`, then the one that was registered first.
pub(crate) fn choose(routes: &[Route], kind: &str) -> Option<usize> {
    routes
        .iter()
        .enumerate()
        .filter(|(_, route)| route.pattern.matches(kind))
        .max_by_key(|(place, route)| (specificity(&route.pattern), std::cmp::Reverse(*place)))
        .map(|(place, _)| place)
}

fn specificity(pattern: &TopicGlob) -> (bool, usize) {
    let text = pattern.as_str();
    let stars = text.bytes().filter(|b| *b == b'*').count();
    (stars == 0, text.len() - stars)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(patterns: &[&str], kind: &str) -> Option<usize> {
        let routes: Vec<Route> = patterns
            .iter()
            .map(|pattern| Route::new(pattern, None).unwrap())
            .collect();
        choose(&routes, kind)
    }

    #[test]
    fn the_most_specific_pattern_wins() {
        let patterns = ["*", "orders.*", "orders.created", "*.created"];

        assert_eq!(chosen(&patterns, "orders.created"), Some(2));
        assert_eq!(chosen(&patterns, "orders.paid"), Some(1));
        assert_eq!(chosen(&patterns, "users.created"), Some(3));
        assert_eq!(chosen(&patterns, "users.left"), Some(0));
    }

    #[test]
    fn an_exact_name_wins_over_a_longer_pattern() {
        assert_eq!(chosen(&["a*b", "ab"], "ab"), Some(1));
    }

    #[test]
    fn of_two_alike_the_first_registered_wins() {
        assert_eq!(chosen(&["a*", "*a"], "aa"), Some(0));
    }

    #[test]
    fn a_type_that_nothing_matches_has_no_route() {
        assert_eq!(chosen(&["orders.*"], "users.created"), None);
        assert_eq!(chosen(&[], "x"), None);
    }
}

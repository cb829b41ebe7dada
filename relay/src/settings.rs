//! What a stream is run by, apart from where its database and its broker are.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

pub use onceward::{PublishAfter, Start, UnroutedPolicy as Unrouted};
use onceward_core::{Route, RouteTemplate, Source, Topic, TopicGlob};

use crate::window::Bounds;

// The bounds of settings, of the configuration too.

pub(crate) const LEASE_TTL: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(300);
pub(crate) const POLL_CEILING: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(10);
pub(crate) const OFFER_DEADLINE: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(600);
pub(crate) const DRAIN: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(600);
pub(crate) const DETOUR_AFTER: RangeInclusive<Duration> =
    Duration::ZERO..=Duration::from_secs(3600);
pub(crate) const CHUNK: RangeInclusive<usize> = 1..=10_000;
pub(crate) const IN_FLIGHT: RangeInclusive<usize> = 1..=1_000_000;
pub(crate) const IN_FLIGHT_BYTES: RangeInclusive<u64> = 64 << 10..=4 << 30;

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
/// The bounds below are those of the configuration. [`check`](Self::check) tells whether they are kept, and
/// [`Relay::run`](crate::Relay::run) refuses settings that do not keep to them.
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
    /// The longest wait between two looks at a log where nobody commits. While others do, reads that bring nothing of the stream's own are as far
    /// apart at most, or 19 ms if that is more. 1 ms to 10 s.
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

/// Why a stream cannot be run with its settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSettings {
    /// The name is not valid.
    #[error("the name {0:?} is not valid: allowed is [a-z][a-z0-9_]*, at most 63 characters")]
    Name(String),
    /// The stream reads no topics.
    #[error("no topics are given")]
    NoTopics,
    /// A setting is out of its bounds.
    #[error("{setting} is {value}; it must be from {least} to {most}")]
    OutOfBounds {
        /// Its name.
        setting: &'static str,
        /// What it is, for people.
        value: String,
        /// What it must be at least.
        least: String,
        /// What it may be at most.
        most: String,
    },
}

/// Whether this can be the name of a stream, which is part of table rows, metrics and variables.
pub(crate) fn is_stream_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    let starts = bytes.next().is_some_and(|b| b.is_ascii_lowercase());
    let rest = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    starts && name.len() <= 63 && bytes.all(rest)
}

fn within<T: PartialOrd + fmt::Debug>(
    setting: &'static str,
    value: T,
    allowed: &RangeInclusive<T>,
) -> Result<(), InvalidSettings> {
    if allowed.contains(&value) {
        return Ok(());
    }
    Err(InvalidSettings::OutOfBounds {
        setting,
        value: format!("{value:?}"),
        least: format!("{:?}", allowed.start()),
        most: format!("{:?}", allowed.end()),
    })
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
            poll_ceiling: Duration::from_millis(10),
            chunk: 2_500,
            in_flight_messages: 30_000,
            in_flight_bytes: 16 << 20,
            in_flight_per_topic: 10_000,
            detour_after: Duration::from_secs(30),
            offer_deadline: Duration::from_secs(30),
            drain: Duration::from_secs(10),
        }
    }

    /// Whether a stream can be run with these settings: whether the name is valid, there are topics, and all bounds are kept.
    ///
    /// # Errors
    /// The first [`InvalidSettings`] found.
    pub fn check(&self) -> Result<(), InvalidSettings> {
        if !is_stream_name(&self.name) {
            return Err(InvalidSettings::Name(self.name.clone()));
        }
        if self.topics.is_empty() {
            return Err(InvalidSettings::NoTopics);
        }
        within("lease_ttl", self.lease_ttl, &LEASE_TTL)?;
        within("poll_ceiling", self.poll_ceiling, &POLL_CEILING)?;
        within("detour_after", self.detour_after, &DETOUR_AFTER)?;
        within("offer_deadline", self.offer_deadline, &OFFER_DEADLINE)?;
        within("drain", self.drain, &DRAIN)?;
        within("chunk", self.chunk, &CHUNK)?;
        within("in_flight_messages", self.in_flight_messages, &IN_FLIGHT)?;
        within("in_flight_per_topic", self.in_flight_per_topic, &IN_FLIGHT)?;
        let bytes = self.in_flight_bytes as u64;
        within("in_flight_bytes", bytes, &IN_FLIGHT_BYTES)
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

    fn settings() -> StreamSettings {
        StreamSettings::new("events", Source::try_from("/shop").unwrap())
    }

    #[test]
    fn what_most_need_and_the_bounds_themselves_can_be_run() {
        let least = StreamSettings {
            lease_ttl: Duration::from_secs(1),
            detour_after: Duration::ZERO,
            drain: Duration::ZERO,
            chunk: 1,
            in_flight_messages: 1,
            in_flight_per_topic: 1,
            in_flight_bytes: 64 << 10,
            ..settings()
        };

        assert_eq!(settings().check(), Ok(()));
        assert_eq!(least.check(), Ok(()));
    }

    #[test]
    fn a_name_that_the_configuration_refuses_is_refused() {
        let longest = "a".repeat(63);
        for (name, valid) in [
            (longest.as_str(), true),
            ("a_1", true),
            ("", false),
            ("1a", false),
            ("Orders", false),
            ("orders.eu", false),
            (&format!("{longest}a"), false),
        ] {
            let settings = StreamSettings {
                name: name.to_owned(),
                ..settings()
            };

            let refused = InvalidSettings::Name(name.to_owned());
            let expected = if valid { Ok(()) } else { Err(refused) };
            assert_eq!(settings.check(), expected);
        }
    }

    #[test]
    fn what_is_out_of_its_bounds_is_refused_by_its_name() {
        type Change = fn(&mut StreamSettings);
        let wrong: [(&str, Change); 10] = [
            ("topics", |it| it.topics.clear()),
            ("lease_ttl", |it| it.lease_ttl = Duration::ZERO),
            ("poll_ceiling", |it| {
                it.poll_ceiling = Duration::from_secs(11)
            }),
            ("detour_after", |it| it.detour_after = Duration::MAX),
            ("offer_deadline", |it| it.offer_deadline = Duration::ZERO),
            ("drain", |it| it.drain = Duration::from_secs(601)),
            ("chunk", |it| it.chunk = 0),
            ("in_flight_messages", |it| it.in_flight_messages = 0),
            ("in_flight_per_topic", |it| {
                it.in_flight_per_topic = 1_000_001
            }),
            ("in_flight_bytes", |it| it.in_flight_bytes = 1),
        ];
        for (setting, change) in wrong {
            let mut settings = settings();
            change(&mut settings);

            let refused = settings.check().unwrap_err().to_string();

            assert!(refused.contains(setting), "{setting}: {refused}");
        }
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

//! Reads the streams: what each one reads, how, and its one destination.

use ::config::{Value, ValueKind};
use onceward_core::{RouteTemplate, Source, Topic, TopicGlob};

use super::StreamConfig;
use super::destination::{self, BROKERS};
use super::reader::Reader;
use crate::settings::{
    CHUNK, DETOUR_AFTER, DRAIN, IN_FLIGHT, IN_FLIGHT_BYTES, LEASE_TTL, OFFER_DEADLINE, OnRefusal,
    POLL_CEILING, PublishAfter, Start, StreamSettings, Unrouted, is_stream_name,
};

const WRONG_NAME: &str = "is no name of a stream: that is [a-z][a-z0-9_]*, at most 63 characters; a dot is not allowed, not in quotes either";

/// Reads all streams. Without a source the problems are still found.
pub(super) fn streams(mut section: Reader<'_>, source: Option<&Source>) -> Vec<StreamConfig> {
    let mut streams = Vec::new();
    for (name, value) in section.entries() {
        if !is_stream_name(&name) {
            section.refuse(&name, WRONG_NAME);
            continue;
        }
        streams.extend(stream(&mut section, &name, value, source));
    }
    section.finish();
    streams
}

fn stream(
    streams: &mut Reader<'_>,
    name: &str,
    value: Value,
    source: Option<&Source>,
) -> Option<StreamConfig> {
    let value = without_dotted(streams, name, value)?;
    let mut section = streams.entry(name, value);
    // Only the defaults are taken from it when there is no source: the problem is noted already.
    let source = source.cloned().unwrap_or_else(|| Source::received(""));
    let mut settings = StreamSettings::new(name, source);
    let topics_known = topics(&mut section, &mut settings);
    route(&mut section, &mut settings, topics_known);
    words(&mut section, &mut settings);
    limits(&mut section, &mut settings);
    let destination = destination::destination(&mut section, &settings);
    section.finish();
    Some(StreamConfig {
        settings,
        destination: destination?,
    })
}

/// Takes out what is not of this stream but was meant as one whose name has a dot; none if nothing else is there.
fn without_dotted(streams: &mut Reader<'_>, name: &str, mut value: Value) -> Option<Value> {
    let ValueKind::Table(table) = &mut value.kind else {
        return Some(value);
    };
    let is_dotted = |(inner, value): (&String, &Value)| {
        let own = BROKERS.contains(&inner.as_str()) || inner == "routes";
        (!own && is_stream(value)).then(|| inner.clone())
    };
    let dotted: Vec<String> = table.iter().filter_map(is_dotted).collect();
    for inner in &dotted {
        table.remove(inner);
        let what = format!(
            "looks like a stream of its own, and is a table in the stream {name}: a dot parts tables. A stream's name is [a-z][a-z0-9_]*, at most 63 characters, without dots, not in quotes either, as in [streams.{name}_{inner}]"
        );
        streams.refuse_entry(name, inner, what);
    }
    (dotted.is_empty() || !table.is_empty()).then_some(value)
}

/// Whether a table has what only a stream has.
fn is_stream(value: &Value) -> bool {
    if let ValueKind::Table(table) = &value.kind {
        let settings = BROKERS.into_iter().chain(["topics", "route", "routes"]);
        settings.into_iter().any(|name| table.contains_key(name))
    } else {
        false
    }
}

/// Whether it is known what the stream reads; else a problem with it is noted.
fn topics(section: &mut Reader<'_>, settings: &mut StreamSettings) -> bool {
    let given = section.has("topics");
    let Some(texts) = section.texts("topics") else {
        return !given;
    };
    let mut known = !texts.is_empty();
    if texts.is_empty() {
        section.refuse("topics", "is empty; leave it out for every topic");
    }
    settings.topics.clear();
    for text in texts {
        match TopicGlob::try_from(text.as_str()) {
            Ok(glob) => settings.topics.push(glob),
            Err(error) => {
                known = false;
                section.refuse("topics", error.to_string());
            }
        }
    }
    known
}

fn route(section: &mut Reader<'_>, settings: &mut StreamSettings, topics_known: bool) {
    let template = section
        .text("route")
        .unwrap_or_else(|| "{topic}".to_owned());
    let named = section.map("routes");
    for topic in named.keys() {
        if let Err(error) = Topic::try_from(topic.as_str()) {
            section.refuse("routes", error.to_string());
        } else if topics_known && !settings.topics.iter().any(|glob| glob.matches(topic)) {
            let patterns: Vec<&str> = settings.topics.iter().map(TopicGlob::as_str).collect();
            section.refuse(
                "routes",
                format!(
                    "has a route for the topic {topic:?}, which the stream does not read: its topics are {}",
                    patterns.join(", ")
                ),
            );
        }
    }
    match RouteTemplate::new(&template, named) {
        Ok(route) => settings.route = route,
        Err(error) => section.refuse("route", error.to_string()),
    }
}

fn words(section: &mut Reader<'_>, settings: &mut StreamSettings) {
    let starts = [("earliest", Start::Earliest), ("latest", Start::Latest)];
    settings.start = section.choice("start", &starts).unwrap_or_default();
    let kinds = [("keep", Unrouted::Keep), ("discard", Unrouted::Discard)];
    settings.unrouted = section.choice("unrouted", &kinds).unwrap_or_default();
    let ways = [("go_on", OnRefusal::GoOn), ("hold", OnRefusal::Hold)];
    settings.on_refusal = section.choice("on_refusal", &ways).unwrap_or_default();
    let standby = section.text("standby");
    let after = section
        .text("publish_after")
        .unwrap_or_else(|| "flushed".to_owned());
    match (after.as_str(), standby) {
        ("flushed", None) => settings.publish_after = PublishAfter::Flushed,
        ("visible", None) => settings.publish_after = PublishAfter::Visible,
        ("replicated", Some(standby)) => settings.publish_after = PublishAfter::Replicated(standby),
        ("replicated", None) => section.refuse(
            "standby",
            "is missing; publish_after = \"replicated\" needs the application_name of the standby to wait for",
        ),
        ("flushed" | "visible", Some(standby)) => section.refuse_value(
            "standby",
            &standby,
            "has a meaning only with publish_after = \"replicated\"",
        ),
        (other, _) => section.refuse_value(
            "publish_after",
            other,
            "must be one of flushed, replicated, visible",
        ),
    }
}

fn limits(section: &mut Reader<'_>, settings: &mut StreamSettings) {
    let StreamSettings {
        lease_ttl,
        poll_ceiling,
        chunk,
        in_flight_messages,
        in_flight_bytes,
        in_flight_per_topic,
        detour_after,
        offer_deadline,
        drain,
        ..
    } = settings;
    *lease_ttl = section.duration("lease_ttl", *lease_ttl, LEASE_TTL);
    *poll_ceiling = section.duration("poll_ceiling", *poll_ceiling, POLL_CEILING);
    *offer_deadline = section.duration("offer_deadline", *offer_deadline, OFFER_DEADLINE);
    *drain = section.duration("drain", *drain, DRAIN);
    *detour_after = section.duration("detour_after", *detour_after, DETOUR_AFTER);
    *chunk = section.count("chunk", *chunk, CHUNK);
    *in_flight_messages = section.count("in_flight_messages", *in_flight_messages, IN_FLIGHT);
    *in_flight_per_topic = section.count("in_flight_per_topic", *in_flight_per_topic, IN_FLIGHT);
    *in_flight_bytes = section.size("in_flight_bytes", *in_flight_bytes, IN_FLIGHT_BYTES);
}

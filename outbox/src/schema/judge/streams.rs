//! Judges the streams: who runs them, what they leave behind, and what waits for a person.

use onceward_core::{Topic, TopicGlob};

use super::{ConfiguredStream, Expected};
use crate::schema::{Facts, Finding, ParkedCount, StreamOverview};

/// What to do about messages whose topic no stream reads. The streams that are there have passed them.
pub const UNROUTED_REMEDY: &str = "give it a new stream with start = \"earliest\" (one that has passed its messages does not read them again), or set unrouted = \"discard\"";

/// What is wrong or worth knowing about the streams.
pub(super) fn judge(facts: &Facts, expected: &Expected) -> Vec<Finding> {
    let mut findings = forgotten(facts, expected);
    findings.extend(facts.streams.iter().flat_map(waiting));
    findings.extend(unrouted(facts));
    findings
}

/// What a person has to decide about.
fn waiting(stream: &StreamOverview) -> Vec<Finding> {
    let name = &stream.stream;
    let look = format!("`onceward parked list --stream {name}` shows them");
    let mut findings = Vec::new();
    let parked = stream
        .parked
        .iter()
        .filter(|parked| parked.state == "parked");
    for ParkedCount {
        count,
        oldest_seconds,
        held_keys,
        held_seconds,
        ..
    } in parked
    {
        let (verb, messages) = if *count == 1 {
            ("waits", "message")
        } else {
            ("wait", "messages")
        };
        findings.push(Finding::warning(
            "parked",
            format!(
                "{count} parked {messages} of the stream {name} {verb} for a person, the oldest for {}",
                roughly(*oldest_seconds)
            ),
            format!(
                "{look}; then `onceward parked replay {name} …`, or edit or discard them (docs/operating.md#when-something-waits)"
            ),
        ));
        if let Some(since) = held_seconds {
            let keys = if *held_keys == 1 {
                "key is"
            } else {
                "keys are"
            };
            findings.push(Finding::warning(
                "held_keys",
                format!(
                    "{held_keys} {keys} held in the stream {name}, the first for {}: later messages wait for a parked one",
                    roughly(*since)
                ),
                format!(
                    "{look}; once the parked ones are replayed or discarded, the later messages follow by themselves"
                ),
            ));
        }
    }
    findings
}

/// How long something has been, in its largest unit.
fn roughly(seconds: f64) -> String {
    const UNITS: [(f64, &str); 3] = [(86_400.0, "d"), (3_600.0, "h"), (60.0, "min")];

    let unit = UNITS.into_iter().find(|(length, _)| seconds >= *length);
    let (length, name) = unit.unwrap_or((1.0, "s"));
    format!("{:.0} {name}", (seconds / length).floor())
}

fn forgotten(facts: &Facts, expected: &Expected) -> Vec<Finding> {
    let forgotten = expected.forgotten_after.as_secs_f64();
    let mut findings = Vec::new();
    for stream in &facts.streams {
        let name = &stream.stream;
        let idle = stream
            .lease_seconds
            .map_or(stream.age_seconds, |left| -left);
        let configured = expected
            .streams
            .as_ref()
            .is_none_or(|known| known.iter().any(|stream| stream.name == *name));
        if idle > forgotten {
            findings.push(Finding::warning(
                "stream_forgotten",
                format!("no relay has held the stream {name} for {}, and it holds every slot of the log", roughly(idle)),
                format!("start its relay, or give it up with `onceward stream drop {name}`"),
            ));
        } else if !configured && let Some(holder) = stream.holder() {
            findings.push(Finding::note(
                "stream_elsewhere",
                format!("{holder} holds the stream {name}, which is not in this configuration"),
                "nothing, if it is another deployment's; else take it out of that relay's configuration before you give it up",
            ));
        } else if !configured {
            findings.push(Finding::warning(
                "stream_unknown",
                format!("the stream {name} is in the database and not in the configuration; it holds slots of the log"),
                format!("configure it, or give it up with `onceward stream drop {name}`"),
            ));
        }
    }
    findings
}

/// Streams that may publish the same topics: those of the configuration as it has them, and what else the database knows of, by
/// the patterns that their last relay has stored.
pub(super) fn overlaps(facts: &Facts, expected: &Expected) -> Vec<Finding> {
    let mut streams = expected.streams.clone().unwrap_or_default();
    for stored in &facts.streams {
        if !streams.iter().any(|stream| stream.name == stored.stream) {
            streams.push(as_stored(stored));
        }
    }
    let mut findings = Vec::new();
    for (n, one) in streams.iter().enumerate() {
        for other in &streams[n + 1..] {
            findings.extend(overlap(one, other));
        }
    }
    findings
}

fn as_stored(stream: &StreamOverview) -> ConfiguredStream {
    let globs = stream
        .topics
        .iter()
        .map(|text| TopicGlob::try_from(text.as_str()));
    ConfiguredStream {
        name: stream.stream.clone(),
        topics: globs.filter_map(Result::ok).collect(),
    }
}

fn overlap(one: &ConfiguredStream, other: &ConfiguredStream) -> Option<Finding> {
    let (a, b) = one.topics.iter().find_map(|a| {
        let theirs = other.topics.iter().find(|b| a.overlaps(b));
        theirs.map(|b| (a.as_str(), b.as_str()))
    })?;
    Some(Finding::note(
        "overlap",
        format!(
            "the streams {} ({a}) and {} ({b}) may publish the same topics",
            one.name, other.name
        ),
        "nothing, if both destinations are meant to have them",
    ))
}

/// Whether some stream reads the topic, as the database knows the streams, or one has said to discard what nobody reads. A note
/// outlives the time when nobody did.
#[must_use]
pub fn is_read(topic: &str, streams: &[StreamOverview]) -> bool {
    if streams.iter().any(|stream| stream.unrouted == "discard") {
        return true;
    }
    let globs = streams.iter().flat_map(|stream| &stream.topics);
    let mut globs = globs.filter_map(|glob| TopicGlob::try_from(glob.as_str()).ok());
    globs.any(|glob| glob.matches(topic))
}

/// How many topics are named.
const NAMED: usize = 5;

/// What lies in the log and would stay there: `topics` are those that have been seen in it. Who has not read the streams knows nothing
/// of them, and is told nothing.
#[must_use]
pub fn unread(facts: &Facts, topics: &[Topic]) -> Option<Finding> {
    let told = |topic: &str| facts.unrouted.iter().any(|noted| noted.topic == topic);
    let mut names: Vec<&str> = topics
        .iter()
        .map(Topic::as_str)
        .filter(|topic| !is_read(topic, &facts.streams) && !told(topic))
        .collect();
    let knows_streams = facts.duty.reads_the_log() && facts.missing_rights.is_empty();
    if names.is_empty() || !knows_streams {
        return None;
    }
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    let and_more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    Some(Finding::warning(
        "unread",
        format!(
            "the log holds messages that no stream of this database reads, and so nobody publishes: of {}{and_more}",
            names.join(", ")
        ),
        "run a relay on this database with a stream for their topics; in a database in which no relay is to run, write nothing to the log",
    ))
}

fn unrouted(facts: &Facts) -> Vec<Finding> {
    facts
        .unrouted
        .iter()
        .filter(|topic| !is_read(&topic.topic, &facts.streams))
        .map(|topic| {
            Finding::warning(
                "unrouted",
                format!(
                    "the topic {} lies in {} slots and no stream asks for it: these slots are kept",
                    topic.topic, topic.slots
                ),
                UNROUTED_REMEDY,
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{sound, stream};
    use super::*;

    fn configured(name: &str, topics: &[&str]) -> ConfiguredStream {
        as_stored(&stream(name, topics))
    }

    fn texts(stored: Vec<StreamOverview>, configured: Vec<ConfiguredStream>) -> Vec<String> {
        let mut facts = sound();
        facts.streams = stored;
        let expected = Expected {
            streams: Some(configured),
            ..Expected::default()
        };
        let findings = overlaps(&facts, &expected);
        findings.into_iter().map(|finding| finding.text).collect()
    }

    #[test]
    fn streams_of_the_configuration_overlap_before_a_relay_has_stored_them() {
        let events = configured("events", &["payments.*", "orders.*"]);
        let paid = configured("paid", &["*.paid"]);

        let texts = texts(Vec::new(), vec![events, paid]);

        assert_eq!(
            texts,
            ["the streams events (payments.*) and paid (*.paid) may publish the same topics"]
        );
    }

    #[test]
    fn what_the_configuration_says_of_a_stream_counts_and_not_what_was_stored_of_it() {
        let stored = || vec![stream("events", &["*"]), stream("old", &["*.paid"])];

        let moved = texts(stored(), vec![configured("events", &["orders.created"])]);
        let still = texts(stored(), vec![configured("events", &["orders.*"])]);

        assert_eq!(moved, [""; 0]);
        assert_eq!(
            still,
            ["the streams events (orders.*) and old (*.paid) may publish the same topics"]
        );
    }
}

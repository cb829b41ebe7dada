mod brokers;
mod environment;
mod sections;
mod streams;

use std::time::Duration;

use super::*;
use crate::settings::Start;

/// The smallest file with a stream.
const SMALL: &str = r#"
source = "/shop/orders"

[database]
url = "postgres://shop:hunter2@127.0.0.1:5432/shop"

[streams.events]
topics = ["orders.*", "payments.*"]

[streams.events.kafka]
brokers = "127.0.0.1:9092"
"#;

fn read(text: &str) -> Result<Config, ConfigError> {
    read_with(text, &[])
}

fn read_with(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::read(Some(text), "onceward.toml", variables.collect())
}

/// What is wrong with the small file when `from` is replaced by `to`.
fn problems(from: &str, to: &str) -> String {
    assert!(SMALL.contains(from), "{from:?} is not in the small file");
    let error = read(&SMALL.replace(from, to)).expect_err("the configuration should be refused");
    error.to_string()
}

#[track_caller]
fn assert_mentions(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

#[test]
fn a_small_file_is_filled_up_with_defaults() {
    let config = read(SMALL).unwrap();

    assert_eq!(config.database.schema.as_str(), "onceward");
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:9410");
    assert_eq!(config.retention, Duration::from_secs(3 * 86_400));
    let stream = config.stream("events").unwrap();
    assert_eq!(stream.settings.source.as_str(), "/shop/orders");
    assert_eq!(stream.settings.topics.len(), 2);
    assert_eq!(stream.settings.start, Start::Earliest);
    assert_eq!(stream.settings.lease_ttl, Duration::from_secs(10));
    assert_eq!(stream.destination.broker(), "kafka");
}

#[test]
fn a_wrong_type_is_told_with_what_is_allowed() {
    let section = "[streams.events]\n";
    for (line, parts) in [
        (
            "chunk = \"many\"",
            &["streams.events.chunk = \"many\"", "from 1 to 10000"][..],
        ),
        (
            "chunk = 0",
            &["streams.events.chunk = 0", "from 1 to 10000"],
        ),
        (
            "lease_ttl = 10",
            &["streams.events.lease_ttl = 10", "must be a text"],
        ),
        ("lease_ttl = \"10\"", &["lease_ttl = \"10\"", "with a unit"]),
        (
            "lease_ttl = \"1h\"",
            &["lease_ttl = \"1h\"", "between 1s and 5m"],
        ),
        (
            "in_flight_bytes = \"1TiB\"",
            &["in_flight_bytes = \"1TiB\"", "KiB"],
        ),
        ("in_flight_bytes = \"1KiB\"", &["between 64KiB and 4GiB"]),
        ("start = \"now\"", &["start = \"now\"", "earliest, latest"]),
        (
            "unrouted = \"drop\"",
            &["unrouted = \"drop\"", "discard, keep"],
        ),
        (
            "on_refusal = \"wait\"",
            &["on_refusal = \"wait\"", "go_on", "hold"],
        ),
        ("detour_after = \"2h\"", &["detour_after", "1h"]),
        (
            "publish_after = \"soon\"",
            &["publish_after = \"soon\"", "flushed, replicated, visible"],
        ),
        (
            "publish_after = \"replicated\"",
            &["streams.events.standby", "is missing"],
        ),
        ("standby = \"a\"", &["streams.events.standby", "replicated"]),
        ("route = \"{key}\"", &["streams.events.route", "{topic}"]),
        (
            "routes = { \"a b\" = \"x\" }",
            &["streams.events.routes", "a b"],
        ),
    ] {
        assert_mentions(&problems(section, &format!("{section}{line}\n")), parts);
    }
}

#[test]
fn a_destination_that_is_no_table_is_refused() {
    let broker = "[streams.events.kafka]\nbrokers = \"127.0.0.1:9092\"";

    let text = problems(broker, "kafka = \"127.0.0.1:9092\"");

    assert_mentions(&text, &["streams.events.kafka"]);
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_known_name() {
    assert_mentions(
        &problems("topics =", "topcis ="),
        &["streams.events.topcis", "did you mean topics?"],
    );
    assert_mentions(
        &problems("[database]", "[databse]"),
        &["databse", "did you mean database?"],
    );
    assert_mentions(
        &problems("brokers =", "broker ="),
        &["streams.events.kafka.broker", "did you mean brokers?"],
    );
    assert_mentions(
        &problems("[streams.events]", "[streams.events]\nxyzzy = 1"),
        &["xyzzy", "known here are"],
    );
}

#[test]
fn all_problems_are_told_at_once() {
    let text = r#"
        source = "no spaces allowed"
        [database]
        schema = "Bad"
        [streams.events]
        chunk = "x"
        lease_ttl = "soon"
        colour = "red"
        [streams.other]
        nats = { servers = [], password = "p" }
    "#;

    let error = read(text).unwrap_err();

    let paths: Vec<&str> = error.problems.iter().map(|p| p.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "database.schema",
            "source",
            "streams.events.lease_ttl",
            "streams.events.chunk",
            "streams.events",
            "streams.events.colour",
            "streams.other.nats.servers",
            "streams.other.nats.user",
        ]
    );
    assert_mentions(&error.to_string(), &["8 problems"]);
}

#[test]
fn no_secret_is_ever_shown() {
    let good = SMALL.replace(
        "brokers = \"127.0.0.1:9092\"",
        "brokers = \"h:1\"\nproperties = { \"sasl.password\" = \"hunter2\" }",
    );
    assert!(!format!("{:?}", read(&good).unwrap()).contains("hunter2"));

    for bad in [
        "[database]\nurl = \"mysql//shop:hunter2@h\"",
        "[database]\nurl = { hunter2 = 1 }",
        "database = \"postgres://shop:hunter2@h/d\"",
        "[database]\npasswort = \"hunter2\"",
        "[database]\nurl = \"postgres://shop:hunter2@h/d",
        "[database]\nurl = postgres://shop:hunter2@h/d",
        "[admin]\ntoken = [\"hunter2\"]",
        "source = \"/s\"\n[streams.a.nats]\nservers = 3\npassword = [\"hunter2\"]\nuser = \"u\"",
    ] {
        assert_keeps_the_secret(&read(bad).unwrap_err());
    }
}

/// Without TLS the setting itself is refused.
#[cfg(not(any(feature = "kafka-tls", feature = "kafka-tls-vendored")))]
#[test]
fn no_key_of_tls_is_shown_where_it_is_refused() {
    let bad = "source = \"/s\"\n[streams.a.kafka]\nbrokers = \"h\"\nproperties = { \"ssl.key.pem\" = \"hunter2\" }";

    assert_keeps_the_secret(&read(bad).unwrap_err());
}

fn assert_keeps_the_secret(error: &ConfigError) {
    assert!(!error.to_string().contains("hunter2"), "{error}");
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
}

#[test]
fn a_file_that_is_no_toml_is_refused_with_the_place() {
    let error = read("source = \"/shop\"\n[database\n")
        .unwrap_err()
        .to_string();

    assert_mentions(&error, &["line 2"]);
}

#[test]
fn a_file_that_was_asked_for_must_exist() {
    let error = Config::load(Some(Path::new("/nonexistent/onceward.toml"))).unwrap_err();

    assert_mentions(
        &error.to_string(),
        &["/nonexistent/onceward.toml", "cannot be read"],
    );
}

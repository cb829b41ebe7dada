use std::io::Write as _;
use std::time::Duration;

use secrecy::ExposeSecret as _;

use super::{SMALL, assert_mentions, read, read_with};
use crate::config::{Config, DestinationConfig};

#[test]
fn a_variable_wins_over_the_file() {
    let variables = [
        (
            "ONCEWARD__STREAMS__EVENTS__KAFKA__BROKERS",
            "k1:9092,k2:9092",
        ),
        (
            "ONCEWARD__STREAMS__EVENTS__KAFKA__PROPERTIES",
            r#"{"linger.ms": 7}"#,
        ),
        ("ONCEWARD__STREAMS__EVENTS__TOPICS", "a.*, b.*"),
        ("ONCEWARD__STREAMS__EVENTS__CHUNK", "77"),
        ("ONCEWARD__STREAMS__EVENTS__LEASE_TTL", "3s"),
        ("ONCEWARD__DATABASE__SCHEMA", "other"),
        ("ONCEWARD__SOURCE", "/elsewhere"),
    ];

    let config = read_with(SMALL, &variables).unwrap();

    let stream = config.stream("events").unwrap();
    assert_eq!(stream.settings.chunk, 77);
    assert_eq!(stream.settings.lease_ttl, Duration::from_secs(3));
    assert_eq!(stream.settings.topics.len(), 2);
    assert_eq!(stream.settings.topics[1].as_str(), "b.*");
    assert_eq!(stream.settings.source.as_str(), "/elsewhere");
    assert_eq!(config.database.schema.as_str(), "other");
    let DestinationConfig::Kafka(kafka) = &stream.destination else {
        panic!("{config:?}");
    };
    assert_eq!(kafka.brokers, "k1:9092,k2:9092");
    assert_eq!(kafka.properties["linger.ms"], "7");
}

#[test]
fn variables_alone_are_enough() {
    let variables = [
        ("DATABASE_URL", "postgres://h/d"),
        ("ONCEWARD__SOURCE", "/shop"),
        (
            "ONCEWARD__STREAMS__EVENTS__NATS__SERVERS",
            "nats://127.0.0.1:4222",
        ),
    ];

    let config = read_with("", &variables).unwrap();

    assert_eq!(config.streams[0].destination.broker(), "nats");
    assert!(config.database.url.is_some());
}

#[test]
fn a_mistyped_variable_is_refused() {
    let error = read_with(SMALL, &[("ONCEWARD__DATABASE__URI", "postgres://x")]).unwrap_err();

    assert_mentions(&error.to_string(), &["database.uri", "did you mean url?"]);
}

#[test]
fn the_general_variable_is_used_only_when_nothing_else_names_the_database() {
    let url = |config: Config| config.database.url.unwrap().expose_secret().to_owned();
    let general = ("DATABASE_URL", "postgres://general/d");

    let alone = read_with("", &[general]).unwrap();
    let beside_file = read_with(SMALL, &[general]).unwrap();
    let own = ("ONCEWARD__DATABASE__URL", "postgres://own/d");
    let beside_own = read_with(SMALL, &[general, own]).unwrap();

    assert_eq!(url(alone), "postgres://general/d");
    assert!(url(beside_file).contains("hunter2"));
    assert_eq!(url(beside_own), "postgres://own/d");
}

#[test]
fn a_secret_may_lie_in_a_file() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "postgres://shop:hunter2@h/d").unwrap();
    let path = file.path().display().to_string();

    let config = read(&format!("[database]\nurl_file = {path:?}")).unwrap();
    let both = read(&format!(
        "[database]\nurl = \"postgres://h/d\"\nurl_file = {path:?}"
    ));
    let missing = read("[database]\nurl_file = \"/nonexistent/url\"").unwrap_err();

    assert_eq!(
        config.database.url.unwrap().expose_secret(),
        "postgres://shop:hunter2@h/d"
    );
    assert_mentions(
        &both.unwrap_err().to_string(),
        &["database.url", "url_file"],
    );
    assert_mentions(
        &missing.to_string(),
        &["/nonexistent/url", "cannot be read"],
    );
}

use std::time::Duration;

use super::{SMALL, assert_mentions, problems, read};
use crate::config::{DestinationConfig, LogFormat};
use crate::settings::{PublishAfter, Start, Unrouted};

#[test]
fn every_setting_of_a_stream_is_read() {
    let text = r#"
        source = "/shop"
        [retention]
        messages = "1d"
        [log]
        level = "warn,onceward_relay=debug"
        format = "json"
        [streams.events]
        topics = ["orders.*"]
        route = "shop.{topic}"
        routes = { "orders.created" = "legacy" }
        start = "latest"
        unrouted = "discard"
        publish_after = "replicated"
        standby = "replica1"
        on_refusal = "go_on"
        lease_ttl = "5s"
        poll_ceiling = "50ms"
        chunk = 200
        in_flight_messages = 900
        in_flight_bytes = "8MiB"
        in_flight_per_topic = 300
        offer_deadline = "1m"
        drain = "0s"
        [streams.events.nats]
        servers = ["nats://a:4222", "nats://b:4222"]
        user = "onceward"
        password = "hunter2"
        max_in_flight = 64
        tls_required = true
    "#;

    let config = read(text).unwrap();

    let settings = &config.streams[0].settings;
    assert_eq!(settings.start, Start::Latest);
    assert_eq!(settings.unrouted, Unrouted::Discard);
    assert_eq!(
        settings.publish_after,
        PublishAfter::Replicated("replica1".to_owned())
    );
    assert_eq!(settings.lease_ttl, Duration::from_secs(5));
    assert_eq!(settings.poll_ceiling, Duration::from_millis(50));
    assert_eq!((settings.chunk, settings.in_flight_messages), (200, 900));
    assert_eq!(
        (settings.in_flight_bytes, settings.in_flight_per_topic),
        (8 << 20, 300)
    );
    assert_eq!(settings.offer_deadline, Duration::from_secs(60));
    assert_eq!(settings.drain, Duration::ZERO);
    assert_eq!(config.retention, Duration::from_secs(86_400));
    assert_eq!(config.log.format, LogFormat::Json);
    let DestinationConfig::Nats(nats) = &config.streams[0].destination else {
        panic!("{config:?}");
    };
    assert_eq!(nats.servers.len(), 2);
    assert_eq!(nats.max_in_flight, 64);
    assert_eq!(nats.deadline, Duration::from_secs(60));
    assert!(nats.tls.required);
}

#[test]
fn a_route_for_a_topic_that_the_stream_does_not_read_is_told() {
    let text = |topics: &str, routed: &str| {
        format!(
            "source = \"/shop\"\n[streams.events]\n{topics}\nroutes = {{ {routed:?} = \"legacy\" }}\n[streams.events.nats]\nservers = \"nats://a\""
        )
    };
    let of_orders = "topics = [\"orders.*\", \"invoices\"]";

    let refused = read(&text(of_orders, "payments.made")).unwrap_err();

    let [problem] = &refused.problems[..] else {
        panic!("{refused}");
    };
    assert_eq!(problem.path, "streams.events.routes");
    for part in ["\"payments.made\"", "orders.*, invoices"] {
        assert!(problem.what.contains(part), "{problem}");
    }
    assert!(read(&text(of_orders, "orders.created")).is_ok());
    assert!(read(&text("", "payments.made")).is_ok(), "it reads all");
    // What it reads is not known: that is the one problem.
    let unknown = read(&text("topics = \"orders.*\"", "payments.made")).unwrap_err();
    assert_eq!(unknown.problems.len(), 1, "{unknown}");
}

#[test]
fn wrong_topics_are_told() {
    let given = "topics = [\"orders.*\", \"payments.*\"]";

    assert_mentions(
        &problems(given, "topics = \"orders.*\""),
        &["streams.events.topics", "list"],
    );
    assert_mentions(
        &problems(given, "topics = []"),
        &["streams.events.topics", "leave it out"],
    );
    assert_mentions(
        &problems(given, "topics = [\"orders >\"]"),
        &["orders >", "A-Z"],
    );
}

#[test]
fn a_stream_has_exactly_one_destination() {
    let none = problems("[streams.events.kafka]\nbrokers = \"127.0.0.1:9092\"", "");
    let two = problems(
        "[streams.events.kafka]",
        "[streams.events.nats]\nservers = \"nats://h\"\n[streams.events.kafka]",
    );

    assert_mentions(
        &none,
        &["streams.events", "no destination", "kafka, nats, sqs"],
    );
    assert_mentions(
        &two,
        &["streams.events", "2 destinations", "kafka and nats"],
    );
}

#[test]
fn a_streams_name_with_a_dot_is_refused() {
    for name in ["\"a.b\"", "Events", "1st", "a-b"] {
        let text = SMALL.replace("streams.events", &format!("streams.{name}"));
        let error = read(&text).unwrap_err().to_string();

        assert_mentions(
            &error,
            &["[a-z][a-z0-9_]*", "a dot", name.trim_matches('"')],
        );
    }
}

#[test]
fn a_dot_in_a_streams_name_that_toml_takes_for_a_table_is_explained() {
    let dotted = SMALL.replace("streams.events", "streams.my.events");
    let told = read(&dotted).unwrap_err().to_string();

    assert_mentions(
        &told,
        &[
            "streams.my.events",
            "a dot",
            "[a-z][a-z0-9_]*",
            "[streams.my_events]",
        ],
    );
    // A broker that is misspelt is no stream.
    let misspelt = SMALL.replace("streams.events.kafka", "streams.events.kafak");
    assert_mentions(
        &read(&misspelt).unwrap_err().to_string(),
        &["streams.events.kafak", "did you mean kafka?"],
    );
}

#[test]
fn a_stream_needs_a_source_but_a_migration_does_not() {
    assert_mentions(
        &problems("source = \"/shop/orders\"", ""),
        &["source", "is missing"],
    );
    assert!(read("[database]\nurl = \"postgres://h/d\"").is_ok());
}

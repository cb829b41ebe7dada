use std::time::Duration;

use secrecy::ExposeSecret as _;

use super::{assert_mentions, problems, read};
use crate::config::DestinationConfig;

#[test]
fn a_property_that_the_promise_depends_on_is_refused_by_name() {
    for name in [
        "enable.idempotence",
        "acks",
        "message.timeout.ms",
        "partitioner",
    ] {
        let line = format!("brokers = \"127.0.0.1:9092\"\nproperties = {{ \"{name}\" = \"1\" }}");

        let error = problems("brokers = \"127.0.0.1:9092\"", &line);

        assert_mentions(&error, &["streams.events.kafka.properties", name]);
    }
}

#[test]
fn a_property_that_librdkafka_does_not_know_is_refused() {
    let line = "brokers = \"h\"\nproperties = { \"linger.msec\" = 5 }";

    assert_mentions(
        &problems("brokers = \"127.0.0.1:9092\"", line),
        &["linger.msec"],
    );
}

#[test]
fn every_setting_of_sqs_is_read() {
    let text = r#"
        source = "/shop"
        [database]
        url = "postgres://h/d"
        [streams.events]
        topics = ["orders.*", "payments"]
        route = "{topic}.fifo"
        routes = { "orders.created" = "orders.fifo", "orders.paid" = "https://sqs.eu-west-1.amazonaws.com/1/orders.fifo" }
        offer_deadline = "1m"
        [streams.events.sqs]
        region = "eu-west-1"
        endpoint_url = "http://127.0.0.1:9324"
        access_key_id = "AKIA"
        secret_access_key = "hunter2"
        session_token = "hunter3"
        order = "per_key"
        connect_timeout = "1s"
        request_timeout = "2s"
        max_in_flight = 100
        max_calls = 8
    "#;

    let config = read(text).unwrap();

    let DestinationConfig::Sqs(sqs) = &config.streams[0].destination else {
        panic!("{config:?}");
    };
    assert_eq!(sqs.region.as_deref(), Some("eu-west-1"));
    assert_eq!(sqs.endpoint_url.as_deref(), Some("http://127.0.0.1:9324"));
    assert_eq!(sqs.deadline, Duration::from_secs(60));
    assert_eq!(sqs.connect_timeout, Duration::from_secs(1));
    assert_eq!(sqs.request_timeout, Duration::from_secs(2));
    assert_eq!((sqs.max_in_flight, sqs.max_calls), (100, 8));
    let key = sqs.access_key.as_ref().unwrap();
    assert_eq!(key.secret.expose_secret(), "hunter2");
    assert!(key.session_token.is_some());
    assert!(!format!("{config:?}").contains("hunter"));
}

#[test]
fn sqs_needs_nothing_but_its_section() {
    let text = "source = \"/s\"\n[database]\nurl = \"postgres://h/d\"\n[streams.a]\nroute = \"orders.fifo\"\n[streams.a.sqs]\n";

    let config = read(text).unwrap();

    assert_eq!(config.streams[0].destination.broker(), "sqs");
}

#[test]
fn what_is_wrong_with_sqs_is_told_at_once() {
    let text = r#"
        source = "/s"
        [database]
        url = "postgres://h/d"
        [streams.dots]
        topics = ["orders.*"]
        [streams.dots.sqs]
        regions = "eu-west-1"
        endpoint_url = "127.0.0.1:9324"
        access_key_id = "AKIA"
        order = "some"
        [streams.standard]
        routes = { "orders" = "orders" }
        [streams.standard.sqs]
        [streams.free]
        topics = ["orders"]
        [streams.free.sqs]
        order = "none"
    "#;

    let told = read(text).expect_err("it should be refused").to_string();

    assert_mentions(
        &told,
        &[
            "streams.dots.route",
            "orders.x",
            "`routes`",
            "streams.dots.sqs.regions",
            "did you mean region?",
            "streams.dots.sqs.endpoint_url",
            "streams.dots.sqs.secret_access_key",
            "streams.dots.sqs.order",
            "per_key",
            "streams.standard.routes.orders",
            ".fifo",
        ],
    );
    assert!(!told.contains("streams.free"), "{told}");
}

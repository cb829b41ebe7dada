use std::collections::BTreeSet;

use super::refused::REFUSED;
use super::*;

fn config() -> KafkaConfig {
    KafkaConfig::new("127.0.0.1:9092")
}

/// What somebody might set, by name. Callbacks and the like are set by code; as text they have no value that means anything.
const DANGEROUS: [(&str, &str); 36] = [
    ("enable.idempotence", "false"),
    ("enable.gapless.guarantee", "false"),
    ("max.in.flight", "10"),
    ("max.in.flight.requests.per.connection", "10"),
    ("queuing.strategy", "lifo"),
    ("msg_order_cmp", "x"),
    ("acks", "1"),
    ("request.required.acks", "0"),
    ("delivery.report.only.error", "true"),
    ("dr_cb", "x"),
    ("dr_msg_cb", "x"),
    ("enabled_events", "1"),
    ("message.timeout.ms", "1000"),
    ("delivery.timeout.ms", "1000"),
    ("retries", "3"),
    ("message.send.max.retries", "3"),
    ("partitioner", "random"),
    ("partitioner_cb", "x"),
    ("transactional.id", "orders"),
    ("enable.auto.commit", "true"),
    ("auto.commit.enable", "true"),
    ("auto.commit.interval.ms", "5000"),
    ("enable.auto.offset.store", "true"),
    ("offset.store.method", "file"),
    ("auto.offset.reset", "latest"),
    ("offset_commit_cb", "x"),
    ("rebalance_cb", "x"),
    ("partition.assignment.strategy", "range"),
    ("group.protocol", "consumer"),
    ("group.remote.assignor", "uniform"),
    ("group.protocol.type", "consumer"),
    ("group.id", "billing"),
    ("bootstrap.servers", "kafka:9092"),
    ("metadata.broker.list", "kafka:9092"),
    ("log.queue", "true"),
    ("default_topic_conf", "x"),
];

#[test]
fn every_property_that_the_promise_depends_on_is_refused_by_name() {
    for (name, value) in DANGEROUS {
        let problems = config().property(name, value).problems();

        assert!(
            matches!(&problems[..], [KafkaConfigError::Refused { name: refused, .. }] if refused == name),
            "{name}: {problems:?}"
        );
        assert!(problems[0].to_string().contains(name));
    }
    let names = BTreeSet::from(DANGEROUS.map(|(name, _)| name));
    assert_eq!(names, BTreeSet::from(REFUSED.map(|(name, _)| name)));
}

#[test]
fn what_is_refused_is_known_to_librdkafka_by_that_name() {
    for (name, value) in DANGEROUS {
        let mut alone = ClientConfig::new();
        alone.set(name, value);

        let error = alone.create_native_config().err();

        let unknown = RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN;
        assert!(
            !matches!(&error, Some(KafkaError::ClientConfig(result, ..)) if *result == unknown),
            "{error:?}"
        );
    }
}

#[test]
fn a_property_that_librdkafka_does_not_know_is_named() {
    let problems = config().property("linger.msec", "5").problems();

    assert_eq!(
        problems,
        [KafkaConfigError::Unknown("linger.msec".to_owned())]
    );
}

#[test]
fn a_value_that_librdkafka_does_not_take_is_named_but_never_that_of_a_secret() {
    let linger = config().property("linger.ms", "soon").problems();
    let secret = config().property("sasl.password", "").problems();

    assert!(
        matches!(&linger[..], [KafkaConfigError::Invalid { name, .. }] if name == "linger.ms"),
        "{linger:?}"
    );
    assert!(secret.is_empty(), "{secret:?}");
    let key = config().property("ssl.key.pem", "hunter2").problems();
    assert!(!format!("{key:?}").contains("hunter2"), "{key:?}");
}

#[test]
fn all_problems_are_found_at_once() {
    let config = KafkaConfig::new(" ")
        .deadline(Duration::ZERO)
        .property("acks", "1")
        .property("no.such", "1");

    assert_eq!(config.problems().len(), 4);
}

#[test]
fn secrets_are_not_shown() {
    let config = config()
        .property("sasl.username", "alice")
        .property("sasl.password", "hunter2")
        .property("ssl.key.password", "hunter2")
        .property("ssl.key.pem", "hunter2")
        .property("linger.ms", "7");

    let shown = format!("{config:?}");

    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(!shown.contains("alice"), "{shown}");
    assert!(shown.contains('7'), "{shown}");
}

#[test]
fn the_fixed_settings_win_over_everything_else() {
    let config = config().property("acks", "0").property("linger.ms", "50");

    let client = producer(&config, Some(20_000));

    assert_eq!(client.get("acks"), Some("all"));
    assert_eq!(client.get("linger.ms"), Some("50"));
    assert_eq!(client.get("batch.size"), Some("20000"));
}

#[test]
fn a_subscription_without_group_or_topics_or_with_a_pattern_is_refused() {
    let nothing: [&str; 0] = [];

    assert_eq!(KafkaSubscription::new("", nothing).problems().len(), 2);
    let pattern = KafkaSubscription::new("g", ["^orders.*"]).problems();
    assert_eq!(pattern, [KafkaConfigError::Topic("^orders.*".to_owned())]);
}

#[test]
fn a_user_before_a_broker_is_refused_and_not_shown() {
    let config = KafkaConfig::new("kafka-1:9092,anna:hun,ter2@kafka-2:9092,kafka-3:9092");

    let problems = config.problems();

    assert_eq!(problems, [KafkaConfigError::UserInBrokers]);
    let shown = format!("{config:?} {problems:?} {}", problems[0]);
    assert!(!shown.contains("hun") && !shown.contains("ter2"), "{shown}");
    assert!(shown.contains("…@kafka-2:9092,kafka-3:9092"), "{shown}");
}

#[test]
fn properties_that_do_not_fit_together_are_told_without_secrets() {
    let config = config()
        .property("security.protocol", "sasl_plaintext")
        .property("sasl.mechanism", "GSSAPI")
        .property("sasl.username", "anna")
        .property("sasl.password", "hunter2");

    let error = crate::Kafka::new(config.clone()).unwrap_err();

    let shown = format!("{error:?} {error}");
    assert!(matches!(error, KafkaConfigError::Together(_)), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
    let config = config
        .property("sasl.oauthbearer.config", "hunter2=more")
        .property("ssl.key.password", "");
    let said = "neither hunter2 nor hunter2=more lets anna in".to_owned();
    assert_eq!(config.without_secrets(said), "neither … nor … lets anna in");
}

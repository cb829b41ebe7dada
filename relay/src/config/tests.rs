use std::io::Write as _;
use std::time::Duration;

use secrecy::ExposeSecret as _;

use super::*;
use crate::settings::{PublishAfter, Start, Unrouted};

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
        ("kafka = \"x\"", &[]),
    ] {
        if parts.is_empty() {
            continue;
        }
        assert_mentions(&problems(section, &format!("{section}{line}\n")), parts);
    }
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

        assert_mentions(&error, &["[a-z][a-z0-9_]*", name.trim_matches('"')]);
    }
}

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
fn an_invalid_schema_name_is_refused() {
    for name in ["a\\\"b", "Onceward", "pg_x", ""] {
        let error = problems("[database]", &format!("[database]\nschema = \"{name}\""));

        assert_mentions(&error, &["database.schema", "a-z 0-9 _"]);
    }
}

#[test]
fn admin_endpoints_that_others_can_reach_need_a_token() {
    let open = "[admin]\nlisten = \"0.0.0.0:9410\"\n[database]";

    assert_mentions(
        &problems("[database]", open),
        &["admin.listen", "admin.token"],
    );
    let token = "[admin]\nlisten = \"0.0.0.0:9410\"\ntoken = \"long enough\"\n[database]";
    assert!(read(&SMALL.replace("[database]", token)).is_ok());
    let short = "[admin]\ntoken = \"short\"\n[database]";
    assert_mentions(
        &problems("[database]", short),
        &["admin.token", "8 characters"],
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
        "source = \"/s\"\n[streams.a.kafka]\nbrokers = \"h\"\nproperties = { \"ssl.key.pem\" = \"hunter2\" }",
    ] {
        let error = read(bad).unwrap_err();

        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
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

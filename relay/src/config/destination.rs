//! Reads a stream's one destination.

#[cfg(feature = "sqs")]
mod sqs;

use std::time::Duration;

use super::DestinationConfig;
#[cfg(any(feature = "kafka", feature = "nats"))]
use super::address;
use super::reader::Reader;
use crate::settings::StreamSettings;
#[cfg(feature = "sqs")]
use sqs::sqs;

/// Every broker that a stream may name, built in or not.
pub(super) const BROKERS: [&str; 3] = ["kafka", "nats", "sqs"];

/// The section of exactly one broker.
pub(super) fn destination(
    stream: &mut Reader<'_>,
    settings: &StreamSettings,
) -> Option<DestinationConfig> {
    let deadline = settings.offer_deadline;
    let given: Vec<&str> = BROKERS
        .into_iter()
        .filter(|name| stream.has(name))
        .collect();
    match given[..] {
        [_] => {}
        [] => stream.refuse(
            "",
            format!("has no destination; give it one of {}", BROKERS.join(", ")),
        ),
        [..] => {
            let what = format!(
                "has {} destinations ({}); a stream has exactly one",
                given.len(),
                given.join(" and ")
            );
            stream.refuse("", what);
        }
    }
    // Each is read in any case, so that its own problems are told as well.
    let kafka = stream
        .optional_section("kafka")
        .and_then(|section| kafka(section, deadline));
    let nats = stream
        .optional_section("nats")
        .and_then(|section| nats(section, deadline));
    let sqs = stream
        .optional_section("sqs")
        .and_then(|section| sqs(section, settings));
    #[cfg(feature = "sqs")]
    if let Some(DestinationConfig::Sqs(config)) = &sqs {
        sqs::queues(stream, settings, config.order);
    }
    kafka.or(nats).or(sqs)
}

#[cfg(feature = "kafka")]
fn kafka(mut section: Reader<'_>, deadline: Duration) -> Option<DestinationConfig> {
    use onceward_kafka::{KafkaConfig, KafkaConfigError};
    use secrecy::ExposeSecret;

    let given = section.has("brokers");
    let brokers = section.one_or_many("brokers").join(",");
    if !given {
        section.refuse("brokers", "is missing, as in \"127.0.0.1:9092\"");
    }
    let problem = |broker: &&str| address::kafka(broker.trim()).err();
    if let Some(problem) = brokers
        .split_terminator(',')
        .find_map(|broker| problem(&broker))
    {
        section.refuse("brokers", problem);
    }
    let mut properties = section.map("properties");
    for (name, path) in section.map("property_files") {
        if properties.contains_key(&name) {
            section.refuse_entry(
                "property_files",
                &name,
                "is set among the properties too; set one of them",
            );
        }
        if let Some(secret) = section.secret_entry("property_files", &name, &path) {
            properties.insert(name, secret.expose_secret().to_owned());
        }
    }
    let mut config = KafkaConfig::new(brokers).deadline(deadline);
    config.properties = properties;
    for problem in config.problems() {
        match &problem {
            KafkaConfigError::NoBrokers if !given => {}
            KafkaConfigError::NoBrokers | KafkaConfigError::UserInBrokers => {
                section.refuse("brokers", problem.to_string())
            }
            KafkaConfigError::Refused { name, .. }
            | KafkaConfigError::Unknown(name)
            | KafkaConfigError::Invalid { name, .. } => {
                section.refuse_entry("properties", name, problem.to_string());
            }
            KafkaConfigError::NoDeadline
            | KafkaConfigError::Together(_)
            | KafkaConfigError::NoGroup
            | KafkaConfigError::NoTopics
            | KafkaConfigError::Topic(_) => section.refuse("", problem.to_string()),
        }
    }
    section.finish();
    Some(DestinationConfig::Kafka(config))
}

#[cfg(not(feature = "kafka"))]
fn kafka(section: Reader<'_>, _: Duration) -> Option<DestinationConfig> {
    not_built_in(section)
}

#[cfg(feature = "nats")]
fn nats(mut section: Reader<'_>, deadline: Duration) -> Option<DestinationConfig> {
    use onceward_nats::NatsConfig;

    const TIMEOUT: std::ops::RangeInclusive<Duration> =
        Duration::from_millis(100)..=Duration::from_secs(60);

    let given = section.has("servers");
    let servers = section.one_or_many("servers");
    if !given {
        section.refuse("servers", "is missing, as in \"nats://127.0.0.1:4222\"");
    } else if servers.is_empty() {
        section.refuse(
            "servers",
            "is empty; give it at least one, as in \"nats://127.0.0.1:4222\"",
        );
    }
    if let Some(problem) = servers
        .iter()
        .find_map(|server| address::nats(server).err())
    {
        section.refuse("servers", problem);
    }
    let mut config = NatsConfig::new(servers);
    config.deadline = deadline;
    if let Some(name) = section.text("name") {
        config.name = name;
    }
    if let Some(credentials) = credentials(&mut section) {
        config.credentials = credentials;
    }
    config.connect_timeout = section.duration("connect_timeout", config.connect_timeout, TIMEOUT);
    config.request_timeout = section.duration("request_timeout", config.request_timeout, TIMEOUT);
    config.max_in_flight = section.count("max_in_flight", config.max_in_flight, 1..=100_000);
    config.tls.required = section.flag("tls_required").unwrap_or_default();
    config.tls.first = section.flag("tls_first").unwrap_or_default();
    let authorities = section.texts("tls_ca_files").unwrap_or_default();
    config.tls.root_certificates = authorities.into_iter().map(Into::into).collect();
    match (
        section.text("tls_certificate_file"),
        section.text("tls_key_file"),
    ) {
        (Some(certificate), Some(key)) => {
            config.tls.client_certificate = Some((certificate.into(), key.into()));
        }
        (None, None) => {}
        (Some(_), None) => {
            section.refuse("tls_key_file", "is missing; tls_certificate_file needs it")
        }
        (None, Some(_)) => {
            section.refuse("tls_certificate_file", "is missing; tls_key_file needs it")
        }
    }
    section.finish();
    Some(DestinationConfig::Nats(config))
}

/// At most one way to say who we are.
#[cfg(feature = "nats")]
fn credentials(section: &mut Reader<'_>) -> Option<onceward_nats::Credentials> {
    use onceward_nats::Credentials;

    let user = section.text("user");
    let password = section.secret("password", "password_file");
    let by_password = match (user, password) {
        (Some(user), Some(password)) => Some(Credentials::UserPassword { user, password }),
        (None, None) => None,
        (Some(_), None) => {
            section.refuse(
                "password",
                "is missing; user needs it, here or as password_file",
            );
            None
        }
        (None, Some(_)) => {
            section.refuse("user", "is missing; password needs it");
            None
        }
    };
    let token = section
        .secret("token", "token_file")
        .map(Credentials::Token);
    let nkey = section.secret("nkey", "nkey_file").map(Credentials::NKey);
    let file = section
        .text("credentials_file")
        .map(|path| Credentials::File(path.into()));
    let mut ways = [by_password, token, nkey, file].into_iter().flatten();
    let first = ways.next();
    if ways.next().is_some() {
        section.refuse(
            "",
            "has several of user, token, nkey and credentials_file; set one of them",
        );
    }
    first
}

#[cfg(not(feature = "nats"))]
fn nats(section: Reader<'_>, _: Duration) -> Option<DestinationConfig> {
    not_built_in(section)
}

#[cfg(not(feature = "sqs"))]
fn sqs(section: Reader<'_>, _: &StreamSettings) -> Option<DestinationConfig> {
    not_built_in(section)
}

#[cfg(not(all(feature = "kafka", feature = "nats", feature = "sqs")))]
fn not_built_in(mut section: Reader<'_>) -> Option<DestinationConfig> {
    section.refuse("", "this program was built without it");
    None
}

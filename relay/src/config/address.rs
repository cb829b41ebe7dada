//! What an address of a database or a broker may look like. Pure; it never repeats an address, which may hold a password.

/// The schemes of a PostgreSQL URL.
const POSTGRES: [&str; 2] = ["postgres", "postgresql"];

/// The schemes of a NATS server; WebSocket is not built in.
const NATS: [&str; 2] = ["nats", "tls"];

/// The schemes of an HTTP endpoint.
const HTTP: [&str; 2] = ["http", "https"];

/// A PostgreSQL URL, as far as its scheme goes.
pub(super) fn postgres(url: &str) -> Result<(), String> {
    match split(url) {
        Some((scheme, _)) if POSTGRES.contains(&scheme) => Ok(()),
        Some((scheme, _)) => Err(format!(
            "is a {}URL; allowed are postgres:// and postgresql://, here and in the variable DATABASE_URL",
            shown(scheme)
        )),
        None => Err(
            "is no PostgreSQL URL, as in \"postgres://user:password@host:5432/database\""
                .to_owned(),
        ),
    }
}

/// `nats://host:port`, `tls://host:port`, or a host and a port alone.
pub(super) fn nats(server: &str) -> Result<(), String> {
    const ALLOWED: &str =
        "allowed are nats://host:port and tls://host:port, as in \"nats://127.0.0.1:4222\"";

    let place = match split(server) {
        Some((scheme, place)) if NATS.contains(&scheme) => place,
        Some((scheme, _)) => return Err(format!("has a {}address; {ALLOWED}", shown(scheme))),
        None => server,
    };
    if is_place(place) {
        Ok(())
    } else {
        Err(format!(
            "has an address without a host, or with a port that is none; {ALLOWED}"
        ))
    }
}

/// `host:port`; librdkafka takes 9092 where the port is left out.
pub(super) fn kafka(broker: &str) -> Result<(), String> {
    const ALLOWED: &str = "allowed is host:port of one or more, as in \"kafka-1:9092,kafka-2:9092\"; \
         encryption is set by properties = { \"security.protocol\" = … }";

    match split(broker) {
        Some((scheme, _)) => Err(format!("has a {}address; {ALLOWED}", shown(scheme))),
        None if is_place(broker) => Ok(()),
        None => Err(format!(
            "has an address without a host, or with a port that is none; {ALLOWED}"
        )),
    }
}

/// `http://host:port` or `https://host:port`.
pub(super) fn http(url: &str) -> Result<(), String> {
    const ALLOWED: &str = "allowed are http:// and https://, as in \"http://127.0.0.1:9324\"";

    match split(url) {
        Some((scheme, place)) if HTTP.contains(&scheme) => {
            let place = place.split('/').next().unwrap_or_default();
            let told =
                || format!("is a URL without a host, or with a port that is none; {ALLOWED}");
            is_place(place).then_some(()).ok_or_else(told)
        }
        Some((scheme, _)) => Err(format!("is a {}URL; {ALLOWED}", shown(scheme))),
        None => Err(format!("is no URL; {ALLOWED}")),
    }
}

/// The scheme and what follows it.
fn split(address: &str) -> Option<(&str, &str)> {
    address.split_once("://")
}

/// A scheme that can be none of a password, for a sentence.
fn shown(scheme: &str) -> String {
    const KNOWN: [&str; 14] = [
        "http", "https", "ws", "wss", "mysql", "mariadb", "sqlite", "mongodb", "redis", "amqp",
        "kafka", "nats", "tls", "postgres",
    ];
    if KNOWN.contains(&scheme) {
        format!("{scheme}:// ")
    } else {
        String::new()
    }
}

/// A host, with or without a user before it and a port behind it.
fn is_place(text: &str) -> bool {
    let place = text.rsplit_once('@').map_or(text, |(_, place)| place);
    let place = place.strip_suffix('/').unwrap_or(place);
    let (host, port) = match place
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        Some((host, "")) => (host, None),
        Some((host, port)) => match port.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None => return false,
        },
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    let is_host = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c == '/');
    is_host && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_postgresql_is_a_database() {
        for url in ["postgres://h/d", "postgresql://u:p@h:5432/d"] {
            assert_eq!(postgres(url), Ok(()));
        }
        for url in ["mysql://u:hunter2@h/d", "hunter2://h", "h/d", ""] {
            let told = postgres(url).unwrap_err();
            assert!(told.contains("postgres://"), "{told}");
            assert!(!told.contains("hunter2"), "{told}");
        }
    }

    #[test]
    fn a_nats_server_has_a_scheme_of_nats_or_none() {
        for server in [
            "nats://127.0.0.1:4222",
            "tls://u:p@h",
            "h:4222",
            "nats://[::1]:4222/",
        ] {
            assert_eq!(nats(server), Ok(()), "{server}");
        }
        for server in ["http://h:4222", "ws://h", "nats://", "h:port", "h:0", ""] {
            assert!(nats(server).is_err(), "{server}");
        }
    }

    #[test]
    fn a_kafka_broker_is_a_host_and_a_port() {
        for broker in ["127.0.0.1:9092", "kafka", "[::1]:9092"] {
            assert_eq!(kafka(broker), Ok(()), "{broker}");
        }
        for broker in [
            "http://h:9092",
            "kafka://h",
            "h:",
            ":9092",
            "a b:1",
            "[::1]9092",
        ] {
            assert!(kafka(broker).is_err(), "{broker}");
        }
    }

    #[test]
    fn an_endpoint_is_an_http_url() {
        for url in [
            "http://127.0.0.1:9324",
            "https://sqs.eu-west-1.amazonaws.com/x",
        ] {
            assert_eq!(http(url), Ok(()), "{url}");
        }
        for url in ["127.0.0.1:9324", "sqs://h", "http://", "http://h:x"] {
            assert!(http(url).is_err(), "{url}");
        }
    }
}

//! Decides whether the relay is of use. Pure. A broker that is down changes nothing: nobody else could do better.

use serde_json::{Value, json};

use crate::stream::{Paused, Role, StreamStatus};

/// Why the relay is of no use now, if so: each stream must be published by it or stand by.
pub(super) fn not_ready(streams: &[StreamStatus]) -> Option<String> {
    let reasons: Vec<String> = streams.iter().filter_map(reason).collect();
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

fn reason(stream: &StreamStatus) -> Option<String> {
    match &stream.role {
        Role::Holder | Role::Standby => None,
        Role::Starting => Some(format!("{}: starting", stream.name)),
        // Why is in the log and in the status: it may name hosts, and this is open to anybody.
        Role::Failing(_) => Some(format!("{}: failing", stream.name)),
    }
}

/// A stream for programs.
pub(super) fn describe(stream: &StreamStatus) -> Value {
    let (role, error) = match &stream.role {
        Role::Starting => ("starting", None),
        Role::Standby => ("standby", None),
        Role::Holder => ("holder", None),
        Role::Failing(why) => ("failing", Some(why)),
    };
    json!({
        "stream": stream.name,
        "role": role,
        "error": error,
        "in_flight": stream.in_flight,
        "destination_paused": stream.destination_paused.as_ref().map(paused),
        "paused_topics": stream.paused_topics.iter().map(paused).collect::<Vec<_>>(),
    })
}

fn paused(pause: &Paused) -> Value {
    let since = time::OffsetDateTime::from(pause.since);
    let since = since.format(&time::format_description::well_known::Rfc3339);
    json!({
        "route": pause.route,
        "kind": pause.kind,
        "reason": pause.what,
        "since": since.ok(),
        "attempts": pause.attempt,
    })
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn stream(role: Role) -> StreamStatus {
        StreamStatus {
            name: "events".to_owned(),
            role,
            ..StreamStatus::default()
        }
    }

    #[test]
    fn a_relay_that_publishes_or_stands_by_is_ready() {
        assert_eq!(
            not_ready(&[stream(Role::Holder), stream(Role::Standby)]),
            None
        );
    }

    #[test]
    fn a_relay_without_its_database_is_not_ready_and_says_no_more_than_that() {
        let failing = stream(Role::Failing("db.internal refused".to_owned()));

        let why = not_ready(&[stream(Role::Holder), failing, stream(Role::Starting)]);

        assert_eq!(why.as_deref(), Some("events: failing; events: starting"));
    }

    #[test]
    fn a_broker_that_is_down_leaves_the_relay_ready() {
        let mut paused = stream(Role::Holder);
        paused.destination_paused = Some(Paused {
            route: String::new(),
            kind: "unavailable",
            what: "no broker".to_owned(),
            since: SystemTime::UNIX_EPOCH,
            attempt: 7,
        });

        assert_eq!(not_ready(std::slice::from_ref(&paused)), None);
        assert_eq!(
            describe(&paused)["destination_paused"]["since"],
            "1970-01-01T00:00:00Z"
        );
    }
}

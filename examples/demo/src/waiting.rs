//! Reads out of a relay's `/status` whether its destination keeps it waiting. For show; the ledger asks nobody.

use std::net::SocketAddr;

use serde::Deserialize;

use crate::http::Connection;

/// What is read of `/status`.
#[derive(Debug, Deserialize)]
struct Status {
    streams: Vec<Stream>,
}

#[derive(Debug, Deserialize)]
struct Stream {
    destination_paused: Option<Paused>,
    #[serde(default)]
    paused_topics: Vec<Paused>,
}

#[derive(Debug, Deserialize)]
struct Paused {
    reason: String,
}

/// Why the relay at `address` waits for its broker; none if it does not, or does not tell.
pub(crate) async fn ask(address: SocketAddr) -> Option<String> {
    let mut connection = Connection::open(address).await.ok()?;
    let answer = connection.get("/status").await.ok()?;
    reason(&answer.body)
}

/// The first reason that stands there.
fn reason(status: &str) -> Option<String> {
    let status: Status = serde_json::from_str(status).ok()?;
    let mut pauses = status.streams.into_iter().flat_map(|stream| {
        stream
            .destination_paused
            .into_iter()
            .chain(stream.paused_topics)
    });
    pauses.next().map(|pause| pause.reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_that_is_paused_is_told_with_its_reason() {
        let paused = r#"{"streams": [{"stream": "events", "role": "holder", "error": null, "in_flight": 7, "paused_topics": [],
            "destination_paused": {"route": "", "kind": "unavailable", "reason": "SQS does not answer", "since": null, "attempts": 1}}]}"#;
        let works = r#"{"streams": [{"stream": "events", "role": "holder", "destination_paused": null, "paused_topics": []}]}"#;

        assert_eq!(reason(paused).as_deref(), Some("SQS does not answer"));
        assert_eq!(reason(works), None);
        assert_eq!(reason("no JSON"), None);
    }
}

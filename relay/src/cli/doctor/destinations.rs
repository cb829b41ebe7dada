//! Asks each stream's destination about the topics that it would be given.

use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use onceward::schema::{Finding, Severity};
use onceward_core::{ErrorKind, PublishError, Publisher as _, Route, Topic, TopicReport};
use serde::Serialize;
use tokio::time::timeout;

use super::remedies;
use crate::cli::output::plain;
use crate::config::StreamConfig;
use crate::destination::{Broker, Destination as _};
use crate::plan::chain;

/// How long a destination may take to answer.
const ANSWER: Duration = Duration::from_secs(15);

/// Destinations that are asked at a time: one that does not answer holds up few others.
const ASKED_AT_ONCE: usize = 8;

/// What a stream's destination says.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Destination {
    pub(in crate::cli) stream: String,
    pub(in crate::cli) broker: &'static str,
    /// Why it cannot be used, if it cannot.
    pub(in crate::cli) error: Option<Refused>,
    pub(in crate::cli) routes: Vec<Asked>,
}

/// What it says about one route.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Asked {
    route: String,
    max_message: Option<u64>,
    warnings: Vec<String>,
    /// Why its settings could not be read, if they could not.
    unread: Option<String>,
    error: Option<Refused>,
}

/// Why something cannot be published to.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Refused {
    kind: &'static str,
    text: String,
    #[serde(skip)]
    remedy: String,
}

impl Refused {
    fn new(error: &PublishError, remedy: String) -> Self {
        Self {
            kind: error.kind.name(),
            text: chain(error),
            remedy,
        }
    }
}

/// Asks all destinations, several at a time; in the order of the streams.
pub(in crate::cli) async fn ask(streams: &[StreamConfig], seen: &[Topic]) -> Vec<Destination> {
    let asked = streams.iter().map(|stream| destination(stream, seen));
    let asked: Vec<_> = asked.collect();
    stream::iter(asked).buffered(ASKED_AT_ONCE).collect().await
}

async fn destination(stream: &StreamConfig, seen: &[Topic]) -> Destination {
    let mut destination = Destination {
        stream: stream.settings.name.clone(),
        broker: stream.destination.broker(),
        error: None,
        routes: Vec::new(),
    };
    let routes: Vec<Route> = stream.settings.known_routes(seen).into_iter().collect();
    match timeout(ANSWER, ask_one(stream, &routes)).await {
        Ok(Ok(reports)) => {
            let asked = reports.into_iter().map(|report| asked(stream, report));
            destination.routes = asked.collect();
        }
        Ok(Err(error)) => destination.error = Some(refused(stream, &error)),
        Err(_) => {
            let what = format!("no answer within {ANSWER:?}");
            let error = PublishError::new(ErrorKind::Unavailable, what);
            destination.error = Some(refused(stream, &error));
        }
    }
    destination
}

/// Why the destination as a whole cannot be used.
fn refused(stream: &StreamConfig, error: &PublishError) -> Refused {
    Refused::new(error, remedies::of(stream, None, error.kind))
}

async fn ask_one(
    stream: &StreamConfig,
    routes: &[Route],
) -> Result<Vec<TopicReport>, PublishError> {
    let broker = Broker::new(&stream.destination).map_err(|error| {
        PublishError::with_source(
            ErrorKind::Unavailable,
            "its settings do not work together",
            error,
        )
    })?;
    let mut session = broker.open().await?;
    // No routes, or none that is fit to be asked about, say nothing of the broker.
    session.reach().await?;
    let reports = session.check(routes).await;
    session.close(Duration::ZERO).await;
    Ok(reports)
}

fn asked(stream: &StreamConfig, report: TopicReport) -> Asked {
    let refused = |route: &str, error: &PublishError| {
        Refused::new(error, remedies::of(stream, Some(route), error.kind))
    };
    let route = report.route.to_string();
    match report.state {
        Ok(state) => Asked {
            route,
            max_message: state.max_message,
            warnings: state.warnings,
            unread: state.unread,
            error: None,
        },
        Err(error) => Asked {
            max_message: None,
            warnings: Vec::new(),
            unread: None,
            error: Some(refused(&route, &error)),
            route,
        },
    }
}

/// What is wrong with a destination.
pub(in crate::cli) fn findings(destination: &Destination) -> Vec<Finding> {
    let (stream, broker) = (&destination.stream, destination.broker);
    let of = |severity, code, text: String, remedy: &str| Finding {
        severity,
        code,
        text: format!("stream {stream} ({broker}): {text}"),
        remedy: remedy.to_owned(),
    };
    let mut findings = Vec::new();
    if let Some(error) = &destination.error {
        findings.push(of(
            Severity::Problem,
            "destination",
            error.text.clone(),
            &error.remedy,
        ));
    }
    for asked in &destination.routes {
        let route = &asked.route;
        if let Some(error) = &asked.error {
            let text = format!("{route}: {}", error.text);
            findings.push(of(Severity::Problem, "route", text, &error.remedy));
        }
        for warning in &asked.warnings {
            let text = format!("{route}: {warning}");
            let remedy = "change it on the broker, or accept what it means";
            findings.push(of(Severity::Warning, "route_settings", text, remedy));
        }
        if let Some(unread) = &asked.unread {
            let text = format!("{route}: {unread}");
            let remedy = "look again in a while; if it stays so, look at the broker's log";
            findings.push(of(Severity::Warning, "route_settings", text, remedy));
        }
    }
    findings
}

/// A destination for people.
pub(in crate::cli) fn line(destination: &Destination) -> String {
    let name = format!("stream {} to {}", destination.stream, destination.broker);
    if destination.error.is_some() {
        return format!("{name}: cannot be used\n");
    }
    let good = destination
        .routes
        .iter()
        .filter(|asked| asked.error.is_none());
    let routes: Vec<String> = good
        .map(|asked| match asked.max_message {
            Some(bytes) => format!("{} (up to {bytes} bytes)", plain(&asked.route)),
            None => plain(&asked.route),
        })
        .collect();
    match routes.len() {
        0 if destination.routes.is_empty() => format!("{name}: reached; no topics are known yet\n"),
        0 => format!("{name}: reached\n"),
        _ => format!("{name}: {}\n", routes.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(error: Option<ErrorKind>, warnings: &[&str]) -> Destination {
        Destination {
            stream: "events".to_owned(),
            broker: "kafka",
            error: None,
            routes: vec![Asked {
                route: "orders".to_owned(),
                max_message: Some(1_000),
                warnings: warnings.iter().map(|w| (*w).to_owned()).collect(),
                unread: None,
                error: error.map(|kind| {
                    let error = PublishError::new(kind, "no such topic");
                    Refused::new(&error, "create it".to_owned())
                }),
            }],
        }
    }

    #[test]
    fn a_missing_topic_is_a_problem_and_a_setting_is_a_warning() {
        let missing = findings(&destination(Some(ErrorKind::UnknownTopic), &[]));
        let setting = findings(&destination(None, &["acks are not all"]));

        assert_eq!(missing[0].severity, Severity::Problem);
        assert!(
            missing[0]
                .text
                .contains("events (kafka): orders: no such topic")
        );
        assert_eq!(setting[0].severity, Severity::Warning);
    }

    #[test]
    fn settings_that_were_not_read_are_a_warning_of_their_own() {
        let mut destination = destination(None, &[]);
        destination.routes[0].unread = Some("its settings cannot be read now".to_owned());

        let found = findings(&destination);

        assert_eq!(found.len(), 1);
        assert_eq!(found[0].severity, Severity::Warning);
        assert!(
            found[0]
                .text
                .contains("orders: its settings cannot be read now")
        );
        assert!(found[0].remedy.starts_with("look again"));
    }

    #[test]
    fn a_route_that_works_is_shown_with_its_limit() {
        assert_eq!(
            line(&destination(None, &[])),
            "stream events to kafka: orders (up to 1000 bytes)\n"
        );
    }
}

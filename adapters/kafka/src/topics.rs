//! What the cluster tells about topics: whether they exist, their limits, and settings that would lose messages.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use onceward_core::{ErrorKind, PublishError, Route, TopicReport, TopicState};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use tracing::{debug, warn};

use crate::errors::{self, publish_error};

/// How long a question may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What is known of topics, shared by all sessions of a cluster.
pub(crate) struct Topics {
    admin: Option<Arc<AdminClient<DefaultClientContext>>>,
    // Sessions and checks of several tasks look things up in passing; nobody waits while holding it.
    known: Mutex<HashMap<Route, Known>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Known {
    limit: Option<u64>,
    partitions: Option<usize>,
}

impl Topics {
    pub(crate) fn new(client: &ClientConfig) -> KafkaResult<Self> {
        Ok(Self {
            admin: Some(Arc::new(client.create()?)),
            known: Mutex::default(),
        })
    }

    /// The limit of a topic as last read, if it was read: `Some(None)` when the broker does not tell.
    pub(crate) fn limit(&self, route: &Route) -> Option<Option<u64>> {
        self.locked().get(route).map(|known| known.limit)
    }

    /// The smallest limit known: a request that stays below it is refused for its size by no topic.
    pub(crate) fn smallest_limit(&self) -> Option<u64> {
        let known = self.locked();
        known.values().filter_map(|known| known.limit).min()
    }

    /// Forgets the limits of topics that refused something: they may have changed.
    pub(crate) fn forget(&self, routes: &[Route]) {
        let mut known = self.locked();
        for route in routes {
            known.remove(route);
        }
    }

    /// Reads the limits of these topics again. One that cannot be read stays as it was.
    pub(crate) async fn learn_limits(&self, routes: &[Route]) {
        for (route, settings) in routes.iter().zip(self.describe(routes).await) {
            match settings {
                Ok(settings) => {
                    self.locked().entry(route.clone()).or_default().limit = limit(&settings);
                }
                Err(error) if errors::kind(error) == ErrorKind::Unauthorized => {
                    // Without the right to ask, the broker's refusal has to tell.
                    self.locked().entry(route.clone()).or_default();
                }
                Err(error) => debug!(%route, %error, "limits of a topic cannot be read now"),
            }
        }
    }

    /// Asks the cluster for its metadata, of all topics: the library has no smaller question whose answer tells why there is none.
    pub(crate) async fn reach(&self) -> Result<(), PublishError> {
        let what = "Kafka does not answer";
        let gone = || PublishError::new(ErrorKind::Unavailable, what);
        let admin = self.admin.clone().ok_or_else(gone)?;
        // The library's call blocks.
        let asked = tokio::task::spawn_blocking(move || {
            let answer = admin.inner().fetch_metadata(None, ANSWER_WITHIN);
            answer.map(drop)
        });
        let asked = asked.await.map_err(|_| gone())?;
        asked.map_err(|error| publish_error(what, error))
    }

    /// Existence, limits and questionable settings, one report per route, in order.
    pub(crate) async fn check(&self, routes: &[Route]) -> Vec<TopicReport> {
        let found = join_all(routes.iter().map(|route| self.find(route))).await;
        let settings = self.describe(routes).await;
        let pairs = found.into_iter().zip(settings);
        let reports = routes.iter().zip(pairs).map(|(route, (found, settings))| {
            let state = found.map(|found| self.report(route, &found, settings));
            TopicReport {
                route: route.clone(),
                state,
            }
        });
        reports.collect()
    }

    fn report(
        &self,
        route: &Route,
        found: &Found,
        settings: Result<ConfigResource, RDKafkaErrorCode>,
    ) -> TopicState {
        let (mut warnings, mut unread) = (Vec::new(), None);
        let mut known = self.locked();
        let before = known.get(route).and_then(|known| known.partitions);
        if let Some(before) = before.filter(|before| *before != found.partitions) {
            warn!(%route, before, now = found.partitions, "a topic's partition count has changed; keys may have moved");
            warnings.push(format!(
                "the partition count went from {before} to {}: keys may have moved, and until consumers have read what was there before, order per key does not hold",
                found.partitions
            ));
        }
        match settings {
            Ok(settings) => {
                known.entry(route.clone()).or_default().limit = limit(&settings);
                warnings.extend(questionable(&settings, found.replicas));
            }
            Err(error) if errors::kind(error) == ErrorKind::Unauthorized => {
                known.entry(route.clone()).or_default();
                warnings.push(format!(
                    "its settings cannot be read ({error}): grant DescribeConfigs on the topic, so that limits are known before the broker refuses"
                ));
            }
            // A topic that is not known yet stays so: a session that meets it reads its limit.
            Err(error) => unread = Some(format!("its settings cannot be read now ({error})")),
        }
        if let Some(known) = known.get_mut(route) {
            known.partitions = Some(found.partitions);
        }
        TopicState {
            max_message: known.get(route).and_then(|known| known.limit),
            warnings,
            unread,
        }
    }

    async fn find(&self, route: &Route) -> Result<Found, PublishError> {
        let what = || format!("the topic {route} cannot be looked up");
        let gone = || PublishError::new(ErrorKind::Unavailable, what());
        let admin = self.admin.clone().ok_or_else(gone)?;
        let name = route.as_str().to_owned();
        // The library's call blocks.
        let asked = tokio::task::spawn_blocking(move || find(&admin, &name)).await;
        asked
            .map_err(|_| gone())?
            .map_err(|error| publish_error(what(), error))
    }

    async fn describe(&self, routes: &[Route]) -> Vec<Result<ConfigResource, RDKafkaErrorCode>> {
        // One question per topic: a refusal does not say which topic it is about.
        let questions = routes.iter().map(|route| async move {
            let admin = self.admin.as_ref().ok_or(RDKafkaErrorCode::BrokerDestroy)?;
            let options = AdminOptions::new().request_timeout(Some(ANSWER_WITHIN));
            let topic = [ResourceSpecifier::Topic(route.as_str())];
            match admin.describe_configs(&topic, &options).await {
                Ok(answers) => answers
                    .into_iter()
                    .next()
                    .unwrap_or(Err(RDKafkaErrorCode::Unknown)),
                Err(error) => Err(error
                    .rdkafka_error_code()
                    .unwrap_or(RDKafkaErrorCode::OperationTimedOut)),
            }
        });
        join_all(questions).await
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<Route, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Topics {
    fn drop(&mut self) {
        if let Some(admin) = self.admin.take() {
            // Its end blocks, and may be waited for on an asynchronous thread.
            std::thread::spawn(move || drop(admin));
        }
    }
}

struct Found {
    partitions: usize,
    replicas: usize,
}

fn find(admin: &AdminClient<DefaultClientContext>, name: &str) -> KafkaResult<Found> {
    let answer = admin.inner().fetch_metadata(Some(name), ANSWER_WITHIN)?;
    let missing = KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition);
    let mut topics = answer.topics().iter();
    let topic = topics.find(|topic| topic.name() == name).ok_or(missing)?;
    if let Some(error) = topic.error() {
        return Err(KafkaError::MetadataFetch(error.into()));
    }
    if topic.partitions().iter().any(|one| one.leader() < 0) {
        return Err(KafkaError::MetadataFetch(
            RDKafkaErrorCode::LeaderNotAvailable,
        ));
    }
    let replicas = topic.partitions().iter().map(|one| one.replicas().len());
    Ok(Found {
        partitions: topic.partitions().len(),
        replicas: replicas.min().unwrap_or(0),
    })
}

fn limit(settings: &ConfigResource) -> Option<u64> {
    text(settings, "max.message.bytes")?.parse().ok()
}

fn text<'a>(settings: &'a ConfigResource, name: &str) -> Option<&'a str> {
    settings.get(name)?.value.as_deref()
}

/// Settings of a topic that could lose or reorder messages, each with what to change.
fn questionable(settings: &ConfigResource, replicas: usize) -> Vec<String> {
    let mut warnings = Vec::new();
    let in_sync = text(settings, "min.insync.replicas").and_then(|text| text.parse::<usize>().ok());
    if replicas < 2 {
        warnings.push(
            "it has one replica: a lost disk loses messages that were confirmed; use three"
                .to_owned(),
        );
    } else if in_sync.is_some_and(|in_sync| in_sync < 2) {
        warnings.push(
            "min.insync.replicas is 1: a message is confirmed when one replica has it; set it to 2"
                .to_owned(),
        );
    }
    if text(settings, "unclean.leader.election.enable") == Some("true") {
        warnings.push(
            "unclean.leader.election.enable is true: confirmed messages are lost when a replica that lags behind becomes leader; set it to false"
                .to_owned(),
        );
    }
    if text(settings, "cleanup.policy").is_some_and(|policy| policy.contains("compact")) {
        warnings.push(
            "cleanup.policy is compact: older messages of a key are removed, also unread ones, and messages without a key are refused"
                .to_owned(),
        );
    }
    warnings
}

#[cfg(test)]
mod tests {
    use rdkafka::admin::{ConfigEntry, ConfigSource, OwnedResourceSpecifier};

    use super::*;

    const FOUND: Found = Found {
        partitions: 3,
        replicas: 3,
    };

    fn topics() -> Topics {
        Topics {
            admin: None,
            known: Mutex::default(),
        }
    }

    fn settings(name: &str, value: &str) -> ConfigResource {
        ConfigResource {
            specifier: OwnedResourceSpecifier::Topic("orders".to_owned()),
            entries: vec![ConfigEntry {
                name: name.to_owned(),
                value: Some(value.to_owned()),
                source: ConfigSource::DynamicTopic,
                is_read_only: false,
                is_default: false,
                is_sensitive: false,
            }],
        }
    }

    #[test]
    fn settings_that_could_not_be_read_this_time_are_no_lack_of_rights_and_are_read_later() {
        let (topics, route) = (topics(), Route::new("orders"));

        for code in [
            RDKafkaErrorCode::OperationTimedOut,
            RDKafkaErrorCode::BrokerTransportFailure,
            RDKafkaErrorCode::CoordinatorLoadInProgress,
        ] {
            let state = topics.report(&route, &FOUND, Err(code));

            assert!(state.warnings.is_empty(), "{:?}", state.warnings);
            assert!(state.unread.is_some(), "{code:?}");
            assert_eq!(topics.limit(&route), None, "{code:?}");
        }
        let state = topics.report(&route, &FOUND, Ok(settings("max.message.bytes", "1000")));
        assert_eq!((state.max_message, state.unread), (Some(1_000), None));
    }

    #[test]
    fn a_limit_that_was_read_outlasts_a_question_that_failed() {
        let (topics, route) = (topics(), Route::new("orders"));
        topics.report(&route, &FOUND, Ok(settings("max.message.bytes", "1000")));
        let more = Found {
            partitions: 6,
            replicas: 3,
        };

        let state = topics.report(&route, &more, Err(RDKafkaErrorCode::OperationTimedOut));

        assert_eq!(state.max_message, Some(1_000));
        assert_eq!(topics.limit(&route), Some(Some(1_000)));
        assert!(state.warnings[0].contains("from 3 to 6"), "{state:?}");
    }

    #[test]
    fn who_may_not_read_settings_is_told_which_right_is_missing() {
        let (topics, route) = (topics(), Route::new("orders"));
        let refused = Err(RDKafkaErrorCode::TopicAuthorizationFailed);

        let state = topics.report(&route, &FOUND, refused);

        assert!(state.warnings[0].contains("DescribeConfigs"), "{state:?}");
        assert_eq!(state.unread, None);
        assert_eq!(topics.limit(&route), Some(None));
    }
}

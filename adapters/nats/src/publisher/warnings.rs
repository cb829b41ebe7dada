//! Settings of a stream that could lose or repeat messages, each with what to change. Pure.

use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType};
use onceward_core::{ErrorKind, PublishError};

/// Below this, a relay that restarts may publish again what the stream no longer recognises.
const SHORT_DEDUPE: Duration = Duration::from_secs(30);

/// Why nothing can be published through this stream, if so.
pub(crate) fn refusal(config: &Config) -> Option<PublishError> {
    let name = &config.name;
    if config.no_ack {
        return Some(PublishError::new(
            ErrorKind::UnknownTopic,
            format!("stream {name} has no_ack set: nothing can be confirmed; unset it"),
        ));
    }
    if config.sealed {
        return Some(PublishError::new(
            ErrorKind::Unauthorized,
            format!("stream {name} is sealed and takes no messages; make another one"),
        ));
    }
    None
}

/// What could lose or repeat messages.
pub(crate) fn warnings(info: &Info) -> Vec<String> {
    let config = &info.config;
    let name = &config.name;
    let mut warnings = Vec::new();
    if let Some(limits) = limits(config).filter(|_| config.discard == DiscardPolicy::Old) {
        warnings.push(format!(
            "stream {name} removes its oldest messages at {limits}, read or not; set discard = new, so that it refuses new ones instead"
        ));
    }
    if !config.max_age.is_zero() {
        warnings.push(format!(
            "stream {name} removes messages after {:?}, read or not; keep max_age longer than any consumer may be away",
            config.max_age
        ));
    }
    if config.storage == StorageType::Memory {
        warnings.push(format!(
            "stream {name} lies in memory and is lost when its servers stop; use file storage"
        ));
    }
    if config.retention == RetentionPolicy::Interest {
        warnings.push(format!(
            "stream {name} keeps messages only for durables that exist; make them before anything is published, or use limits retention"
        ));
    }
    if config.duplicate_window < SHORT_DEDUPE {
        warnings.push(format!(
            "stream {name} recognises duplicates for {:?} only; a duplicate_window of 2m spares consumers most copies",
            config.duplicate_window
        ));
    }
    let clustered = info.cluster.as_ref().is_some_and(|c| c.name.is_some());
    if clustered && config.num_replicas < 3 {
        warnings.push(format!(
            "stream {name} has {} replica(s) in a cluster; with 3 it survives the loss of a server",
            config.num_replicas
        ));
    }
    warnings
}

fn limits(config: &Config) -> Option<String> {
    let limits = [
        ("max_msgs", config.max_messages),
        ("max_bytes", config.max_bytes),
        ("max_msgs_per_subject", config.max_messages_per_subject),
    ];
    let set: Vec<String> = limits
        .into_iter()
        .filter(|(_, limit)| *limit > 0)
        .map(|(limit, value)| format!("{limit} = {value}"))
        .collect();
    (!set.is_empty()).then(|| set.join(", "))
}

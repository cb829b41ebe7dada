//! Shared servers that are not processes of ours: named in the environment, or started in a container.

use std::env;

/// The URL of a PostgreSQL, if one is named or a container can be had, and no directory of programs is named instead.
pub(crate) async fn postgres() -> Option<String> {
    if let Ok(url) = env::var("ONCEWARD_TEST_POSTGRES_URL") {
        return Some(url);
    }
    if env::var_os("ONCEWARD_TEST_POSTGRES_BIN").is_some() {
        return None;
    }
    #[cfg(feature = "containers")]
    let container = crate::containers::postgres().await;
    #[cfg(not(feature = "containers"))]
    let container = None;
    container
}

/// The URL of a NATS server, if one is named or a container can be had.
pub(crate) async fn nats() -> Option<String> {
    if let Ok(url) = env::var("ONCEWARD_TEST_NATS_URL") {
        return Some(url);
    }
    #[cfg(feature = "containers")]
    let container = crate::containers::nats().await;
    #[cfg(not(feature = "containers"))]
    let container = None;
    container
}

/// The address of a Kafka broker, if one is named or a container can be had.
pub(crate) async fn kafka() -> Option<String> {
    if let Ok(brokers) = env::var("ONCEWARD_TEST_KAFKA_BROKERS") {
        return Some(brokers);
    }
    #[cfg(feature = "containers")]
    let container = crate::containers::kafka().await;
    #[cfg(not(feature = "containers"))]
    let container = None;
    container
}

/// The URL of a server that speaks SQS, if one is named.
pub(crate) fn sqs() -> Option<String> {
    env::var("ONCEWARD_TEST_SQS_URL").ok()
}

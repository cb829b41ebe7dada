//! librdkafka's own log, on its way to ours.

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use tracing::{debug, info, warn};

/// Writes a line of librdkafka's log.
pub(crate) fn line(level: RDKafkaLogLevel, facility: &str, text: &str) {
    // Properties are shared by all kinds of clients, so that each kind complains about those of the others.
    if facility == "CONFWARN" {
        debug!(target: "librdkafka", facility, text, "librdkafka says");
        return;
    }
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error
        | RDKafkaLogLevel::Warning => {
            warn!(target: "librdkafka", facility, text, "librdkafka says");
        }
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
            info!(target: "librdkafka", facility, text, "librdkafka says");
        }
        RDKafkaLogLevel::Debug => {
            debug!(target: "librdkafka", facility, text, "librdkafka says");
        }
    }
}

/// Writes an error that a client reports about itself. What follows from it is decided elsewhere.
pub(crate) fn client_error(error: &KafkaError, reason: &str) {
    info!(target: "librdkafka", %error, reason, "client reports an error");
}

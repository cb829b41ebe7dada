//! What a consumer counts.

use std::time::Duration;

use metrics::{counter, gauge, histogram};

use crate::ConsumerName;
use crate::plan::Outcome;

/// The metrics of one consumer.
#[derive(Debug, Clone)]
pub(crate) struct Meters {
    consumer: String,
}

impl Meters {
    pub(crate) fn new(consumer: &ConsumerName) -> Self {
        metrics::describe_gauge!(
            "onceward_consumer_lag_seconds",
            metrics::Unit::Seconds,
            "Age of the oldest message that is not settled; 0 only if the broker has none"
        );
        metrics::describe_counter!(
            "onceward_handled_total",
            "Settled deliveries by outcome: handled, deferred, duplicate, dead, expired, ignored"
        );
        metrics::describe_histogram!(
            "onceward_handle_duration_seconds",
            metrics::Unit::Seconds,
            "Attempts from the begin of the transaction to its end"
        );
        metrics::describe_counter!(
            "onceward_redelivered_total",
            "Deliveries that the broker says it has made before"
        );
        metrics::describe_gauge!(
            "onceward_dead_letters",
            "Dead letters that wait for a person"
        );
        metrics::describe_gauge!(
            "onceward_retries",
            "Messages that wait in the database for another attempt, or behind one of their key"
        );
        metrics::describe_counter!(
            "onceward_handler_failures_total",
            "Attempts that failed and count"
        );
        metrics::describe_counter!(
            "onceward_batches_split_total",
            "Batches that failed, whose messages are handled one by one"
        );
        metrics::describe_counter!(
            "onceward_handler_overdue_total",
            "Attempts that did not end at their deadline, because the handler blocks its thread"
        );
        metrics::describe_counter!(
            "onceward_paused_total",
            "Pauses of a type of which most messages failed"
        );
        metrics::describe_gauge!(
            "onceward_paused_types",
            "Types that are paused because most of their messages fail"
        );
        metrics::describe_counter!(
            "onceward_skipped_by_retention_total",
            "Messages that the broker's retention removed before they were delivered"
        );
        Self {
            consumer: consumer.as_str().to_owned(),
        }
    }

    pub(crate) fn settled(&self, outcome: Outcome) {
        counter!("onceward_handled_total", "consumer" => self.consumer.clone(), "outcome" => outcome.name()).increment(1);
    }

    pub(crate) fn ran(&self, took: Duration) {
        histogram!("onceward_handle_duration_seconds", "consumer" => self.consumer.clone())
            .record(took);
    }

    pub(crate) fn split(&self) {
        counter!("onceward_batches_split_total", "consumer" => self.consumer.clone()).increment(1);
    }

    pub(crate) fn failed(&self) {
        counter!("onceward_handler_failures_total", "consumer" => self.consumer.clone())
            .increment(1);
    }

    pub(crate) fn redelivered(&self) {
        counter!("onceward_redelivered_total", "consumer" => self.consumer.clone()).increment(1);
    }

    pub(crate) fn overdue(&self) {
        counter!("onceward_handler_overdue_total", "consumer" => self.consumer.clone())
            .increment(1);
    }

    pub(crate) fn paused(&self) {
        counter!("onceward_paused_total", "consumer" => self.consumer.clone()).increment(1);
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    pub(crate) fn paused_types(&self, count: usize) {
        gauge!("onceward_paused_types", "consumer" => self.consumer.clone()).set(count as f64);
    }

    pub(crate) fn jumped(&self, count: u64) {
        counter!("onceward_skipped_by_retention_total", "consumer" => self.consumer.clone())
            .increment(count);
    }

    pub(crate) fn lag(&self, lag: Duration) {
        gauge!("onceward_consumer_lag_seconds", "consumer" => self.consumer.clone())
            .set(lag.as_secs_f64());
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    pub(crate) fn dead_letters(&self, count: i64) {
        gauge!("onceward_dead_letters", "consumer" => self.consumer.clone()).set(count as f64);
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    pub(crate) fn retries(&self, count: i64) {
        gauge!("onceward_retries", "consumer" => self.consumer.clone()).set(count as f64);
    }
}

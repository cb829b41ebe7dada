//! Decides whether the ring of slots can hold what is to be retained. Pure.

use std::time::Duration;

use onceward::schema::{Finding, Settings, Severity};

use crate::config::show_duration;

/// Slots that are not there for retained messages: the current one, the next, and the one that is being filled while
/// the oldest message of a slot comes of age.
const SPARE: i32 = 3;

/// What is wrong with the retention, if the ring cannot hold it.
pub(in crate::cli) fn holds(retention: Duration, settings: Option<&Settings>) -> Option<Finding> {
    let settings = settings?;
    let longest = longest(settings);
    (retention > longest).then(|| Finding {
        severity: Severity::Problem,
        code: "retention",
        text: format!(
            "messages are to be kept for {}, and the ring of {} slots can hold {}: no slot would ever become free",
            show_duration(retention),
            settings.message_slots,
            show_duration(longest)
        ),
        remedy: "lower retention.messages".to_owned(),
    })
}

/// The longest retention that the ring can hold.
fn longest(settings: &Settings) -> Duration {
    let slots = u32::try_from(i32::from(settings.message_slots) - SPARE).unwrap_or_default();
    let seconds = u64::try_from(settings.message_slot_seconds).unwrap_or_default();
    Duration::from_secs(seconds) * slots
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn settings() -> Settings {
        Settings {
            message_slots: 12,
            message_slot_seconds: 86_400,
            mark_slots: 12,
            mark_slot_seconds: 86_400,
            max_payload: 1_000_000,
        }
    }

    #[test]
    fn three_slots_are_not_there_for_retained_messages() {
        assert!(holds(9 * DAY, Some(&settings())).is_none());
        let finding = holds(9 * DAY + Duration::from_secs(1), Some(&settings())).unwrap();
        assert!(finding.text.contains("can hold 9days"), "{}", finding.text);
    }

    #[test]
    fn a_database_without_the_schema_has_other_problems() {
        assert!(holds(100 * DAY, None).is_none());
    }
}

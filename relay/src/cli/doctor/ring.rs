//! Decides what is wrong with the ring of slots: whether it can hold what is to be retained, and what keeps old slots
//! from being emptied. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use onceward::schema::{Finding, Settings, Severity, StreamOverview, UNROUTED_REMEDY};
use onceward::{Reason, Ring, SlotReport};

use crate::config::show_duration;

/// What is wrong with the retention, if the ring cannot hold it.
pub(in crate::cli) fn holds(retention: Duration, settings: Option<&Settings>) -> Option<Finding> {
    let settings = settings?;
    let ring = Ring {
        slots: settings.message_slots,
        slot_length: Duration::from_secs(u64::from(settings.message_slot_seconds.unsigned_abs())),
    };
    let error = ring.check_retention(retention).err()?;
    Some(Finding {
        severity: Severity::Problem,
        code: "retention",
        text: format!(
            "messages are to be kept for {}, and the ring of {} slots can hold {}: no slot would ever become free",
            show_duration(retention),
            ring.slots,
            show_duration(error.longest)
        ),
        remedy: "lower retention.messages".to_owned(),
    })
}

/// What keeps slots whose messages are old enough: one finding for each reason, with the slots that it keeps.
pub(super) fn kept(reports: &[SlotReport], streams: &[StreamOverview]) -> Vec<Finding> {
    let mut slots: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for report in reports.iter().filter(|report| is_due(report)) {
        for said in report.reasons.iter().filter_map(|r| say(r, streams)) {
            slots.entry(said).or_default().push(report.slot.to_string());
        }
    }
    let finding = |((why, remedy), slots): ((String, String), Vec<String>)| Finding {
        severity: Severity::Warning,
        code: "slot_kept",
        text: format!(
            "slots of the log that are old enough cannot be emptied ({}): {why}",
            slots.join(", ")
        ),
        remedy,
    };
    slots.into_iter().map(finding).collect()
}

/// Whether the slot would be emptied but for a reason that a person can do something about.
fn is_due(report: &SlotReport) -> bool {
    !report.reasons.iter().any(|reason| match reason {
        Reason::Current | Reason::Next | Reason::Empty | Reason::Young => true,
        Reason::NoStreams
        | Reason::Unread { .. }
        | Reason::NoCursor { .. }
        | Reason::Unrouted { .. }
        | Reason::Busy => false,
    })
}

/// What to do about a stream that is behind: nobody is told to drop one that a relay holds.
fn remedy(stream: &str, streams: &[StreamOverview], run: &str) -> String {
    let known = streams.iter().find(|known| known.stream == *stream);
    match known.and_then(StreamOverview::holder) {
        Some(owner) => {
            format!("{owner} holds the stream: look at its log and at `onceward status`")
        }
        None => format!("{run}, or give the stream up with `onceward stream drop {stream}`"),
    }
}

/// Why, and what to do.
fn say(reason: &Reason, streams: &[StreamOverview]) -> Option<(String, String)> {
    let (why, remedy) = match reason {
        Reason::Current | Reason::Next | Reason::Empty | Reason::Young | Reason::Busy => {
            return None;
        }
        Reason::NoStreams => (
            "no stream reads the log".to_owned(),
            "run a relay with a stream; it says by its topics what may go".to_owned(),
        ),
        Reason::Unread {
            stream,
            lane,
            detour,
        } => {
            let part = if detour.is_empty() {
                String::new()
            } else {
                format!(" (detour {detour})")
            };
            (
                format!("the stream {stream} has not published all of its lane {lane}{part}"),
                remedy(
                    stream,
                    streams,
                    "run its relay and look at `onceward status`",
                ),
            )
        }
        Reason::NoCursor { stream, lane } => (
            format!("the stream {stream} has no cursor for the lane {lane}"),
            remedy(stream, streams, "run its relay once"),
        ),
        Reason::Unrouted { topic } => (
            format!("no stream reads the topic {topic}"),
            UNROUTED_REMEDY.to_owned(),
        ),
    };
    Some((why, remedy))
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

    fn report(slot: i16, reasons: &[Reason]) -> SlotReport {
        SlotReport {
            slot,
            emptied: false,
            reasons: reasons.to_vec(),
        }
    }

    fn unread() -> Reason {
        Reason::Unread {
            stream: "events".to_owned(),
            lane: "bulk",
            detour: String::new(),
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

    #[test]
    fn what_keeps_an_old_slot_is_told_once_with_all_slots() {
        let findings = kept(&[report(1, &[unread()]), report(2, &[unread()])], &[]);

        assert_eq!(findings.len(), 1);
        for part in ["(1, 2)", "events", "lane bulk"] {
            assert!(findings[0].text.contains(part), "{}", findings[0].text);
        }
    }

    #[test]
    fn a_slot_that_is_not_old_enough_or_in_use_is_no_finding() {
        let reports = [
            report(1, &[Reason::Young, unread()]),
            report(2, &[Reason::Current, Reason::NoStreams]),
            report(3, &[Reason::Empty]),
            report(4, &[]),
        ];

        assert_eq!(kept(&reports, &[]), []);
    }
}

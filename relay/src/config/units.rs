//! Sizes and durations with their units. Pure.

use std::time::Duration;

/// Units of sizes, longest names first.
const UNITS: [(&str, u64); 7] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

/// A size in bytes out of a text such as `256KiB`.
pub(super) fn size(text: &str) -> Result<u64, &'static str> {
    const ADVICE: &str =
        "must be a whole number with a unit (B, kB, KiB, MB, MiB, GB, GiB), as in \"256KiB\"";
    let text = text.trim();
    let (number, factor) = UNITS
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))
        .ok_or(ADVICE)?;
    let number: u64 = number.trim_end().parse().map_err(|_| ADVICE)?;
    number.checked_mul(factor).ok_or("is too large")
}

/// A size as people write it.
pub(super) fn show_size(bytes: u64) -> String {
    let binary = UNITS[..3].iter().rev();
    let unit = binary
        .clone()
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor));
    match unit {
        Some((unit, factor)) => format!("{}{unit}", bytes / factor),
        None => format!("{bytes}B"),
    }
}

/// A duration out of a text such as `30s` or `1h 30m`.
pub(super) fn duration(text: &str) -> Result<Duration, &'static str> {
    humantime::parse_duration(text)
        .map_err(|_| "must be a duration with a unit (ms, s, m, h, d), as in \"30s\"")
}

/// A duration as people write it.
pub(crate) fn show_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_carries_its_unit() {
        assert_eq!(size("256KiB"), Ok(262_144));
        assert_eq!(size("1 MB"), Ok(1_000_000));
        assert_eq!(size("17B"), Ok(17));
        for text in ["", "256", "KiB", "-1KiB", "1.5MiB", "1TiB", "1kib"] {
            assert!(size(text).is_err(), "{text:?}");
        }
        assert_eq!(size("99999999999999999GiB"), Err("is too large"));
    }

    #[test]
    fn a_size_is_shown_as_it_is_written() {
        for text in ["256KiB", "16MiB", "4GiB", "17B"] {
            assert_eq!(size(text).map(show_size), Ok(text.to_owned()));
        }
    }

    #[test]
    fn a_duration_carries_its_unit() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("1h 30m"), Ok(Duration::from_secs(5_400)));
        assert!(duration("30").is_err());
        assert!(duration("soon").is_err());
    }
}

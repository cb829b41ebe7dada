//! The priority class of a message. Each lane has its own cursor, so bulk never delays critical.

use std::fmt;
use std::str::FromStr;

/// Priority class of the log. One key written to two lanes has no order between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Lane {
    /// Read first.
    Critical,
    /// What messages use unless told otherwise.
    #[default]
    Standard,
    /// Backfills and exports.
    Bulk,
}

impl Lane {
    /// Every lane, most urgent first.
    pub const ALL: [Self; 3] = [Self::Critical, Self::Standard, Self::Bulk];

    /// The number stored in the log.
    #[must_use]
    pub const fn number(self) -> i16 {
        match self {
            Self::Critical => 0,
            Self::Standard => 1,
            Self::Bulk => 2,
        }
    }

    /// The lane of a stored number.
    #[must_use]
    pub const fn from_number(number: i16) -> Option<Self> {
        match number {
            0 => Some(Self::Critical),
            1 => Some(Self::Standard),
            2 => Some(Self::Bulk),
            _ => None,
        }
    }

    /// The lane's name in SQL, metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Standard => "standard",
            Self::Bulk => "bulk",
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text names no lane.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown lane {0:?}: allowed are critical, standard and bulk")]
pub struct UnknownLane(pub String);

impl FromStr for Lane {
    type Err = UnknownLane;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|lane| lane.name() == text)
            .ok_or_else(|| UnknownLane(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_survives_its_number_and_its_name() {
        for lane in Lane::ALL {
            assert_eq!(Lane::from_number(lane.number()), Some(lane));
            assert_eq!(lane.name().parse(), Ok(lane));
        }
    }

    #[test]
    fn an_unknown_lane_is_refused_with_what_is_allowed() {
        let error = "urgent".parse::<Lane>().unwrap_err();

        assert!(error.to_string().contains("critical, standard and bulk"));
        assert_eq!(Lane::from_number(7), None);
    }
}

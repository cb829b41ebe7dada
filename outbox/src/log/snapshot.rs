//! A snapshot of Postgres as numbers: which transactions had ended when a statement looked.

use std::fmt;
use std::str::FromStr;

/// The visibility of a statement, as `pg_current_snapshot()` tells it.
///
/// Written as Postgres writes it, `xmin:xmax:xip`: transactions below `xmin` had ended, those at or above
/// `xmax` had not, and those between had ended unless `xip` names them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Snapshot {
    xmin: u64,
    xmax: u64,
    running: Vec<u64>,
}

impl Snapshot {
    /// A snapshot from its parts; `running` is sorted and freed of what is not between `xmin` and `xmax`.
    ///
    /// # Errors
    /// [`SnapshotError`] if `xmin` is 0 or above `xmax`.
    pub fn new(xmin: u64, xmax: u64, mut running: Vec<u64>) -> Result<Self, SnapshotError> {
        if xmin == 0 || xmin > xmax {
            return Err(SnapshotError(format!("{xmin}:{xmax}:")));
        }
        running.retain(|xid| (xmin..xmax).contains(xid));
        running.sort_unstable();
        running.dedup();
        Ok(Self {
            xmin,
            xmax,
            running,
        })
    }

    /// Whether the transaction had ended when this snapshot was taken. Its rows are visible then, if it committed.
    #[must_use]
    pub fn sees(&self, txid: u64) -> bool {
        txid < self.xmin || (txid < self.xmax && self.running.binary_search(&txid).is_err())
    }

    /// Whether it sees every transaction that `other` sees.
    #[must_use]
    pub fn sees_all_of(&self, other: &Self) -> bool {
        self.xmax >= other.xmax && !self.running.iter().any(|txid| other.sees(*txid))
    }

    /// The lowest transaction that still ran, or [`xmax`](Self::xmax) if none did.
    #[must_use]
    pub fn xmin(&self) -> u64 {
        self.xmin
    }

    /// One above the highest transaction that had ended; none at or above it had.
    #[must_use]
    pub fn xmax(&self) -> u64 {
        self.xmax
    }

    /// The transactions below [`xmax`](Self::xmax) that still ran, ascending.
    #[must_use]
    pub fn running(&self) -> &[u64] {
        &self.running
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:", self.xmin, self.xmax)?;
        for (index, xid) in self.running.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{xid}")?;
        }
        Ok(())
    }
}

impl FromStr for Snapshot {
    type Err = SnapshotError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || SnapshotError(text.to_owned());
        let number = |part: &str| part.parse::<u64>().map_err(|_| invalid());
        let mut parts = text.splitn(3, ':');
        let (Some(xmin), Some(xmax), Some(xip)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(invalid());
        };
        let running = match xip {
            "" => Vec::new(),
            list => list.split(',').map(number).collect::<Result<_, _>>()?,
        };
        Self::new(number(xmin)?, number(xmax)?, running)
    }
}

/// A text that is no snapshot of Postgres.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a snapshot")]
pub struct SnapshotError(String);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_snapshot_reads_as_postgres_writes_it() {
        for text in [
            "1:1:",
            "10:20:",
            "10:20:10,14,15",
            "15297136:15297140:15297136",
        ] {
            assert_eq!(text.parse::<Snapshot>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_snapshot_is_refused() {
        for text in [
            "", "1", "1:2", "a:b:", "3:2:", "0:1:", "1:2:x", "-1:2:", "1:4:2,,3",
        ] {
            assert!(text.parse::<Snapshot>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_running_transaction_is_not_seen_and_an_ended_one_is() {
        let snapshot: Snapshot = "10:20:10,14".parse().unwrap();

        let seen: Vec<u64> = (8..22).filter(|xid| snapshot.sees(*xid)).collect();

        assert_eq!(seen, [8, 9, 11, 12, 13, 15, 16, 17, 18, 19]);
    }

    proptest! {
        #[test]
        fn writing_and_reading_gives_the_same_snapshot(
            xmin in 1u64..1000, span in 0u64..100, running in prop::collection::vec(1u64..1100, 0..20),
        ) {
            let snapshot = Snapshot::new(xmin, xmin + span, running).unwrap();
            prop_assert_eq!(snapshot.to_string().parse::<Snapshot>().unwrap(), snapshot);
        }
    }
}

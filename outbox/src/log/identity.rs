//! Decides whether a database is still the one whose log a stream has read. Pure.

use super::numbers::Numbers;

/// Which server a connection leads to, and which history of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Chosen when the cluster was made; a standby and its promotion keep it.
    pub system: i64,
    /// Grows with each promotion and each recovery to a point in time.
    pub timeline: i64,
}

/// A database in one run of its server, from start to stop. Whatever is equal is the same database in the same run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) identity: Identity,
    /// When it was started, in microseconds since 1970.
    pub(crate) started: i64,
    /// The database's number in the cluster.
    pub(crate) database: i64,
}

/// What a claim finds out about the log before it trusts the stored cursors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) now: Identity,
    /// The cluster in which the stored cursors are true; none for a new stream.
    pub(crate) stored_system: Option<i64>,
    /// Some row above every floor carries a transaction id that this cluster has not given yet.
    pub(crate) future_txid: bool,
    /// The highest number in the log.
    pub(crate) highest: i64,
    pub(crate) numbers: Numbers,
}

/// Why a stream is not published from this database.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The cluster is another one: a restored dump, or one upgraded by `pg_upgrade`.
    #[error(
        "the stream was read in the cluster {stored}, and this is the cluster {found}: the database was restored, copied or upgraded. Nothing is published until it is clear what has been: see docs/recovery.md#another-cluster"
    )]
    AnotherCluster {
        /// The cluster in which the cursors are true.
        stored: i64,
        /// The cluster that answers.
        found: i64,
    },
    /// Rows carry transaction ids of another cluster.
    #[error(
        "the log holds rows of transactions that this cluster has not had yet: the database was restored from a dump. They would be published again and again: see docs/recovery.md#future-transactions"
    )]
    FutureTransactions,
    /// The sequence stands below rows or cursors: a logical copy leaves it behind, or it was set back.
    #[error(
        "the log's sequence stands at {sequence}, and {highest} was given before: the database is a logical copy, or the sequence was set back. New rows would fall below the cursors and never be published: see docs/recovery.md#sequence-behind"
    )]
    SequenceBehind {
        /// The number that the sequence gave last.
        sequence: i64,
        /// The highest number in the log, or that a cursor has come to.
        highest: i64,
    },
    /// The sequence or the columns of the log are not as they were made.
    #[error(
        "the log's sequence or the order of its columns was changed: numbers are not given in order any more, or before transactions have their ids. Messages could be published out of order, or never: see docs/recovery.md#numbers-out-of-order"
    )]
    NumbersOutOfOrder,
}

/// Whether the stored cursors may be trusted here. A changed timeline alone is fine: cursors and rows went back together.
pub(crate) fn judge(facts: &Facts) -> Result<(), Refusal> {
    if let Some(stored) = facts.stored_system
        && stored != facts.now.system
    {
        return Err(Refusal::AnotherCluster {
            stored,
            found: facts.now.system,
        });
    }
    if facts.future_txid {
        return Err(Refusal::FutureTransactions);
    }
    facts.numbers.judge(facts.highest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> Facts {
        Facts {
            now: Identity {
                system: 7,
                timeline: 1,
            },
            stored_system: Some(7),
            future_txid: false,
            highest: 10,
            numbers: Numbers {
                ids_first: true,
                one_by_one: true,
                last_number: 10,
                highest_read: 10,
            },
        }
    }

    #[test]
    fn the_same_cluster_is_trusted_also_after_a_promotion() {
        let promoted = Facts {
            now: Identity {
                system: 7,
                timeline: 2,
            },
            ..sound()
        };

        assert_eq!(judge(&sound()), Ok(()));
        assert_eq!(judge(&promoted), Ok(()));
    }

    #[test]
    fn a_new_stream_has_no_cluster_to_compare() {
        let new = Facts {
            stored_system: None,
            ..sound()
        };

        assert_eq!(judge(&new), Ok(()));
    }

    #[test]
    fn every_refusal_names_the_page_that_says_what_to_do() {
        let cases = [
            Facts {
                stored_system: Some(8),
                ..sound()
            },
            Facts {
                future_txid: true,
                ..sound()
            },
            Facts {
                highest: 11,
                ..sound()
            },
            Facts {
                numbers: Numbers {
                    ids_first: false,
                    ..sound().numbers
                },
                ..sound()
            },
        ];

        for facts in cases {
            let refusal = judge(&facts).unwrap_err();
            assert!(
                refusal.to_string().contains("docs/recovery.md#"),
                "{refusal}"
            );
        }
    }
}

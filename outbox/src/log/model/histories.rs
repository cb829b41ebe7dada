//! Long random histories, larger than what can be explored whole: more transactions, more rows, limits that change.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::log::cursor::{Cursor, Found, Sequenced};
use crate::log::snapshot::Snapshot;

const KEYS: u8 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    seq: i64,
    xid: u64,
    key: u8,
}

impl Sequenced for Row {
    fn seq(&self) -> i64 {
        self.seq
    }
}

/// What happens next; numbers choose among what is possible then.
#[derive(Debug, Clone)]
enum Step {
    Begin,
    /// A running transaction writes to a key, unless another one holds it.
    Write(u8, u8),
    Commit(u8),
    Abort(u8),
    Read(usize),
    /// Something else gets an id, runs on or not, and the cursor is told of it.
    Learn(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Begin),
        6 => (any::<u8>(), 0..KEYS).prop_map(|(tx, key)| Step::Write(tx, key)),
        2 => any::<u8>().prop_map(Step::Commit),
        1 => any::<u8>().prop_map(Step::Abort),
        3 => (1usize..6).prop_map(Step::Read),
        1 => any::<bool>().prop_map(Step::Learn),
    ]
}

#[derive(Default)]
struct History {
    next_xid: u64,
    next_seq: i64,
    latest_ended: u64,
    running: BTreeMap<u64, Vec<Row>>,
    committed: Vec<Row>,
    /// The rows of each key in the order in which their transactions promise them.
    promised: BTreeMap<u8, Vec<i64>>,
    delivered: Vec<Row>,
}

impl History {
    fn snapshot(&self) -> Snapshot {
        let xmax = self.latest_ended + 1;
        let running: Vec<u64> = self.running.range(..xmax).map(|(xid, _)| *xid).collect();
        let xmin = running.first().copied().unwrap_or(xmax);
        Snapshot::new(xmin, xmax, running).unwrap()
    }

    fn chosen(&self, choice: u8) -> Option<u64> {
        let count = self.running.len();
        (count > 0).then(|| {
            *self
                .running
                .keys()
                .nth(usize::from(choice) % count)
                .unwrap()
        })
    }

    fn apply(&mut self, step: &Step, cursor: &mut Cursor) {
        match step {
            Step::Begin => {
                self.next_xid += 1;
                self.running.insert(self.next_xid, Vec::new());
            }
            Step::Write(choice, key) => self.write(*choice, *key),
            Step::Commit(choice) => {
                if let Some(xid) = self.chosen(*choice) {
                    let rows = self.end(xid);
                    for row in &rows {
                        self.promised.entry(row.key).or_default().push(row.seq);
                    }
                    self.committed.extend(rows);
                }
            }
            Step::Abort(choice) => {
                if let Some(xid) = self.chosen(*choice) {
                    self.end(xid);
                }
            }
            Step::Read(limit) => {
                self.read(cursor, *limit);
            }
            Step::Learn(runs_on) => {
                self.next_xid += 1;
                self.running.insert(self.next_xid, Vec::new());
                if !runs_on {
                    self.end(self.next_xid);
                }
                cursor.learn(self.next_seq, self.next_xid);
            }
        }
    }

    fn write(&mut self, choice: u8, key: u8) {
        let Some(xid) = self.chosen(choice) else {
            return;
        };
        let holds = |(other, rows): (&u64, &Vec<Row>)| {
            *other != xid && rows.iter().any(|row| row.key == key)
        };
        if self.running.iter().any(holds) {
            return;
        }
        self.next_seq += 1;
        let seq = self.next_seq;
        self.running
            .entry(xid)
            .or_default()
            .push(Row { seq, xid, key });
    }

    fn end(&mut self, xid: u64) -> Vec<Row> {
        self.latest_ended = self.latest_ended.max(xid);
        self.running.remove(&xid).unwrap_or_default()
    }

    fn read(&mut self, cursor: &mut Cursor, limit: usize) -> bool {
        let request = cursor.request();
        let mut visible = self.committed.clone();
        visible.sort_unstable_by_key(|row| row.seq);
        let is_late = |row: &&Row| request.is_late(row.seq, row.xid);
        let mut late: Vec<Row> = visible.iter().filter(is_late).copied().collect();
        let more_late = late.len() > limit;
        late.truncate(limit);
        let is_new = |row: &&Row| request.is_new(row.seq);
        let mut new: Vec<Row> = visible.iter().filter(is_new).copied().collect();
        let more_new = new.len() > limit;
        new.truncate(limit);
        let found = Found {
            late,
            more_late,
            new,
            more_new,
            seen: self.snapshot(),
        };
        let step = cursor.advance(found);
        assert!(step.rows.is_sorted_by_key(|row| row.seq));
        let moved = !step.rows.is_empty() || step.after != *cursor;
        self.delivered.extend(step.rows);
        *cursor = step.after;
        moved
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_committed_row_is_delivered_once_and_each_key_in_order(
        steps in prop::collection::vec(step(), 0..150)
    ) {
        let mut history = History::default();
        let mut cursor = Cursor::starting(0, history.snapshot());

        for step in &steps {
            history.apply(step, &mut cursor);
        }
        while history.read(&mut cursor, 3) {}

        let delivered: BTreeSet<i64> = history.delivered.iter().map(|row| row.seq).collect();
        prop_assert_eq!(delivered.len(), history.delivered.len(), "something was doubled");
        prop_assert_eq!(delivered.len(), history.committed.len(), "something was lost");
        for (key, promised) in &history.promised {
            let arrived: Vec<i64> = history.delivered.iter().filter(|row| row.key == *key).map(|row| row.seq).collect();
            prop_assert_eq!(&arrived, promised);
        }
    }
}

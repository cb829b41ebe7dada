//! A tiny Postgres: transactions that take numbers, lock, write and end, and what a snapshot sees of them.

use std::hash::Hash;

use crate::log::cursor::{Found, Request, Sequenced};
use crate::log::snapshot::Snapshot;

/// One step of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Op {
    /// Writes elsewhere: the transaction gets its id.
    Xid,
    /// Locks the aggregate: gets an id, waits for whoever holds it.
    Lock,
    /// Takes the next number: before it has an id, or once it has one.
    Next,
    /// Inserts the row: of the locked aggregate, or of a key without order.
    Write(Key),
    Commit,
    Abort,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// The aggregate: its rows are promised to arrive in order.
    Locked,
    /// Rows written without a lock: no order is promised.
    Free,
}

use Op::{Abort, Commit, Lock, Next, Write, Xid};

pub(super) const EARLY: &[Op] = &[Xid, Lock, Next, Write(Key::Locked), Commit];
pub(super) const STANDARD: &[Op] = &[Lock, Next, Write(Key::Locked), Commit];
pub(super) const ABORTED: &[Op] = &[Lock, Next, Write(Key::Locked), Abort];
pub(super) const FREE: &[Op] = &[Next, Write(Key::Free), Commit];
pub(super) const FREE_ABORTED: &[Op] = &[Next, Write(Key::Free), Abort];
pub(super) const IDLE: &[Op] = &[Xid, Commit];
pub(super) const BIG: &[Op] = &[
    Xid,
    Next,
    Write(Key::Free),
    Lock,
    Next,
    Write(Key::Locked),
    Next,
    Write(Key::Free),
    Commit,
];

pub(super) const WIDE: &[Op] = &[Next, Write(Key::Free), Next, Write(Key::Free), Commit];

/// The transactions that run against each other.
pub(super) type Scenario = &'static [&'static [Op]];

pub(super) const SCENARIOS: &[Scenario] = &[
    &[EARLY, STANDARD, IDLE],
    &[STANDARD, STANDARD, FREE],
    &[EARLY, STANDARD, FREE],
    &[ABORTED, STANDARD, FREE],
    &[EARLY, EARLY, IDLE],
    &[STANDARD, FREE, FREE_ABORTED],
    &[EARLY, STANDARD, FREE, IDLE],
    &[BIG, STANDARD, FREE],
    &[BIG, EARLY, STANDARD],
    &[WIDE, FREE, FREE],
    &[WIDE, FREE, STANDARD, STANDARD],
];

const FIRST_XID: u8 = 10;
const MOST_TRANSACTIONS: usize = 4;
const MOST_ROWS: usize = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Row {
    pub(super) seq: u8,
    pub(super) xid: u8,
    pub(super) ordered: bool,
    tx: u8,
}

impl Sequenced for Row {
    fn seq(&self) -> i64 {
        i64::from(self.seq)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Tx {
    at: u8,
    /// 0: none yet.
    xid: u8,
    /// The number it took and has not written yet.
    number: u8,
    /// 0: not committed; else its place in the order of commits.
    committed: u8,
    ended: bool,
}

#[derive(Debug, Clone)]
pub(super) struct World {
    programs: Scenario,
    /// Whether a transaction has its id before it takes a number, as the log's table has it. The cursor does not need that.
    ids_first: bool,
    txs: [Tx; MOST_TRANSACTIONS],
    /// Who holds the aggregate.
    holder: Option<u8>,
    rows: [Option<Row>; MOST_ROWS],
    next_seq: u8,
    next_xid: u8,
    commits: u8,
}

impl Hash for World {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        // The programs are the same all along, and the counters follow from the rest.
        self.txs.hash(state);
        self.holder.hash(state);
        self.rows.hash(state);
        self.next_seq.hash(state);
    }
}

impl World {
    pub(super) fn new(programs: Scenario) -> Self {
        Self {
            programs,
            ids_first: false,
            txs: [Tx::default(); MOST_TRANSACTIONS],
            holder: None,
            rows: [None; MOST_ROWS],
            next_seq: 1,
            next_xid: FIRST_XID,
            commits: 0,
        }
    }

    pub(super) fn ids_first(self) -> Self {
        Self {
            ids_first: true,
            ..self
        }
    }

    /// The lowest id that has not been given yet.
    pub(super) fn next_xid(&self) -> u64 {
        u64::from(self.next_xid)
    }

    /// Whether every transaction has ended.
    pub(super) fn is_quiet(&self) -> bool {
        self.txs[..self.programs.len()].iter().all(|tx| tx.ended)
    }

    /// What each transaction that has not ended and waits for no lock does next, with its place.
    pub(super) fn steps(&self) -> impl Iterator<Item = (usize, Op, Self)> {
        let step = |index| self.step(index).map(|(op, after)| (index, op, after));
        (0..self.programs.len()).filter_map(step)
    }

    fn step(&self, index: usize) -> Option<(Op, Self)> {
        let op = *self.programs[index].get(usize::from(self.txs[index].at))?;
        let me = u8::try_from(index).unwrap();
        if op == Lock && self.holder.is_some_and(|holder| holder != me) {
            return None;
        }
        let mut world = self.clone();
        world.txs[index].at += 1;
        match op {
            Xid => world.assign_xid(index),
            Lock => {
                world.assign_xid(index);
                world.holder = Some(me);
            }
            Next => {
                if self.ids_first {
                    world.assign_xid(index);
                }
                world.txs[index].number = world.next_seq;
                world.next_seq += 1;
            }
            Write(key) => world.write(index, key),
            Commit => {
                world.commits += 1;
                world.txs[index].committed = world.commits;
                world.end(index);
            }
            Abort => {
                for row in &mut world.rows {
                    *row = row.filter(|row| row.tx != me);
                }
                world.end(index);
            }
        }
        Some((op, world))
    }

    fn assign_xid(&mut self, index: usize) {
        if self.txs[index].xid == 0 {
            self.txs[index].xid = self.next_xid;
            self.next_xid += 1;
        }
    }

    fn write(&mut self, index: usize, key: Key) {
        self.assign_xid(index);
        let Tx { xid, number, .. } = self.txs[index];
        self.rows[usize::from(number) - 1] = Some(Row {
            seq: number,
            xid,
            ordered: key == Key::Locked,
            tx: u8::try_from(index).unwrap(),
        });
        self.txs[index].number = 0;
    }

    fn end(&mut self, index: usize) {
        self.txs[index].ended = true;
        if self.holder == u8::try_from(index).ok() {
            self.holder = None;
        }
    }

    /// As Postgres takes it: `xmax` is one above the highest that has ended, not the next to be given.
    pub(super) fn snapshot(&self) -> Snapshot {
        let ended = self.txs.iter().filter(|tx| tx.ended).map(|tx| tx.xid);
        let xmax = ended.max().unwrap_or(0).max(FIRST_XID - 1) + 1;
        let running: Vec<u64> = self
            .txs
            .iter()
            .filter(|tx| !tx.ended && tx.xid != 0 && tx.xid < xmax)
            .map(|tx| u64::from(tx.xid))
            .collect();
        let xmin = running.iter().copied().min().unwrap_or(u64::from(xmax));
        Snapshot::new(xmin, u64::from(xmax), running).unwrap()
    }

    /// The rows of committed transactions, by number: what a read sees.
    pub(super) fn committed(&self) -> impl Iterator<Item = Row> {
        let committed = |row: &Row| self.txs[usize::from(row.tx)].committed > 0;
        self.rows.iter().flatten().copied().filter(committed)
    }

    /// What the statement finds.
    pub(super) fn read(&self, request: &Request<'_>, limit: usize) -> Found<Row> {
        let is_late = |row: &Row| request.is_late(row.seq(), u64::from(row.xid));
        let mut late: Vec<Row> = self.committed().filter(is_late).collect();
        let more_late = late.len() > limit;
        late.truncate(limit);
        let new = self.committed().filter(|row| request.is_new(row.seq()));
        let mut new: Vec<Row> = new.collect();
        let more_new = new.len() > limit;
        new.truncate(limit);
        Found {
            late,
            more_late,
            new,
            more_new,
            seen: self.snapshot(),
        }
    }

    /// Whether rows of the aggregate arrived in another order than that of their commits.
    pub(super) fn promised_order_is_broken(&self, arrivals: &[u8]) -> bool {
        let places: Vec<(u8, u8)> = arrivals
            .iter()
            .filter_map(|seq| self.rows[usize::from(*seq) - 1])
            .filter(|row| row.ordered)
            .map(|row| (self.txs[usize::from(row.tx)].committed, row.seq))
            .collect();
        !places.is_sorted()
    }
}

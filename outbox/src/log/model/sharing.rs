//! A reader that takes answers of another one's reads, some of them a while after they were read.

use std::hash::Hash;

use super::world::{Row, SCENARIOS, Scenario, World};
use super::{Findings, System, explore_all};
use crate::log::cursor::{Cursor, Step};
use crate::log::sharing::rule::leads_on;

/// Reads of both before the transactions have ended; afterwards there is no limit.
const READS_MEANWHILE: u8 = 3;

/// Whether the answer of a read behind the first cursor is one for the second.
type Rule = fn(&Cursor, &Step<Row>, &Cursor) -> bool;

/// Two that read the same log. The deliveries of one are judged.
#[derive(Clone)]
struct Sharing {
    rule: Rule,
    limit: usize,
    world: World,
    other: Cursor,
    /// What the other one asked behind and got, last; the moment of reading is past.
    answer: Option<(Cursor, Vec<Row>, Cursor)>,
    mine: Cursor,
    arrivals: Vec<u8>,
    doubled: bool,
    reads: u8,
}

impl Hash for Sharing {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        // Rule and limit are the same all along.
        self.world.hash(state);
        self.other.hash(state);
        self.answer.hash(state);
        self.mine.hash(state);
        self.arrivals.hash(state);
        self.doubled.hash(state);
        self.reads.hash(state);
    }
}

#[derive(Debug)]
enum Action {
    OtherReads,
    Take,
    Read,
}

impl Sharing {
    fn start(scenario: Scenario, limit: usize, rule: Rule) -> Self {
        let world = World::new(scenario);
        let cursor = Cursor::starting(0, world.snapshot());
        Self {
            rule,
            limit,
            world,
            other: cursor.clone(),
            answer: None,
            mine: cursor,
            arrivals: Vec::new(),
            doubled: false,
            reads: 0,
        }
    }

    fn step(&self, cursor: &Cursor) -> Option<Step<Row>> {
        if !self.world.is_quiet() && self.reads == READS_MEANWHILE {
            return None;
        }
        let step = cursor.advance(self.world.read(&cursor.request(), self.limit));
        (!step.rows.is_empty() || step.after != *cursor).then_some(step)
    }

    fn counted(&self) -> Self {
        let mut after = self.clone();
        after.reads += u8::from(!self.world.is_quiet());
        after
    }

    fn other_reads(&self) -> Option<Self> {
        let step = self.step(&self.other)?;
        let mut after = self.counted();
        after.answer = Some((self.other.clone(), step.rows, step.after.clone()));
        after.other = step.after;
        Some(after)
    }

    fn take(&self) -> Option<Self> {
        let (asked, rows, after) = self.answer.clone()?;
        // No part in this check: nobody looks here.
        let left = false;
        let step = Step { rows, after, left };
        let takes = (self.rule)(&asked, &step, &self.mine);
        (takes && (!step.rows.is_empty() || step.after != self.mine))
            .then(|| self.clone().behind(step))
    }

    fn read(&self) -> Option<Self> {
        let step = self.step(&self.mine)?;
        Some(self.counted().behind(step))
    }

    fn behind(mut self, step: Step<Row>) -> Self {
        for row in step.rows {
            if self.arrivals.contains(&row.seq) {
                self.doubled = true;
            } else {
                self.arrivals.push(row.seq);
            }
        }
        self.mine = step.after;
        self
    }
}

impl System for Sharing {
    type Action = Action;

    fn acts(&self) -> Vec<(Action, Self)> {
        let other_reads = self.other_reads().map(|after| (Action::OtherReads, after));
        let take = self.take().map(|after| (Action::Take, after));
        let read = self.read().map(|after| (Action::Read, after));
        [other_reads, take, read].into_iter().flatten().collect()
    }

    fn world(&self) -> &World {
        &self.world
    }

    fn with(&self, world: World) -> Self {
        Self {
            world,
            ..self.clone()
        }
    }

    fn arrivals(&self) -> &[u8] {
        &self.arrivals
    }

    fn is_doubled(&self) -> bool {
        self.doubled
    }
}

fn check(rule: Rule, wanted: fn(&Findings) -> bool) -> Findings {
    let with_limits =
        |scenario: &Scenario| [1, 99].map(|limit| Sharing::start(scenario, limit, rule));
    // Three transactions are enough for all that can happen between two reads.
    let scenarios = SCENARIOS.iter().filter(|scenario| scenario.len() < 4);
    explore_all(scenarios.flat_map(with_limits), wanted)
}

#[test]
fn answers_of_another_reader_lose_nothing_and_keep_order_in_every_interleaving() {
    let findings = check(leads_on, |_| false);

    println!("{} states, {} ends", findings.states, findings.ends);
    assert!(findings.are_none(), "{findings:?}");
    assert!(findings.states > 300_000, "too few: {}", findings.states);
}

#[test]
fn any_answer_behind_the_same_row_is_found_to_lose() {
    let level: Rule = |asked, _, mine| asked.last == mine.last;

    let findings = check(level, |findings| findings.lost.is_some());

    assert!(findings.lost.is_some());
}

#[test]
fn an_answer_that_has_seen_less_than_its_taker_is_found_to_bring_rows_twice() {
    let older: Rule = |asked, step, mine| {
        let mut seen = step.clone();
        seen.after.snapshot = mine.snapshot.clone();
        leads_on(asked, &seen, mine)
    };

    let findings = check(older, |findings| findings.doubled.is_some());

    assert!(findings.doubled.is_some());
}

#[test]
fn late_rows_of_one_that_has_seen_less_are_found_to_come_twice() {
    let with_late: Rule = |asked, step, mine| {
        let mut new = step.clone();
        new.rows.retain(|row| i64::from(row.seq) > asked.last);
        leads_on(asked, &new, mine)
    };

    let findings = check(with_late, |findings| findings.doubled.is_some());

    assert!(findings.doubled.is_some());
}

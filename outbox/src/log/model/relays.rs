//! Relays that crash, outlive their lease and take over: read, publish and checkpoint are acts of their own.
//!
//! A lease may end at any moment, and its holder need not notice: it publishes on. Only its checkpoints are refused.

use std::hash::Hash;

use super::world::{ABORTED, BIG, EARLY, FREE, Row, STANDARD, Scenario, World};
use super::{Findings, System, explore_all};
use crate::log::cursor::{Cursor, Step};
use crate::log::sharing::rule::leads_on;

/// With the number of claims and the rows of a read.
const SCENARIOS: &[(Scenario, u8, usize)] = &[
    (&[EARLY, STANDARD], 3, 1),
    (&[EARLY, STANDARD], 3, 99),
    (&[STANDARD, FREE], 3, 1),
    (&[STANDARD, FREE], 3, 99),
    (&[BIG, STANDARD], 2, 1),
    (&[BIG, STANDARD], 2, 99),
    (&[EARLY, STANDARD, FREE], 2, 1),
    (&[ABORTED, FREE, FREE], 2, 99),
];

/// Reads before the transactions have ended, of all relays together; afterwards there is no limit.
const READS_MEANWHILE: u8 = 2;
const CHUNKS_IN_FLIGHT: usize = 2;

/// What a relay does differently from the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    AsTheProduct,
    /// As the product; and the last answer may be taken by whoever it is one for, a takeover or a commit later too.
    SharedAnswers,
    /// As the product; and a cursor that is stored knows the lowest id that is given later.
    Informed,
    /// The same where numbers are taken before ids are given.
    InformedNumbersFirst,
    /// The cursor moves before the broker has confirmed.
    CheckpointBeforeConfirm,
    /// The token is not asked for.
    NoFencing,
    /// A takeover knows the number, and takes a snapshot of its own.
    FreshSnapshotAtTakeover,
}

#[derive(Clone, Hash)]
struct Relay {
    token: u8,
    cursor: Cursor,
    /// The numbers of the rows of each chunk that are not published yet, and the cursor behind it.
    chunks: Vec<(Vec<u8>, Cursor)>,
}

#[derive(Clone)]
struct Relays {
    rule: Rule,
    limit: usize,
    claims: u8,
    world: World,
    stored: Cursor,
    token: u8,
    relays: [Option<Relay>; 2],
    /// Behind which cursor the last read was, what it brought and where it led.
    answer: Option<(Cursor, Vec<Row>, Cursor)>,
    arrivals: Vec<u8>,
    reads: u8,
    unfenced: bool,
}

impl Hash for Relays {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        // Rule and limits are the same all along.
        self.world.hash(state);
        self.stored.hash(state);
        self.token.hash(state);
        self.relays.hash(state);
        self.answer.hash(state);
        self.arrivals.hash(state);
        self.reads.hash(state);
        self.unfenced.hash(state);
        // What cursors know is no part of them.
        self.stored.late_below.hash(state);
        for relay in self.relays.iter().flatten() {
            relay.cursor.late_below.hash(state);
            for (_, after) in &relay.chunks {
                after.late_below.hash(state);
            }
        }
    }
}

#[derive(Debug)]
#[expect(dead_code, reason = "what is inside is shown in traces")]
enum Action {
    Claim(usize),
    Read(usize),
    Take(usize),
    Publish(usize),
    Checkpoint(usize),
}

impl System for Relays {
    type Action = Action;

    fn acts(&self) -> Vec<(Action, Self)> {
        let mut acts = Vec::new();
        for index in 0..self.relays.len() {
            acts.extend(self.claim(index).map(|after| (Action::Claim(index), after)));
            acts.extend(self.read(index).map(|after| (Action::Read(index), after)));
            acts.extend(self.take(index).map(|after| (Action::Take(index), after)));
            acts.extend(
                self.publish(index)
                    .map(|after| (Action::Publish(index), after)),
            );
            acts.extend(
                self.checkpoint(index)
                    .map(|after| (Action::Checkpoint(index), after)),
            );
        }
        acts
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

    fn is_unfenced(&self) -> bool {
        self.unfenced
    }
}

impl Relays {
    fn start((scenario, claims, limit): (Scenario, u8, usize), rule: Rule) -> Self {
        let mut world = World::new(scenario);
        if rule == Rule::Informed {
            world = world.ids_first();
        }
        Self {
            rule,
            limit,
            claims,
            stored: Cursor::starting(0, world.snapshot()),
            world,
            token: 0,
            relays: [None, None],
            answer: None,
            arrivals: Vec::new(),
            reads: 0,
            unfenced: false,
        }
    }

    /// A relay starts or starts again, having forgotten everything; whoever held the lease may go on.
    fn claim(&self, index: usize) -> Option<Self> {
        if self.token == self.claims {
            return None;
        }
        let mut after = self.clone();
        after.token += 1;
        let mut cursor = self.stored.clone();
        if self.rule == Rule::FreshSnapshotAtTakeover {
            cursor.snapshot = self.world.snapshot();
        }
        after.relays[index] = Some(Relay {
            token: after.token,
            cursor,
            chunks: Vec::new(),
        });
        Some(after)
    }

    fn read(&self, index: usize) -> Option<Self> {
        let relay = self.relays[index].as_ref()?;
        let quiet = self.world.is_quiet();
        if relay.chunks.len() == CHUNKS_IN_FLIGHT || (!quiet && self.reads == READS_MEANWHILE) {
            return None;
        }
        let found = self.world.read(&relay.cursor.request(), self.limit);
        let step = relay.cursor.advance::<Row>(found);
        if step.rows.is_empty() && step.after == relay.cursor {
            return None;
        }
        let mut after = self.clone();
        after.reads += u8::from(!quiet);
        if self.rule == Rule::SharedAnswers {
            let (rows, behind) = (step.rows.clone(), step.after.clone());
            after.answer = Some((relay.cursor.clone(), rows, behind));
        }
        after.push(index, &step)?;
        Some(after)
    }

    /// Takes the answer of the last read, whoever made it and however long ago.
    fn take(&self, index: usize) -> Option<Self> {
        let relay = self.relays[index].as_ref()?;
        let (asked, rows, after) = self.answer.clone()?;
        // No part in this check: nobody looks here.
        let left = false;
        let step = Step { rows, after, left };
        let moves = !step.rows.is_empty() || step.after != relay.cursor;
        let has_room = relay.chunks.len() < CHUNKS_IN_FLIGHT;
        if !has_room || !moves || !leads_on(&asked, &step, &relay.cursor) {
            return None;
        }
        let mut after = self.clone();
        after.push(index, &step)?;
        Some(after)
    }

    fn push(&mut self, index: usize, step: &Step<Row>) -> Option<()> {
        let relay = self.relays[index].as_mut()?;
        let rows = step.rows.iter().map(|row| row.seq).collect();
        relay.chunks.push((rows, step.after.clone()));
        relay.cursor = step.after.clone();
        Some(())
    }

    /// The broker has the next row. What is in flight arrives in order, without gaps.
    fn publish(&self, index: usize) -> Option<Self> {
        let relay = self.relays[index].as_ref()?;
        let chunk = relay.chunks.iter().position(|(rows, _)| !rows.is_empty())?;
        let mut after = self.clone();
        let row = after.relays[index].as_mut()?.chunks[chunk].0.remove(0);
        if !after.arrivals.contains(&row) {
            after.arrivals.push(row);
        }
        Some(after)
    }

    fn checkpoint(&self, index: usize) -> Option<Self> {
        let relay = self.relays[index].as_ref()?;
        let (rows, cursor) = relay.chunks.first()?;
        if !rows.is_empty() && self.rule != Rule::CheckpointBeforeConfirm {
            return None;
        }
        let mut after = self.clone();
        let fenced = relay.token != self.token;
        if fenced && self.rule != Rule::NoFencing {
            after.relays[index] = None;
            return Some(after);
        }
        after.unfenced |= fenced;
        after.stored = cursor.clone();
        if matches!(self.rule, Rule::Informed | Rule::InformedNumbersFirst) {
            after.stored.learn(cursor.last, self.world.next_xid());
        }
        let chunks = &mut after.relays[index].as_mut()?.chunks;
        if rows.is_empty() {
            chunks.remove(0);
        } else if self.stored == *cursor {
            return None;
        }
        Some(after)
    }
}

fn check(rule: Rule, wanted: fn(&Findings) -> bool) -> Findings {
    let starts = SCENARIOS
        .iter()
        .map(|setting| Relays::start(*setting, rule));
    explore_all(starts, wanted)
}

#[test]
fn crashes_and_takeovers_lose_nothing_and_keep_first_arrivals_in_order() {
    let findings = check(Rule::AsTheProduct, |_| false);

    println!("{} states, {} ends", findings.states, findings.ends);
    assert!(findings.are_none(), "{findings:?}");
    assert!(findings.states > 300_000, "too few: {}", findings.states);
}

#[test]
fn answers_that_outlive_a_takeover_lose_nothing_and_keep_first_arrivals_in_order() {
    // With two transactions each: an answer to keep makes many more states.
    let scenarios = SCENARIOS
        .iter()
        .filter(|(scenario, ..)| scenario.len() == 2);
    let starts = scenarios.map(|setting| Relays::start(*setting, Rule::SharedAnswers));

    let findings = explore_all(starts, |_| false);

    println!("{} states, {} ends", findings.states, findings.ends);
    assert!(findings.are_none(), "{findings:?}");
    assert!(findings.states > 100_000, "too few: {}", findings.states);
}

#[test]
fn takeovers_that_know_what_was_given_since_lose_nothing_and_keep_first_arrivals_in_order() {
    let findings = check(Rule::Informed, |_| false);

    println!("{} states, {} ends", findings.states, findings.ends);
    assert!(findings.are_none(), "{findings:?}");
    assert!(findings.states > 300_000, "too few: {}", findings.states);
}

#[test]
fn they_are_found_to_lose_where_numbers_are_taken_before_ids() {
    let findings = check(Rule::InformedNumbersFirst, |findings| {
        findings.lost.is_some()
    });

    assert!(findings.lost.is_some());
}

#[test]
fn a_checkpoint_before_the_confirmation_is_found_to_lose() {
    let findings = check(Rule::CheckpointBeforeConfirm, |findings| {
        findings.lost.is_some()
    });

    assert!(findings.lost.is_some());
}

#[test]
fn a_checkpoint_under_an_old_token_is_found_out() {
    let findings = check(Rule::NoFencing, |findings| findings.unfenced.is_some());

    assert!(findings.unfenced.is_some());
}

#[test]
fn a_takeover_with_a_snapshot_of_its_own_is_found_to_lose() {
    let findings = check(Rule::FreshSnapshotAtTakeover, |findings| {
        findings.lost.is_some()
    });

    assert!(findings.lost.is_some());
}

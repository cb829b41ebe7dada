//! A topic that goes away, gets a detour and comes back: the detour is opened at the stored cursor, and closed once it has come to
//! where the main line stands. One relay, which may crash; reads take their time, and so do openings and closings.
//!
//! The rows of the aggregate are the topic's, all others are another topic's, which is never away.

use std::hash::Hash;

use super::world::{BIG, EARLY, FREE, Row, STANDARD, Scenario, World};
use super::{Findings, System, explore_all};
use crate::log::cursor::Cursor;

/// With the rows of a read.
const SCENARIOS: &[(Scenario, usize)] = &[
    (&[EARLY, STANDARD], 1),
    (&[EARLY, STANDARD], 99),
    (&[STANDARD, FREE], 1),
    (&[STANDARD, FREE], 99),
    (&[BIG, STANDARD], 1),
    (&[BIG, STANDARD], 99),
    (&[EARLY, STANDARD, FREE], 99),
];

/// Reads before the transactions have ended; afterwards there is no limit.
const READS_MEANWHILE: u8 = 2;
const CHUNKS_IN_FLIGHT: usize = 2;
const CRASHES: u8 = 1;
const ABSENCES: u8 = 2;

/// What the relay does differently from the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    AsTheProduct,
    /// The detour begins at what was read, and not at what is stored.
    OpensAtWhatWasRead,
    /// The detour is closed when its number has reached that of the main line, whatever they could see.
    ClosesByNumber,
    /// The detour is closed although a read of the main line is under way.
    ClosesDuringARead,
    /// The main line never stands: it reads on while the detour is being closed, and before.
    ReadsOnWhileClosing,
}

/// A cursor in memory and in the database, and what lies between them.
#[derive(Debug, Clone, Hash)]
struct Line {
    read: Cursor,
    stored: Cursor,
    /// The rows of each chunk that are not published yet, and the cursor behind it.
    chunks: Vec<(Vec<Row>, Cursor)>,
}

impl Line {
    fn at(cursor: Cursor) -> Self {
        Self {
            read: cursor.clone(),
            stored: cursor,
            chunks: Vec::new(),
        }
    }

    fn restarted(self) -> Self {
        Self::at(self.stored)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Which {
    Main,
    Detour,
}

/// What a line has read and not been told yet.
type Answer = (Which, Vec<Row>, Cursor);

#[derive(Clone)]
struct Detouring {
    rule: Rule,
    limit: usize,
    world: World,
    main: Line,
    detour: Option<Line>,
    /// A read under way: what it will bring.
    reading: Option<Vec<Answer>>,
    closing: bool,
    away: bool,
    absences: u8,
    crashes: u8,
    reads: u8,
    arrivals: Vec<u8>,
}

impl Hash for Detouring {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        // Rule and limit are the same all along.
        self.world.hash(state);
        self.main.hash(state);
        self.detour.hash(state);
        self.reading.hash(state);
        (self.closing, self.away, self.absences).hash(state);
        (self.crashes, self.reads).hash(state);
        self.arrivals.hash(state);
    }
}

#[derive(Debug)]
#[expect(dead_code, reason = "what is inside is shown in traces")]
enum Action {
    GoAway,
    Return,
    Ask,
    Answer,
    Publish(Which),
    Checkpoint(Which),
    Open,
    Close,
    Closed,
    Crash,
    CrashAfterClose,
}

impl System for Detouring {
    type Action = Action;

    fn acts(&self) -> Vec<(Action, Self)> {
        let mut acts = Vec::new();
        let mut add = |action, after: Option<Self>| acts.extend(after.map(|after| (action, after)));
        add(Action::GoAway, self.go_away());
        add(Action::Return, self.come_back());
        add(Action::Ask, self.ask());
        add(Action::Answer, self.answer());
        for which in [Which::Main, Which::Detour] {
            add(Action::Publish(which), self.publish(which));
            add(Action::Checkpoint(which), self.checkpoint(which));
        }
        add(Action::Open, self.open());
        add(Action::Close, self.close());
        add(Action::Closed, self.closed());
        add(Action::Crash, self.crash(false));
        add(Action::CrashAfterClose, self.crash(true));
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
}

impl Detouring {
    fn start((scenario, limit): (Scenario, usize), rule: Rule) -> Self {
        let world = World::new(scenario);
        Self {
            rule,
            limit,
            main: Line::at(Cursor::starting(0, world.snapshot())),
            world,
            detour: None,
            reading: None,
            closing: false,
            away: false,
            absences: 0,
            crashes: 0,
            reads: 0,
            arrivals: Vec::new(),
        }
    }

    fn go_away(&self) -> Option<Self> {
        (!self.away && self.absences < ABSENCES).then(|| Self {
            away: true,
            absences: self.absences + 1,
            ..self.clone()
        })
    }

    fn come_back(&self) -> Option<Self> {
        self.away.then(|| Self {
            away: false,
            ..self.clone()
        })
    }

    fn line(&self, which: Which) -> Option<&Line> {
        match which {
            Which::Main => Some(&self.main),
            Which::Detour => self.detour.as_ref(),
        }
    }

    fn line_mut(&mut self, which: Which) -> Option<&mut Line> {
        match which {
            Which::Main => Some(&mut self.main),
            Which::Detour => self.detour.as_mut(),
        }
    }

    /// By which line a row is published now.
    fn owner(&self, row: &Row) -> Which {
        if row.ordered && self.detour.is_some() {
            Which::Detour
        } else {
            Which::Main
        }
    }

    /// Whether the detour has read all that the main line has passed: then neither reads on.
    fn has_come(&self) -> bool {
        let Some(detour) = &self.detour else {
            return false;
        };
        let (own, main) = (&detour.read, &self.main.read);
        let reached = if self.rule == Rule::ClosesByNumber {
            own.last >= main.last
        } else {
            own.has_reached(main)
        };
        reached && !self.away
    }

    /// Both lines are asked for at once, unless they stand.
    fn ask(&self) -> Option<Self> {
        let reads_on = self.rule == Rule::ReadsOnWhileClosing;
        let stands = !reads_on && (self.closing || self.has_come());
        let quiet = self.world.is_quiet();
        if stands || self.reading.is_some() || (!quiet && self.reads == READS_MEANWHILE) {
            return None;
        }
        let lines = [Which::Main, Which::Detour].into_iter();
        let answers: Vec<Answer> = lines.filter_map(|which| self.look(which)).collect();
        let news = answers.iter().any(|(which, rows, after)| {
            !rows.is_empty() || self.line(*which).is_some_and(|line| line.read != *after)
        });
        news.then(|| Self {
            reading: Some(answers),
            reads: self.reads + u8::from(!quiet),
            ..self.clone()
        })
    }

    fn look(&self, which: Which) -> Option<Answer> {
        let line = self.line(which)?;
        if line.chunks.len() == CHUNKS_IN_FLIGHT {
            return None;
        }
        let found = self.world.read(&line.read.request(), self.limit);
        let step = line.read.advance::<Row>(found);
        Some((which, step.rows, step.after))
    }

    fn answer(&self) -> Option<Self> {
        let mut after = self.clone();
        for (which, rows, cursor) in after.reading.take()? {
            let found = !rows.is_empty();
            let rows = rows.into_iter().filter(|row| self.owner(row) == which);
            let rows = rows.collect();
            if let Some(line) = after.line_mut(which) {
                line.read = cursor.clone();
                if found {
                    line.chunks.push((rows, cursor));
                }
            }
        }
        Some(after)
    }

    /// The broker has the next row that need not wait.
    fn publish(&self, which: Which) -> Option<Self> {
        let goes = |row: &Row| !(row.ordered && self.away);
        let chunks = &self.line(which)?.chunks;
        let mut places = chunks.iter().enumerate();
        let (chunk, at) =
            places.find_map(|(chunk, (rows, _))| Some((chunk, rows.iter().position(goes)?)))?;
        let mut after = self.clone();
        let row = after.line_mut(which)?.chunks[chunk].0.remove(at);
        if !after.arrivals.contains(&row.seq) {
            after.arrivals.push(row.seq);
        }
        Some(after)
    }

    fn checkpoint(&self, which: Which) -> Option<Self> {
        let (rows, cursor) = self.line(which)?.chunks.first()?;
        if !rows.is_empty() {
            return None;
        }
        let mut after = self.clone();
        let line = after.line_mut(which)?;
        line.stored = cursor.clone();
        line.chunks.remove(0);
        Some(after)
    }

    /// Around a topic that is away and holds the main line.
    fn open(&self) -> Option<Self> {
        let waits = |(rows, _): &(Vec<Row>, Cursor)| rows.iter().any(|row| row.ordered);
        if self.detour.is_some() || !self.away || !self.main.chunks.iter().any(waits) {
            return None;
        }
        let mut after = self.clone();
        let at = if self.rule == Rule::OpensAtWhatWasRead {
            &self.main.read
        } else {
            &self.main.stored
        };
        after.detour = Some(Line::at(at.clone()));
        for (rows, _) in &mut after.main.chunks {
            rows.retain(|row| !row.ordered);
        }
        Some(after)
    }

    fn close(&self) -> Option<Self> {
        let quiet = self.reading.is_none() || self.rule == Rule::ClosesDuringARead;
        let empty = self.detour.as_ref()?.chunks.is_empty();
        let closes = !self.closing && quiet && empty && self.has_come();
        closes.then(|| Self {
            closing: true,
            ..self.clone()
        })
    }

    fn closed(&self) -> Option<Self> {
        self.closing.then(|| Self {
            detour: None,
            closing: false,
            ..self.clone()
        })
    }

    /// The relay starts again and knows what is stored. A closing that was under way is done or not.
    fn crash(&self, closed: bool) -> Option<Self> {
        if self.crashes == CRASHES || (closed && !self.closing) {
            return None;
        }
        let after = self.clone();
        let detour = after.detour.filter(|_| !closed);
        Some(Self {
            main: after.main.restarted(),
            detour: detour.map(Line::restarted),
            reading: None,
            closing: false,
            crashes: self.crashes + 1,
            ..self.clone()
        })
    }
}

fn check(rule: Rule, wanted: fn(&Findings) -> bool) -> Findings {
    let starts = SCENARIOS
        .iter()
        .map(|setting| Detouring::start(*setting, rule));
    explore_all(starts, wanted)
}

fn loses(rule: Rule) -> bool {
    check(rule, |findings| findings.lost.is_some())
        .lost
        .is_some()
}

#[test]
fn a_topic_that_goes_away_and_comes_back_loses_nothing_and_keeps_order() {
    let findings = check(Rule::AsTheProduct, |_| false);

    println!("{} states, {} ends", findings.states, findings.ends);
    assert!(findings.are_none(), "{findings:?}");
    assert!(findings.states > 300_000, "too few: {}", findings.states);
}

#[test]
fn a_detour_that_begins_at_what_was_read_is_found_to_lose() {
    assert!(loses(Rule::OpensAtWhatWasRead));
}

#[test]
fn a_detour_that_is_closed_by_its_number_is_found_to_lose() {
    assert!(loses(Rule::ClosesByNumber));
}

#[test]
fn a_detour_that_is_closed_during_a_read_is_found_to_lose() {
    assert!(loses(Rule::ClosesDuringARead));
}

#[test]
fn a_main_line_that_reads_on_while_a_detour_is_closed_is_found_to_lose() {
    assert!(loses(Rule::ReadsOnWhileClosing));
}

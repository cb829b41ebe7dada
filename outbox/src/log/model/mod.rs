//! Explores every interleaving of small transactions with reads, against the cursor that the relay runs.
//!
//! Nothing may be lost, and rows of one key must arrive first in the order their transactions promise. The usual
//! wrong cursors run through the same exploration and must be found out: a check that cannot fail is no check.

mod cursors;
mod detours;
mod histories;
mod late_below;
mod looks;
mod relays;
mod sharing;
mod workers;
mod world;

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};

use world::{Op, World};

/// What an exploration found.
#[derive(Debug, Default)]
struct Findings {
    states: usize,
    ends: usize,
    lost: Option<String>,
    reordered: Option<String>,
    /// A row was delivered twice although nobody crashed.
    doubled: Option<String>,
    /// A position was stored by one that no longer holds the lease.
    unfenced: Option<String>,
}

impl Findings {
    fn are_none(&self) -> bool {
        [&self.lost, &self.reordered, &self.doubled, &self.unfenced]
            .into_iter()
            .all(Option::is_none)
    }

    fn merge(&mut self, other: Self) {
        self.states += other.states;
        self.ends += other.ends;
        self.lost = self.lost.take().or(other.lost);
        self.reordered = self.reordered.take().or(other.reordered);
        self.doubled = self.doubled.take().or(other.doubled);
        self.unfenced = self.unfenced.take().or(other.unfenced);
    }
}

/// A state of the whole system.
trait System: Clone + Hash {
    type Action: Debug;

    /// Everything that may happen next beside the transactions.
    fn acts(&self) -> Vec<(Self::Action, Self)>;

    fn world(&self) -> &World;

    /// The same system, once a transaction has gone on.
    fn with(&self, world: World) -> Self;

    /// The numbers of the rows in the order of their first arrival at the broker.
    fn arrivals(&self) -> &[u8];

    fn is_doubled(&self) -> bool {
        false
    }

    fn is_unfenced(&self) -> bool {
        false
    }
}

/// What happens next.
#[derive(Debug)]
#[expect(dead_code, reason = "what is inside is shown in traces")]
enum Step<A> {
    Tx(usize, Op),
    Act(A),
}

/// Everything that may happen next.
fn following<S: System>(state: &S) -> Vec<(Step<S::Action>, S)> {
    let steps = state.world().steps();
    let steps = steps.map(|(index, op, world)| (Step::Tx(index, op), state.with(world)));
    let acts = state.acts().into_iter();
    let acts = acts.map(|(action, after)| (Step::Act(action), after));
    steps.chain(acts).collect()
}

/// Explores from each of the starts, or up to the first from which something is `wanted`.
fn explore_all<S: System>(
    starts: impl IntoIterator<Item = S>,
    wanted: impl Fn(&Findings) -> bool,
) -> Findings {
    let mut findings = Findings::default();
    for start in starts {
        findings.merge(explore(start));
        if wanted(&findings) {
            break;
        }
    }
    findings
}

/// Visits every state that can be reached, once.
fn explore<S: System>(start: S) -> Findings {
    let mut findings = Findings::default();
    let mut seen = HashSet::new();
    let mut steps: Vec<(usize, Option<Step<S::Action>>)> = vec![(0, None)];
    seen.insert(fingerprint(&start));
    let mut open = vec![(0, start)];
    while let Some((at, state)) = open.pop() {
        let next = following(&state);
        if next.is_empty() {
            findings.ends += 1;
            judge(&mut findings, &state, || trace(&steps, at));
        }
        for (step, state) in next {
            if seen.insert(fingerprint(&state)) {
                steps.push((at, Some(step)));
                open.push((steps.len() - 1, state));
            }
        }
    }
    findings.states = seen.len();
    findings
}

fn judge<S: System>(findings: &mut Findings, end: &S, trace: impl Fn() -> String) {
    let (world, arrivals) = (end.world(), end.arrivals());
    if findings.lost.is_none() && world.committed().any(|row| !arrivals.contains(&row.seq)) {
        findings.lost = Some(trace());
    }
    if findings.reordered.is_none() && world.promised_order_is_broken(arrivals) {
        findings.reordered = Some(trace());
    }
    if findings.doubled.is_none() && end.is_doubled() {
        findings.doubled = Some(trace());
    }
    if findings.unfenced.is_none() && end.is_unfenced() {
        findings.unfenced = Some(trace());
    }
}

/// 128 bits, so that no two states share one.
fn fingerprint(state: &impl Hash) -> u128 {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        salt.hash(&mut hasher);
        state.hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(1) << 64 | half(2)
}

fn trace(steps: &[(usize, Option<impl Debug>)], mut at: usize) -> String {
    let mut names = Vec::new();
    while let (before, Some(step)) = &steps[at] {
        names.push(format!("{step:?}"));
        at = *before;
    }
    names.reverse();
    names.join(" ")
}

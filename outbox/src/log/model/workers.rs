//! The usual table of jobs: several workers take rows with `for update skip locked` and mark what they published.

use super::world::{EARLY, FREE, STANDARD, World};
use super::{System, explore};

#[derive(Clone, Hash)]
struct Workers {
    world: World,
    /// The rows that each has locked, by number; what is published is marked and unlocked at once.
    locked: [Vec<u8>; 2],
    arrivals: Vec<u8>,
}

#[derive(Debug)]
#[expect(dead_code, reason = "what is inside is shown in traces")]
enum Action {
    Take(usize),
    Publish(usize),
}

impl System for Workers {
    type Action = Action;

    fn acts(&self) -> Vec<(Action, Self)> {
        let mut acts = Vec::new();
        for worker in 0..self.locked.len() {
            let mut after = self.clone();
            if self.locked[worker].is_empty() {
                let free = |seq: &u8| {
                    !self.arrivals.contains(seq) && !self.locked.iter().flatten().any(|l| l == seq)
                };
                let due = self.world.committed().map(|row| row.seq).find(free);
                if due.is_some() {
                    after.locked[worker].extend(due);
                    acts.push((Action::Take(worker), after));
                }
            } else {
                after.arrivals.append(&mut after.locked[worker]);
                acts.push((Action::Publish(worker), after));
            }
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
}

#[test]
fn skipping_locked_rows_is_found_to_break_order() {
    let findings = explore(Workers {
        world: World::new(&[EARLY, STANDARD, FREE]),
        locked: [Vec::new(), Vec::new()],
        arrivals: Vec::new(),
    });

    assert!(findings.lost.is_none());
    assert!(findings.reordered.is_some());
}

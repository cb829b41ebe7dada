//! Compares what was committed, published and done. Pure: no clock, no I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use uuid::Uuid;

use super::facts::{Arrival, Committed, Facts, FenceEvent};
use super::verdict::Verdict;

const EXAMPLES: usize = 12;

/// The verdict on `facts`.
#[must_use]
pub fn judge(facts: &Facts) -> Verdict {
    let committed: HashMap<Uuid, &Committed> =
        facts.committed.iter().map(|one| (one.id, one)).collect();
    let mut verdict = Verdict {
        committed: count(committed.len()),
        excused: count(facts.excused.len()),
        duplicates_allowed: facts.duplicates_allowed,
        ..Verdict::default()
    };
    arrivals(facts, &committed, &mut verdict);
    copies(facts, &committed, &mut verdict);
    effects(facts, &committed, &mut verdict);
    fence(&facts.fence, &mut verdict);
    verdict
}

fn arrivals(facts: &Facts, committed: &HashMap<Uuid, &Committed>, verdict: &mut Verdict) {
    let mut seen: BTreeSet<Uuid> = BTreeSet::new();
    let mut order = Order::default();
    let mut partitions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for arrival in &facts.arrivals {
        let Some(origin) = arrival.id.and_then(|id| committed.get(&id)) else {
            verdict.phantom += 1;
            example(verdict, || {
                format!("phantom: {} at {}", name(arrival), place(arrival))
            });
            continue;
        };
        contents(origin, arrival, verdict);
        if !seen.insert(origin.id) {
            verdict.duplicates += 1;
            continue;
        }
        let Some(key) = &origin.key else { continue };
        partitions
            .entry(key)
            .or_default()
            .insert(&arrival.partition);
        let judged = !facts.unordered && !facts.excused.contains(&origin.id);
        if judged && !order.follows(key, origin.version) {
            verdict.out_of_order += 1;
            example(verdict, || {
                format!("out of order: {} at {}", label(origin), place(arrival))
            });
        }
    }
    for one in facts
        .committed
        .iter()
        .filter(|one| !seen.contains(&one.id) && !facts.excused.contains(&one.id))
    {
        verdict.lost += 1;
        example(verdict, || format!("lost: {}", label(one)));
    }
    verdict.published = count(seen.len());
    verdict.split_keys = count(
        partitions
            .values()
            .filter(|places| places.len() > 1)
            .count(),
    );
    verdict.unexplained_duplicates = facts
        .duplicates_allowed
        .map_or(0, |allowed| verdict.duplicates.saturating_sub(allowed));
}

/// Each message may come again as often as takeovers may have repeated it.
fn copies(facts: &Facts, committed: &HashMap<Uuid, &Committed>, verdict: &mut Verdict) {
    let Some(repeats) = &facts.repeats else {
        return;
    };
    let mut seen: HashMap<Uuid, u64> = HashMap::new();
    let known = |arrival: &Arrival| arrival.id.and_then(|id| committed.get(&id).copied());
    for arrival in &facts.arrivals {
        let Some(origin) = known(arrival).filter(|one| !facts.excused.contains(&one.id)) else {
            continue;
        };
        let before = seen.entry(origin.id).or_default();
        let takeovers = repeats.get(&origin.id).copied().unwrap_or(0);
        if *before > takeovers {
            verdict.copies_without_takeover += 1;
            example(verdict, || {
                format!(
                    "copy without a takeover: {} at {}, which {takeovers} may have repeated",
                    label(origin),
                    place(arrival)
                )
            });
        }
        *before += 1;
    }
}

/// Every copy must carry what was committed, not only the first.
fn contents(origin: &Committed, arrival: &Arrival, verdict: &mut Verdict) {
    if origin
        .payload
        .as_ref()
        .is_some_and(|payload| *payload != arrival.payload)
    {
        verdict.payload_mismatch += 1;
        example(verdict, || {
            format!("other bytes: {} at {}", label(origin), place(arrival))
        });
    }
    if origin.key != arrival.key {
        verdict.key_mismatch += 1;
        example(verdict, || {
            format!(
                "other key: {} at {} under {:?}",
                label(origin),
                place(arrival),
                arrival.key
            )
        });
    }
}

fn effects(facts: &Facts, committed: &HashMap<Uuid, &Committed>, verdict: &mut Verdict) {
    let Some(effects) = &facts.effects else {
        return;
    };
    let mut seen: BTreeSet<Uuid> = BTreeSet::new();
    let mut order = Order::default();
    for effect in effects {
        let Some(origin) = committed.get(&effect.id) else {
            verdict.phantom_effects += 1;
            example(verdict, || format!("effect of nothing: {}", effect.id));
            continue;
        };
        if !seen.insert(effect.id) {
            verdict.doubled_effects += 1;
            example(verdict, || format!("doubled effect: {}", label(origin)));
            continue;
        }
        let Some(key) = &origin.key else { continue };
        let judged = !facts.unordered && !facts.excused.contains(&origin.id);
        if judged && !order.follows(key, origin.version) {
            verdict.effects_out_of_order += 1;
            example(verdict, || {
                format!("effect out of order: {}", label(origin))
            });
        }
    }
    for one in facts
        .committed
        .iter()
        .filter(|one| !seen.contains(&one.id) && !facts.excused.contains(&one.id))
    {
        verdict.missing_effects += 1;
        example(verdict, || format!("no effect: {}", label(one)));
    }
    verdict.handled = Some(count(seen.len()));
}

fn fence(events: &[FenceEvent], verdict: &mut Verdict) {
    let mut cursors: BTreeMap<(&str, &(i16, String)), i64> = BTreeMap::new();
    for event in events {
        match event {
            FenceEvent::Claim { .. } => verdict.claims += 1,
            FenceEvent::Checkpoint {
                stream,
                who,
                under,
                valid,
                cursor,
                last_seq,
            } => {
                if under.is_none() || under != valid {
                    verdict.stale_checkpoints += 1;
                    example(verdict, || {
                        format!(
                            "checkpoint of {stream} by {who} under {under:?}, valid is {valid:?}"
                        )
                    });
                }
                let before = cursors.insert((stream, cursor), *last_seq);
                if before.is_some_and(|before| before > *last_seq) {
                    verdict.cursor_regressions += 1;
                    example(verdict, || {
                        format!("cursor of {stream} {cursor:?} from {before:?} back to {last_seq}")
                    });
                }
            }
        }
    }
}

/// The highest version of each key so far.
#[derive(Default)]
struct Order<'a> {
    highest: HashMap<&'a str, i64>,
}

impl<'a> Order<'a> {
    /// Whether `version` comes after all that was seen of the key.
    fn follows(&mut self, key: &'a str, version: i64) -> bool {
        let highest = self.highest.entry(key).or_insert(i64::MIN);
        let follows = version > *highest;
        *highest = version.max(*highest);
        follows
    }
}

fn example(verdict: &mut Verdict, text: impl FnOnce() -> String) {
    if verdict.examples.len() < EXAMPLES {
        verdict.examples.push(text());
    }
}

fn label(one: &Committed) -> String {
    format!("{} version {} of key {:?}", one.id, one.version, one.key)
}

fn name(arrival: &Arrival) -> String {
    arrival
        .id
        .map_or_else(|| "a message without an id".to_owned(), |id| id.to_string())
}

fn place(arrival: &Arrival) -> String {
    format!("{}:{}", arrival.partition, arrival.position)
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;

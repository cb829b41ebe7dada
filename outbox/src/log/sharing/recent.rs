//! Keeps the last few answers, for readers that come to ask the same a little later. Pure: the caller brings the clock.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::rule::{Answer, Ask};

/// Answers kept at most.
const MOST: usize = 16;

/// What all answers kept weigh at most, in bytes, unless they are a few.
const BYTES: usize = 4 << 20;

/// So many are kept all the same: whoever reads a chunk behind is to find the next one.
const FEW: usize = 4;

/// What those weigh at most, in bytes.
const MOST_BYTES: usize = 16 << 20;

/// How long an answer is kept. What is older would be true still; but whoever comes later than that is not in step.
const MOST_AGE: Duration = Duration::from_secs(2);

/// Answers, the oldest first.
///
/// An empty one is not kept: it says that at its moment there was nothing, and whoever took it later would overlook for another turn what
/// has been committed since. One with rows does no such harm: whoever takes it goes on as if it had read then.
#[derive(Debug, Default)]
pub(super) struct Recent {
    answers: VecDeque<(Instant, Arc<Answer>)>,
    bytes: usize,
}

impl Recent {
    /// Keeps an answer, if it has anything in it and is not too large.
    pub(super) fn keep(&mut self, answer: &Arc<Answer>, now: Instant) {
        self.forget(now);
        let weight = answer.weight();
        if answer.is_empty() || weight > MOST_BYTES {
            return;
        }
        while self.is_too_much_with(weight) {
            if !self.forget_oldest() {
                break;
            }
        }
        self.bytes += weight;
        self.answers.push_back((now, Arc::clone(answer)));
    }

    /// A kept answer that this reader may take, and whether the one that was read behind it is kept too.
    pub(super) fn find(&mut self, ask: &Ask, now: Instant) -> Option<(Arc<Answer>, bool)> {
        self.forget(now);
        let mut answers = self.answers.iter().map(|(_, kept)| kept);
        let found = answers.find(|kept| ask.may_take(kept))?;
        let has_next = answers.any(|later| found.stands_before(later));
        Some((Arc::clone(found), has_next))
    }

    /// Whether a reader that asks `from`, and goes on through what is kept, comes to where `to` stands and reads on there: if that was read
    /// already, it has gone on.
    pub(super) fn leads(&self, from: &Ask, to: &Ask) -> bool {
        let mut at: Vec<i64> = from.place().collect();
        for (_, kept) in &self.answers {
            if kept.ask.place().eq(at.iter().copied()) && from.is_alike(&kept.ask) {
                at = kept.end().collect();
            }
        }
        from.is_alike(to) && to.place().eq(at)
    }

    fn is_too_much_with(&self, weight: usize) -> bool {
        let (count, bytes) = (self.answers.len() + 1, self.bytes + weight);
        count > MOST || bytes > MOST_BYTES || (count > FEW && bytes > BYTES)
    }

    fn forget(&mut self, now: Instant) {
        let is_old = |(came, _): &(Instant, _)| now.saturating_duration_since(*came) > MOST_AGE;
        while self.answers.front().is_some_and(is_old) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) -> bool {
        let oldest = self.answers.pop_front();
        if let Some((_, answer)) = &oldest {
            self.bytes -= answer.weight();
        }
        oldest.is_some()
    }
}

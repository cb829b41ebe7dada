//! Which deliveries this member has and has neither deleted nor given back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::acker::SqsToken;

/// Deliveries by number, with the time at which each is no longer ours.
///
/// A lock, as ackers live in any task; it is held for a few lookups at a time and never across an await.
#[derive(Debug, Clone, Default)]
pub(crate) struct Held(Arc<Mutex<HashMap<u64, (SqsToken, Instant)>>>);

impl Held {
    fn locked(&self) -> MutexGuard<'_, HashMap<u64, (SqsToken, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn take(&self, token: SqsToken, deadline: Instant) {
        self.locked().insert(token.number, (token, deadline));
    }

    /// Those of `tokens` that we still have.
    pub(crate) fn of(&self, tokens: Vec<SqsToken>) -> Vec<SqsToken> {
        let held = self.locked();
        let ours = |token: &SqsToken| held.contains_key(&token.number);
        tokens.into_iter().filter(ours).collect()
    }

    /// Whether we still have it, and for longer than until `now`.
    pub(crate) fn has(&self, token: &SqsToken, now: Instant) -> bool {
        let held = self.locked();
        held.get(&token.number)
            .is_some_and(|(_, until)| *until > now)
    }

    pub(crate) fn extend(&self, token: &SqsToken, deadline: Instant) {
        if let Some((_, until)) = self.locked().get_mut(&token.number) {
            *until = deadline;
        }
    }

    /// When it is no longer ours; none if it is not ours now.
    pub(crate) fn deadline(&self, token: &SqsToken) -> Option<Instant> {
        self.locked().get(&token.number).map(|(_, until)| *until)
    }

    pub(crate) fn settled(&self, token: &SqsToken) {
        self.locked().remove(&token.number);
    }

    /// Forgets those whose time has run out: they come again, to whomever.
    pub(crate) fn forget_expired(&self, now: Instant) {
        self.locked().retain(|_, (_, until)| *until > now);
    }

    /// All that we have.
    pub(crate) fn all(&self) -> Vec<SqsToken> {
        self.locked()
            .values()
            .map(|(token, _)| token.clone())
            .collect()
    }
}

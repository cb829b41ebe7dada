//! Decides which of the parked messages that somebody made due are offered, and when they are tried again. They have left the order of their
//! key when they were parked, and keep none among themselves. Pure: the caller brings the clock.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use onceward_core::{Backoff, Route};

/// How many due messages are loaded at a time.
pub(crate) const PAGE: usize = 100;

/// How long replays are put off after one that did not get through: each try has the session for itself, and live messages come first.
const BACKOFF: Backoff = Backoff {
    base: Duration::from_secs(5),
    max: Duration::from_secs(300),
};

/// A due message, `M`, with its number in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Due<M> {
    pub(crate) seq: i64,
    pub(crate) route: Route,
    pub(crate) message: M,
}

/// After tries that did not get through.
#[derive(Debug, Clone, Copy)]
struct PutOff {
    failures: u32,
    until: Instant,
}

/// The due messages of a stream, a page of them at a time.
#[derive(Debug)]
pub(crate) struct Replays<M> {
    page: VecDeque<Due<M>>,
    /// The number behind which the page begins.
    after: i64,
    /// The destination took nothing.
    all: Option<PutOff>,
    /// The routes that took nothing.
    routes: HashMap<Route, PutOff>,
}

impl<M> Default for Replays<M> {
    fn default() -> Self {
        Self {
            page: VecDeque::new(),
            after: 0,
            all: None,
            routes: HashMap::new(),
        }
    }
}

impl<M> Replays<M> {
    /// The number behind which the page to load begins.
    #[must_use]
    pub(crate) fn after(&self) -> i64 {
        self.after
    }

    /// Whether nothing waits to be offered.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.page.is_empty()
    }

    /// Takes note of a page, in place of the one before. `more`: whether there may be more behind it. `open`: whether a route takes replays
    /// now. A page of which nothing may be offered must not hide those behind it: the next one is loaded then, and after the last one the
    /// first.
    pub(crate) fn set(
        &mut self,
        page: Vec<Due<M>>,
        more: bool,
        now: Instant,
        open: impl Fn(&Route) -> bool,
    ) {
        // Asked for before that failed: what is put off stays so.
        if self.all.is_some_and(|all| now < all.until) {
            return;
        }
        self.routes
            .retain(|_, put_off| now < put_off.until + BACKOFF.max);
        let last = page.last().map(|due| due.seq);
        let waits = |route: &Route| self.routes.get(route).is_some_and(|off| now < off.until);
        self.page = page.into_iter().filter(|due| !waits(&due.route)).collect();
        if !self.page.iter().any(|due| open(&due.route)) {
            self.after = last.filter(|_| more).unwrap_or(0);
        }
    }

    /// Whether there is one that may be offered now.
    #[must_use]
    pub(crate) fn any(&self, open: impl Fn(&Route) -> bool) -> bool {
        self.page.iter().any(|due| open(&due.route))
    }

    /// Takes the first one that may be offered now.
    pub(crate) fn take(&mut self, open: impl Fn(&Route) -> bool) -> Option<Due<M>> {
        let at = self.page.iter().position(|due| open(&due.route))?;
        self.page.remove(at)
    }

    /// Leaves all of them for later; until when.
    pub(crate) fn put_off(&mut self, now: Instant) -> Instant {
        self.page.clear();
        let put_off = again(self.all, now);
        self.all = Some(put_off);
        put_off.until
    }

    /// Leaves those of a route for later. The others go on once they are loaded again: live messages come between.
    pub(crate) fn put_off_route(&mut self, route: &Route, now: Instant) {
        self.page.clear();
        let put_off = again(self.routes.get(route).copied(), now);
        self.routes.insert(route.clone(), put_off);
    }

    /// One of the route was answered.
    pub(crate) fn answered(&mut self, route: &Route) {
        self.all = None;
        self.routes.remove(route);
    }
}

fn again(before: Option<PutOff>, now: Instant) -> PutOff {
    let failures = before.map_or(0, |before| before.failures).saturating_add(1);
    PutOff {
        failures,
        until: now + BACKOFF.ceiling(failures),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(route: &str, seqs: std::ops::RangeInclusive<i64>) -> Vec<Due<()>> {
        let due = |seq| Due {
            seq,
            route: Route::new(route),
            message: (),
        };
        seqs.map(due).collect()
    }

    fn taken(replays: &mut Replays<()>) -> Option<i64> {
        replays.take(|_| true).map(|due| due.seq)
    }

    #[test]
    fn a_page_of_which_nothing_goes_makes_room_for_the_next_one_and_the_last_for_the_first() {
        let now = Instant::now();
        let away = |route: &Route| route.as_str() != "away";
        let mut replays = Replays::default();

        replays.set(page("away", 1..=100), true, now, away);
        assert_eq!(replays.after(), 100);
        replays.set(page("orders", 101..=101), false, now, away);
        assert_eq!(replays.after(), 100);
        assert_eq!(replays.take(away).map(|due| due.seq), Some(101));
        replays.set(Vec::new(), false, now, away);
        assert_eq!(replays.after(), 0);
        replays.set(page("away", 1..=3), false, now, away);
        assert_eq!(replays.after(), 0);
    }

    #[test]
    fn a_route_that_took_nothing_puts_off_no_other() {
        let now = Instant::now();
        let mut replays = Replays::default();
        let both = || [page("away", 1..=1), page("orders", 2..=3)].concat();
        replays.set(both(), false, now, |_| true);
        assert_eq!(taken(&mut replays), Some(1));

        replays.put_off_route(&Route::new("away"), now);

        assert_eq!(taken(&mut replays), None, "live messages come first");
        replays.set(both(), false, now, |_| true);
        assert_eq!(taken(&mut replays), Some(2));
        replays.set(both(), false, now + BACKOFF.max, |_| true);
        assert_eq!(taken(&mut replays), Some(1));
    }

    #[test]
    fn what_was_asked_before_a_failure_does_not_end_its_wait() {
        let now = Instant::now();
        let mut replays = Replays::default();
        let until = replays.put_off(now);

        replays.set(page("orders", 1..=1), false, now, |_| true);

        assert!(replays.is_empty());
        replays.set(page("orders", 1..=1), false, until, |_| true);
        assert_eq!(taken(&mut replays), Some(1));
    }

    #[test]
    fn each_failure_in_a_row_is_waited_for_longer() {
        let now = Instant::now();
        let mut replays: Replays<()> = Replays::default();

        let first = replays.put_off(now);
        assert!(replays.put_off(now) > first);
        replays.answered(&Route::new("orders"));
        assert_eq!(replays.put_off(now), first);
    }
}

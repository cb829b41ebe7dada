//! Decides when a destination or a topic that refused is tried again. Pure: the caller brings the clocks and the chance.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use onceward_core::{Backoff, Route};

use crate::plan::Refusal;

/// The most routes that are asked about at a time, so that a check ends soon.
pub(crate) const CHECKED_AT_A_TIME: usize = 10;

/// One that refuses again so soon after its return was not really back: at least this soon, or within the time that it was away.
const BACK_AT_LEAST: Duration = Duration::from_secs(1);

/// One that was away for long need not prove itself for as long.
const BACK_AT_MOST: Duration = Duration::from_secs(60);

/// Something that cannot be published to now.
#[derive(Debug, Clone)]
pub(crate) struct Pause {
    /// Since when.
    pub(crate) since: SystemTime,
    /// How often it has refused, counted from 1.
    pub(crate) attempt: u32,
    /// Why, the last time.
    pub(crate) refusal: Refusal,
    began: Instant,
    until: Instant,
    stage: Stage,
}

/// How a pause ends: first the destination is asked, then one message is tried, then all go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing is tried before its time.
    Waiting,
    /// The destination is being asked.
    Checking,
    /// The check was clean: one message is tried.
    Probing,
}

/// What is paused in one stream.
#[derive(Debug, Default)]
pub(crate) struct Pauses {
    backoff: Backoff,
    destination: Option<Pause>,
    topics: HashMap<Route, Pause>,
    /// Those that came back a short while ago, and until when they have to hold out.
    returned: HashMap<Route, (Pause, Instant)>,
}

/// The present, by both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    /// What waits are measured by.
    pub(crate) instant: Instant,
    /// What people are told.
    pub(crate) time: SystemTime,
}

impl Pause {
    /// When it began.
    #[must_use]
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// How its end stands.
    #[must_use]
    pub(crate) fn stage(&self) -> Stage {
        self.stage
    }
}

impl Pauses {
    /// Pauses the destination, for longer each time it refuses in a row. Tells whether it was tried since the last refusal:
    /// the messages of one offer are refused together, and count once.
    pub(crate) fn pause_destination(&mut self, refusal: Refusal, now: Now, chance: f64) -> bool {
        let before = self.destination.take();
        let counts = tried(before.as_ref());
        self.destination = Some(again(before, refusal, now, &self.backoff, chance));
        counts
    }

    /// Pauses one route, for longer each time it refuses in a row. One that refuses soon after its return counts as paused all along:
    /// else one that takes some messages now and then would hold its stream for ever. Tells whether it was tried since the last refusal.
    pub(crate) fn pause_topic(
        &mut self,
        route: &Route,
        refusal: Refusal,
        now: Now,
        chance: f64,
    ) -> bool {
        self.returned.retain(|_, (_, until)| now.instant < *until);
        let before = self.topics.remove(route);
        let counts = tried(before.as_ref());
        let mut pause = again(before, refusal, now, &self.backoff, chance);
        if let Some((returned, _)) = self.returned.remove(route) {
            (pause.began, pause.since) = (returned.began, returned.since);
        }
        self.topics.insert(route.clone(), pause);
        counts
    }

    /// The destination took the message that was tried: it is paused no more. What an earlier session still confirms says nothing.
    pub(crate) fn resume_destination(&mut self) -> Option<Pause> {
        self.destination
            .take_if(|pause| pause.stage == Stage::Probing)
    }

    /// A route took the message that was tried: it is paused no more.
    pub(crate) fn resume_topic(&mut self, route: &Route, now: Instant) -> Option<Pause> {
        let probing = |pause: &Pause| pause.stage == Stage::Probing;
        if !self.topics.get(route).is_some_and(probing) {
            return None;
        }
        let pause = self.topics.remove(route)?;
        let away = now.saturating_duration_since(pause.began);
        let until = now + away.clamp(BACK_AT_LEAST, BACK_AT_MOST);
        self.returned.insert(route.clone(), (pause.clone(), until));
        Some(pause)
    }

    /// Ends the pauses of routes of which nothing is `left` to try them with, and gives those. One that is being asked about goes on.
    pub(crate) fn end_idle(&mut self, left: impl Fn(&Route) -> bool) -> Vec<Route> {
        let idle = |route: &Route, pause: &Pause| pause.stage != Stage::Checking && !left(route);
        let ended = self.topics.extract_if(|route, pause| idle(route, pause));
        ended.map(|(route, _)| route).collect()
    }

    /// The destination's pause.
    #[must_use]
    pub(crate) fn destination(&self) -> Option<&Pause> {
        self.destination.as_ref()
    }

    /// Whether the route is paused by itself.
    #[must_use]
    pub(crate) fn is_paused(&self, route: &Route) -> bool {
        self.topics.contains_key(route)
    }

    /// The paused routes.
    pub(crate) fn topics(&self) -> impl Iterator<Item = (&Route, &Pause)> {
        self.topics.iter()
    }

    /// Routes whose time has come and whose check has not begun: those that have waited longest, a few at a time.
    #[must_use]
    pub(crate) fn due(&self, now: Instant) -> Vec<Route> {
        let due = |pause: &Pause| pause.stage == Stage::Waiting && pause.until <= now;
        let mut routes: Vec<_> = self.topics.iter().filter(|(_, pause)| due(pause)).collect();
        routes.sort_by_key(|(_, pause)| pause.until);
        routes.truncate(CHECKED_AT_A_TIME);
        routes.into_iter().map(|(route, _)| route.clone()).collect()
    }

    /// Whether the destination may be asked or tried now.
    #[must_use]
    pub(crate) fn destination_due(&self, now: Instant) -> bool {
        self.destination.as_ref().is_none_or(|p| p.until <= now)
    }

    /// Moves the pause of a route on.
    pub(crate) fn set_topic_stage(&mut self, route: &Route, stage: Stage) {
        if let Some(pause) = self.topics.get_mut(route) {
            pause.stage = stage;
        }
    }

    /// The destination was asked and answered: unless it refused, one message is tried.
    pub(crate) fn set_destination_checked(&mut self) {
        if let Some(pause) = &mut self.destination
            && pause.stage == Stage::Checking
        {
            pause.stage = Stage::Probing;
        }
    }

    /// Moves the pause of the destination on.
    pub(crate) fn set_destination_stage(&mut self, stage: Stage) {
        if let Some(pause) = &mut self.destination {
            pause.stage = stage;
        }
    }

    /// A session ended: whatever was being checked or tried waits again.
    pub(crate) fn session_ended(&mut self) {
        for pause in self.topics.values_mut().chain(self.destination.as_mut()) {
            pause.stage = Stage::Waiting;
        }
    }

    /// How many messages of the route may be offered now.
    #[must_use]
    pub(crate) fn allowance(&self, route: &Route) -> Allowance {
        let probing = |pause: &Pause| pause.stage == Stage::Probing;
        match (&self.destination, self.topics.get(route)) {
            (None, None) => Allowance::Any,
            (None, Some(pause)) | (Some(pause), None) if probing(pause) => Allowance::One,
            (Some(destination), Some(topic)) if probing(destination) && probing(topic) => {
                Allowance::One
            }
            (None | Some(_), None | Some(_)) => Allowance::None,
        }
    }

    /// When the destination's pause ends, else when the next topic's does: topics wait for their destination.
    #[must_use]
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let waiting = |pause: &&Pause| pause.stage == Stage::Waiting;
        match self.destination.as_ref().filter(waiting) {
            Some(destination) => Some(destination.until),
            None => self.topics.values().filter(waiting).map(|p| p.until).min(),
        }
    }
}

/// How many messages may be offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Allowance {
    /// As many as there are.
    Any,
    /// One, to see whether it is taken.
    One,
    /// None.
    None,
}

/// Whether a refusal counts: a first one, or one of something that was asked or tried.
fn tried(before: Option<&Pause>) -> bool {
    before.is_none_or(|pause| pause.stage != Stage::Waiting)
}

fn again(
    before: Option<Pause>,
    refusal: Refusal,
    now: Now,
    backoff: &Backoff,
    chance: f64,
) -> Pause {
    let attempt = match before {
        Some(pause) if !tried(Some(&pause)) => return Pause { refusal, ..pause },
        Some(ref pause) => pause.attempt.saturating_add(1),
        None => 1,
    };
    Pause {
        since: before.as_ref().map_or(now.time, |p| p.since),
        began: before.map_or(now.instant, |p| p.began),
        attempt,
        refusal,
        until: now.instant + backoff.delay(attempt, chance),
        stage: Stage::Waiting,
    }
}

#[cfg(test)]
#[path = "pause_tests.rs"]
mod tests;

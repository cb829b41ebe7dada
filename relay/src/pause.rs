//! Decides when a destination or a topic that refused is tried again. Pure: the caller brings the clock and the chance.

use std::collections::HashMap;
use std::time::Instant;

use onceward_core::{Backoff, Route};

use crate::plan::Refusal;

/// Something that cannot be published to now.
#[derive(Debug, Clone)]
pub struct Pause {
    /// Since when.
    pub since: Instant,
    /// How often it has refused, counted from 1.
    pub attempt: u32,
    /// Why, the last time.
    pub refusal: Refusal,
    until: Instant,
    stage: Stage,
}

/// How a pause ends: first the destination is asked, then one message is tried, then all go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Nothing is tried before its time.
    Waiting,
    /// The destination is being asked.
    Checking,
    /// The check was clean: one message is tried.
    Probing,
}

/// What is paused in one stream.
#[derive(Debug, Default)]
pub struct Pauses {
    backoff: Backoff,
    destination: Option<Pause>,
    topics: HashMap<Route, Pause>,
}

impl Pauses {
    /// Pauses the destination, for longer each time it refuses in a row.
    pub fn pause_destination(&mut self, refusal: Refusal, now: Instant, chance: f64) {
        let before = self.destination.take();
        self.destination = Some(again(before, refusal, now, &self.backoff, chance));
    }

    /// Pauses one route, for longer each time it refuses in a row.
    pub fn pause_topic(&mut self, route: &Route, refusal: Refusal, now: Instant, chance: f64) {
        let before = self.topics.remove(route);
        let pause = again(before, refusal, now, &self.backoff, chance);
        self.topics.insert(route.clone(), pause);
    }

    /// The destination took a message: it is paused no more.
    pub fn resume_destination(&mut self) -> Option<Pause> {
        self.destination.take()
    }

    /// A route took a message: it is paused no more.
    pub fn resume_topic(&mut self, route: &Route) -> Option<Pause> {
        self.topics.remove(route)
    }

    /// The destination's pause.
    #[must_use]
    pub fn destination(&self) -> Option<&Pause> {
        self.destination.as_ref()
    }

    /// The paused routes.
    pub fn topics(&self) -> impl Iterator<Item = (&Route, &Pause)> {
        self.topics.iter()
    }

    /// Whether anything of the route may be offered freely.
    #[must_use]
    pub fn is_open(&self, route: &Route) -> bool {
        self.destination.is_none() && !self.topics.contains_key(route)
    }

    /// Routes whose time has come and whose check has not begun.
    #[must_use]
    pub fn due(&self, now: Instant) -> Vec<Route> {
        let due = |pause: &Pause| pause.stage == Stage::Waiting && pause.until <= now;
        let routes = self.topics.iter().filter(|(_, pause)| due(pause));
        routes.map(|(route, _)| route.clone()).collect()
    }

    /// Whether the destination may be asked or tried now.
    #[must_use]
    pub fn destination_due(&self, now: Instant) -> bool {
        self.destination.as_ref().is_none_or(|p| p.until <= now)
    }

    /// Moves the pause of a route on.
    pub fn set_topic_stage(&mut self, route: &Route, stage: Stage) {
        if let Some(pause) = self.topics.get_mut(route) {
            pause.stage = stage;
        }
    }

    /// Moves the pause of the destination on.
    pub fn set_destination_stage(&mut self, stage: Stage) {
        if let Some(pause) = &mut self.destination {
            pause.stage = stage;
        }
    }

    /// A session ended: whatever was being checked or tried waits again.
    pub fn session_ended(&mut self) {
        for pause in self.topics.values_mut().chain(self.destination.as_mut()) {
            pause.stage = Stage::Waiting;
        }
    }

    /// How many messages of the route may be offered now.
    #[must_use]
    pub fn allowance(&self, route: &Route) -> Allowance {
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

    /// When the next pause ends.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        let all = self.topics.values().chain(self.destination.as_ref());
        all.filter(|pause| pause.stage == Stage::Waiting)
            .map(|pause| pause.until)
            .min()
    }
}

/// How many messages may be offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowance {
    /// As many as there are.
    Any,
    /// One, to see whether it is taken.
    One,
    /// None.
    None,
}

fn again(
    before: Option<Pause>,
    refusal: Refusal,
    now: Instant,
    backoff: &Backoff,
    chance: f64,
) -> Pause {
    let attempt = before.as_ref().map_or(0, |p| p.attempt).saturating_add(1);
    Pause {
        since: before.map_or(now, |p| p.since),
        attempt,
        refusal,
        until: now + backoff.delay(attempt, chance),
        stage: Stage::Waiting,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use onceward_core::ErrorKind;

    use super::*;

    fn refusal() -> Refusal {
        Refusal {
            kind: ErrorKind::UnknownTopic,
            what: "no such topic".to_owned(),
        }
    }

    #[test]
    fn a_paused_topic_stops_itself_and_nobody_else() {
        let (bad, good) = (Route::new("bad"), Route::new("good"));
        let mut pauses = Pauses::default();

        pauses.pause_topic(&bad, refusal(), Instant::now(), 1.0);

        assert_eq!(pauses.allowance(&bad), Allowance::None);
        assert_eq!(pauses.allowance(&good), Allowance::Any);
    }

    #[test]
    fn a_pause_lasts_longer_each_time_and_keeps_its_beginning() {
        let route = Route::new("bad");
        let start = Instant::now();
        let mut pauses = Pauses::default();

        pauses.pause_topic(&route, refusal(), start, 1.0);
        assert!(pauses.due(start + Duration::from_millis(99)).is_empty());
        assert_eq!(pauses.due(start + Duration::from_millis(100)).len(), 1);

        let later = start + Duration::from_secs(1);
        pauses.pause_topic(&route, refusal(), later, 1.0);
        assert!(pauses.due(later + Duration::from_millis(199)).is_empty());
        let pause = pauses.resume_topic(&route).unwrap();
        assert_eq!((pause.attempt, pause.since), (2, start));
    }

    #[test]
    fn one_message_tries_the_way_before_all_follow() {
        let route = Route::new("bad");
        let mut pauses = Pauses::default();
        pauses.pause_topic(&route, refusal(), Instant::now(), 0.0);

        pauses.set_topic_stage(&route, Stage::Probing);
        assert_eq!(pauses.allowance(&route), Allowance::One);

        pauses.session_ended();
        assert_eq!(pauses.allowance(&route), Allowance::None);
        pauses.resume_topic(&route);
        assert_eq!(pauses.allowance(&route), Allowance::Any);
    }
}

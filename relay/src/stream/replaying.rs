//! Parked messages that somebody made due: published again, alone, while nothing else is in flight.

use std::time::{Duration, Instant};

use onceward::DueMessage;
use onceward_core::{Backoff, Outgoing};
use tracing::{info, warn};

use super::holder::Holder;
use crate::destination::Destination;
use crate::pause::Allowance;
use crate::plan::{Fate, Refusal};
use crate::window::Offer;

/// How long replays are put off after one that did not get through.
const REPLAY_BACKOFF: Backoff = Backoff {
    base: Duration::from_secs(5),
    max: Duration::from_secs(300),
};

/// How a replay ended, for its row.
#[derive(Debug, Clone)]
pub(super) struct Replayed {
    pub(super) due: DueMessage,
    /// None: the broker has it.
    pub(super) refusal: Option<Refusal>,
}

impl<D: Destination> Holder<D> {
    /// The first due message whose route is not paused. What is paused is tried with a live message, if there is one.
    pub(super) fn next_replay(&self) -> Option<usize> {
        let open = |due: &DueMessage| {
            let route = self.replay_route(due);
            match self.pauses.allowance(&route) {
                Allowance::Any => true,
                Allowance::One => !self.has_live(&route),
                Allowance::None => false,
            }
        };
        self.replays.iter().position(open)
    }

    /// Whether a message of the route waits that may be offered. What is held waits for a replay itself.
    fn has_live(&self, route: &onceward_core::Route) -> bool {
        let mut lines = self
            .window
            .lines()
            .filter(|line| !self.detours.is_held(*line));
        lines.any(|line| self.window.waiting(line).any(|one| one.route == *route))
    }

    fn replay_route(&self, due: &DueMessage) -> onceward_core::Route {
        let routes = self.settings.route.routes(&due.message.topic);
        routes.of(due.message.key.as_ref(), &due.message.id)
    }

    /// Takes note of what is due now, in place of what was due before.
    pub(super) fn set_due(&mut self, due: Vec<DueMessage>) {
        let replaying = self.replaying.as_ref();
        let at_work = replaying.or(self.replayed.as_ref().map(|replayed| &replayed.due));
        let at_work = at_work.map(|due| due.seq);
        let others = due.into_iter().filter(|due| Some(due.seq) != at_work);
        self.replays = others.collect();
    }

    /// Offers one due message, with nothing beside it.
    pub(super) fn offer_replay(&mut self) -> bool {
        let Some(due) = self.next_replay().and_then(|at| self.replays.remove(at)) else {
            return false;
        };
        let mut message = due.message.clone();
        message.source = Some(self.settings.source.clone());
        let outgoing = Outgoing {
            route: self.replay_route(&due),
            message,
            replay: Some(due.run),
        };
        info!(stream = %self.settings.name, seq = due.seq, route = %outgoing.route, "replaying a parked message");
        self.replaying = Some(due);
        self.offer(Offer::single(outgoing))
    }

    /// What became of the replay.
    pub(super) fn on_replayed(&mut self, offer: &Offer, fate: Fate, now: Instant) {
        let Some(due) = self.replaying.take() else {
            return;
        };
        let route = offer
            .batch
            .messages
            .first()
            .map(|outgoing| outgoing.route.clone());
        if matches!(fate, Fate::Done | Fate::Park(_)) {
            self.replay_failures = 0;
        } else {
            self.put_off_replays(now);
        }
        match fate {
            Fate::Done => {
                self.progress = true;
                if let Some(route) = &route {
                    self.on_taken(route);
                }
                self.replayed = Some(Replayed { due, refusal: None });
            }
            Fate::Park(refusal) => {
                self.progress = true;
                self.end_gently();
                warn!(stream = %self.settings.name, seq = due.seq, error = %refusal.what, "the replayed message is refused again");
                let refusal = Some(refusal);
                self.replayed = Some(Replayed { due, refusal });
            }
            // It stays due, and is loaded again.
            Fate::Again | Fate::Search => self.end_gently(),
            Fate::PauseTopic(refusal) => {
                self.end_gently();
                if let Some(route) = &route {
                    self.pause_topic(route, refusal);
                }
            }
            Fate::PauseDestination(refusal) => {
                self.end_gently();
                self.pause_destination(refusal);
            }
        }
    }

    /// Leaves the due messages for later: each try has the session for itself, and live messages come first.
    pub(super) fn put_off_replays(&mut self, now: Instant) {
        self.replay_failures = self.replay_failures.saturating_add(1);
        self.replays.clear();
        self.due.replays = now + REPLAY_BACKOFF.ceiling(self.replay_failures);
    }
}

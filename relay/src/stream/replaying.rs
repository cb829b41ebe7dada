//! Parked messages that somebody made due: published again, alone, while nothing else is in flight.

use std::time::Instant;

use onceward::{Detour, DueMessage};
use onceward_core::{Outgoing, Route};
use tracing::{info, warn};

use super::holder::Holder;
use crate::destination::Destination;
use crate::pause::Allowance;
use crate::plan::{Fate, Refusal};
use crate::replays::{Due, PAGE};
use crate::window::Offer;

/// How a replay ended, for its row.
#[derive(Debug, Clone)]
pub(super) struct Replayed {
    pub(super) due: DueMessage,
    /// None: the broker has it.
    pub(super) refusal: Option<Refusal>,
}

impl<D: Destination> Holder<D> {
    /// Whether the route takes replays now. What is paused is tried with a live message, if there is one.
    pub(super) fn may_replay(&self, route: &Route) -> bool {
        match self.pauses.allowance(route) {
            Allowance::Any => true,
            Allowance::One => !self.has_live(route),
            Allowance::None => false,
        }
    }

    /// Whether a message of the route waits that may be offered. What is held waits for a replay itself.
    fn has_live(&self, route: &Route) -> bool {
        let mut lines = self
            .window
            .lines()
            .filter(|line| !self.detours.is_held(*line));
        lines.any(|line| self.window.waiting(line).any(|one| one.route == *route))
    }

    fn replay_route(&self, due: &DueMessage) -> Route {
        let routes = self.settings.route.routes(&due.message.topic);
        routes.of(due.message.key.as_ref(), &due.message.id)
    }

    /// Takes note of what is due now, in place of what was due before.
    pub(super) fn set_due(&mut self, due: Vec<DueMessage>, now: Instant) {
        let more = due.len() >= PAGE;
        let replaying = self.replaying.as_ref();
        let at_work = replaying.or(self.replayed.as_ref().map(|replayed| &replayed.due));
        let at_work = at_work.map(|due| due.seq);
        let page = due.into_iter().map(|message| Due {
            seq: message.seq,
            route: self.replay_route(&message),
            message,
        });
        let page: Vec<_> = page.filter(|due| Some(due.seq) != at_work).collect();
        if at_work.is_none() && !more && self.replays.after() == 0 {
            self.end_idle_pauses(&page);
        }
        let mut replays = std::mem::take(&mut self.replays);
        replays.set(page, more, now, |route| self.may_replay(route));
        self.replays = replays;
    }

    /// Ends the pauses of routes of which nothing is left to try them with: a person has discarded it. `due`: all that is due.
    fn end_idle_pauses(&mut self, due: &[Due<DueMessage>]) {
        let mut pauses = std::mem::take(&mut self.pauses);
        let ended = pauses.end_idle(|route| {
            let in_detour = |(_, detour): (_, &Detour)| {
                let of_topic = self.settings.route.routes(&detour.topic);
                of_topic.iter().any(|one| one == route)
            };
            self.window.holds(route)
                || due.iter().any(|due| due.route == *route)
                || self.detours.lines().any(in_detour)
        });
        self.pauses = pauses;
        for route in ended {
            info!(stream = %self.settings.name, %route, "nothing is left of a paused topic");
        }
    }

    /// Offers one due message, with nothing beside it.
    pub(super) fn offer_replay(&mut self) -> bool {
        let mut replays = std::mem::take(&mut self.replays);
        let next = replays.take(|route| self.may_replay(route));
        self.replays = replays;
        let Some(Due {
            route,
            message: due,
            ..
        }) = next
        else {
            return false;
        };
        let mut message = due.message.clone();
        message.source = Some(self.settings.source.clone());
        let outgoing = Outgoing {
            route,
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
        match fate {
            Fate::Done => {
                self.progress = true;
                if let Some(route) = &route {
                    self.replays.answered(route);
                    self.on_taken(route);
                }
                self.replayed = Some(Replayed { due, refusal: None });
            }
            Fate::Park(refusal) => {
                self.progress = true;
                if let Some(route) = &route {
                    self.replays.answered(route);
                }
                self.end_gently();
                warn!(stream = %self.settings.name, seq = due.seq, error = %refusal.what, "the replayed message is refused again");
                let refusal = Some(refusal);
                self.replayed = Some(Replayed { due, refusal });
            }
            // It stays due, and is loaded again.
            Fate::Again | Fate::Search => {
                self.end_gently();
                self.put_off_replays(now);
            }
            Fate::PauseTopic(refusal) => {
                // The destination answered: its others go on.
                self.progress = true;
                self.end_gently();
                if let Some(route) = &route {
                    self.replays.put_off_route(route, now);
                    self.pause_topic(route, refusal);
                }
            }
            Fate::PauseDestination(refusal) => {
                self.end_gently();
                self.put_off_replays(now);
                self.pause_destination(refusal);
            }
        }
    }

    /// Leaves the due messages for later.
    pub(super) fn put_off_replays(&mut self, now: Instant) {
        self.due.replays = self.replays.put_off(now);
    }
}

//! Parked messages that somebody made due: published again, alone, while nothing else is in flight.

use std::time::Instant;

use onceward::DueMessage;
use onceward_core::Outgoing;
use tracing::info;

use super::holder::Holder;
use crate::destination::Destination;
use crate::pause::Allowance;
use crate::plan::{Fate, Refusal};
use crate::window::Offer;

/// How a replay ended, for its row.
#[derive(Debug, Clone)]
pub(super) struct Replayed {
    pub(super) due: DueMessage,
    /// None: the broker has it.
    pub(super) refusal: Option<Refusal>,
}

impl<D: Destination> Holder<D> {
    /// The first due message whose route is not paused.
    pub(super) fn next_replay(&self) -> Option<usize> {
        let open =
            |due: &DueMessage| self.pauses.allowance(&self.replay_route(due)) != Allowance::None;
        self.replays.iter().position(open)
    }

    fn replay_route(&self, due: &DueMessage) -> onceward_core::Route {
        self.settings.route.route(&due.message.topic)
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
        self.replays_at = self.replays_at.max(now);
    }
}

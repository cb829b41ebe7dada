//! What was read and is not yet passed by the stored cursor: which messages wait, are on offer or are done. Pure.

mod lane;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use onceward_core::{Batch, Lane, Outgoing, Route};

use crate::pause::Allowance;
use lane::{LaneWindow, Taken};

/// One message of the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct EntryId {
    /// Its lane.
    pub(crate) lane: Lane,
    chunk: u64,
    index: usize,
}

/// What the window may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Messages not done, all lanes together; each lane gets a third.
    pub(crate) messages: usize,
    /// Bytes of messages not done, all lanes together.
    pub(crate) bytes: usize,
    /// Messages not done of one route.
    pub(crate) per_route: usize,
}

/// How many times a lane's share is held at most, counting what is done behind a message that waits.
const HELD: usize = 10;

/// Messages to hand over together, and where they stand in the window.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    /// The messages, in order.
    pub(crate) batch: Arc<Batch>,
    /// Their entries, in the same order.
    pub(crate) entries: Vec<EntryId>,
}

impl Offer {
    /// An offer of one message that is not of the window.
    #[must_use]
    pub(crate) fn single(outgoing: Outgoing) -> Self {
        Self {
            batch: Arc::new(Batch {
                messages: vec![outgoing],
            }),
            entries: Vec::new(),
        }
    }
}

/// The messages between the stored cursor and the last read, by lane. `C` is the cursor behind a chunk.
#[derive(Debug)]
pub(crate) struct Window<C> {
    lanes: [LaneWindow<C>; 3],
    routes: HashMap<Route, Load>,
    bytes: usize,
    turn: usize,
    bounds: Bounds,
}

/// How much of a route is in the window.
#[derive(Debug, Default, Clone, Copy)]
struct Load {
    open: usize,
    offered: usize,
    suspects: usize,
}

impl<C> Window<C> {
    /// An empty window.
    #[must_use]
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            lanes: [LaneWindow::new(), LaneWindow::new(), LaneWindow::new()],
            routes: HashMap::new(),
            bytes: 0,
            turn: 0,
            bounds,
        }
    }

    /// Takes a chunk in; `after` is the lane's cursor once all of it is done. A chunk may be empty.
    pub(crate) fn push(&mut self, lane: Lane, messages: Vec<Outgoing>, after: C) {
        for outgoing in &messages {
            self.bytes += outgoing.message.weight();
            self.routes.entry(outgoing.route.clone()).or_default().open += 1;
        }
        self.lane_mut(lane).push(messages, after);
    }

    /// How many more messages a read of the lane may bring. A message that waits holds back what is done behind it; of that too
    /// only so much is held. While one route has filled its share, nothing is read:
    /// a cursor cannot pass what waits.
    #[must_use]
    pub(crate) fn room(&self, lane: Lane) -> usize {
        let crowded = |load: &Load| load.open >= self.bounds.per_route;
        if self.bytes >= self.bounds.bytes || self.routes.values().any(crowded) {
            return 0;
        }
        let share = self.bounds.messages.div_ceil(self.lanes.len());
        if self.lane(lane).held() >= share.saturating_mul(HELD) {
            return 0;
        }
        share.saturating_sub(self.lane(lane).open())
    }

    /// How many bytes more a read may bring.
    #[must_use]
    pub(crate) fn byte_room(&self) -> usize {
        self.bounds.bytes.saturating_sub(self.bytes)
    }

    /// The next messages to offer, at most `most` of them and about `bytes`; the lanes take turns. `allowance` tells how many of a route
    /// may be on offer. A message is never taken before an earlier one of its lane and route, and none of a route that has a suspect.
    pub(crate) fn offer(
        &mut self,
        most: usize,
        bytes: usize,
        allowance: impl Fn(&Route) -> Allowance,
    ) -> Option<Offer> {
        let mut taken = Taken::new(most, bytes);
        let routes = &mut self.routes;
        let mut may = |route: &Route| {
            let load = routes.entry(route.clone()).or_default();
            let allowed = load.suspects == 0
                && match allowance(route) {
                    Allowance::Any => true,
                    Allowance::One => load.offered == 0,
                    Allowance::None => false,
                };
            load.offered += usize::from(allowed);
            allowed
        };
        self.turn = (self.turn + 1) % Lane::ALL.len();
        let share = most.div_ceil(Lane::ALL.len());
        for quota in [share, most] {
            for step in 0..Lane::ALL.len() {
                let lane = Lane::ALL[(self.turn + step) % Lane::ALL.len()];
                let window = &mut self.lanes[index(lane)];
                window.take(lane, quota, &mut taken, &mut may);
            }
        }
        self.seal(taken)
    }

    /// While guilty messages are searched: the next message to offer alone, while nothing else is on offer. Everything of a suspect's
    /// route is offered so, in order, until its last suspect is done: an earlier message of its key must not be overtaken.
    pub(crate) fn offer_suspect(
        &mut self,
        allowance: impl Fn(&Route) -> Allowance,
    ) -> Option<Offer> {
        let suspected = |(route, load): (&Route, &Load)| {
            let searched = load.suspects > 0 && allowance(route) != Allowance::None;
            searched.then(|| route.clone())
        };
        let suspected: HashSet<Route> = self.routes.iter().filter_map(suspected).collect();
        let mut taken = Taken::new(1, usize::MAX);
        for lane in Lane::ALL {
            let window = &mut self.lanes[index(lane)];
            if window.suspects() > 0 {
                window.take(lane, 1, &mut taken, &mut |route| suspected.contains(route));
            }
        }
        for outgoing in taken.messages() {
            self.routes
                .entry(outgoing.route.clone())
                .or_default()
                .offered += 1;
        }
        self.seal(taken)
    }

    /// The entry is done: confirmed, or parked.
    pub(crate) fn done(&mut self, id: EntryId) {
        let Some(finished) = self.lane_mut(id.lane).done(id.chunk, id.index) else {
            return;
        };
        self.bytes = self.bytes.saturating_sub(finished.weight);
        self.unload(&finished.route, |load| {
            load.open = load.open.saturating_sub(1);
            load.offered = load.offered.saturating_sub(usize::from(finished.offered));
            load.suspects = load.suspects.saturating_sub(usize::from(finished.suspect));
        });
    }

    /// The entry waits again, at its place.
    pub(crate) fn again(&mut self, id: EntryId) {
        if let Some(route) = self.lane_mut(id.lane).again(id.chunk, id.index) {
            self.unload(&route, |load| load.offered = load.offered.saturating_sub(1));
        }
    }

    /// The entry waits again and may be guilty.
    pub(crate) fn suspect(&mut self, id: EntryId) {
        self.again(id);
        if let Some(route) = self.lane_mut(id.lane).suspect(id.chunk, id.index) {
            self.routes.entry(route).or_default().suspects += 1;
        }
    }

    /// The message of an entry that is not done.
    #[must_use]
    pub(crate) fn get(&self, id: EntryId) -> Option<&Outgoing> {
        self.lane(id.lane).get(id.chunk, id.index)
    }

    /// Routes that wait, the first ones and at most `most`, for asking a destination whether it is back.
    #[must_use]
    pub(crate) fn waiting_routes(&self, most: usize) -> Vec<Route> {
        let mut routes: Vec<Route> = Vec::new();
        for route in self.lanes.iter().flat_map(LaneWindow::waiting_routes) {
            if routes.len() >= most {
                break;
            }
            if !routes.contains(route) {
                routes.push(route.clone());
            }
        }
        routes
    }

    /// Whether some message may be guilty, of a route that may be offered.
    #[must_use]
    pub(crate) fn searching(&self, allowance: impl Fn(&Route) -> Allowance) -> bool {
        let mut routes = self.routes.iter();
        routes.any(|(route, load)| load.suspects > 0 && allowance(route) != Allowance::None)
    }

    /// Passes every chunk that is done without a gap; for each lane the cursor behind the last one, if any was passed.
    pub(crate) fn advance(&mut self) -> [Option<C>; 3] {
        self.lanes.each_mut().map(LaneWindow::advance)
    }

    /// Messages not done.
    #[must_use]
    pub(crate) fn open(&self) -> usize {
        self.lanes.iter().map(LaneWindow::open).sum()
    }

    /// Whether nothing waits to be passed.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.lanes.iter().all(LaneWindow::is_empty)
    }

    fn seal(&mut self, taken: Taken) -> Option<Offer> {
        let offer = taken.into_offer()?;
        for (at, id) in offer.entries.iter().enumerate() {
            self.lane_mut(id.lane)
                .offered(id.chunk, id.index, &offer.batch, at);
        }
        Some(offer)
    }

    fn unload(&mut self, route: &Route, change: impl FnOnce(&mut Load)) {
        if let Some(load) = self.routes.get_mut(route) {
            change(load);
            if load.open == 0 {
                self.routes.remove(route);
            }
        }
    }

    fn lane(&self, lane: Lane) -> &LaneWindow<C> {
        &self.lanes[index(lane)]
    }

    fn lane_mut(&mut self, lane: Lane) -> &mut LaneWindow<C> {
        &mut self.lanes[index(lane)]
    }
}

const fn index(lane: Lane) -> usize {
    match lane {
        Lane::Critical => 0,
        Lane::Standard => 1,
        Lane::Bulk => 2,
    }
}

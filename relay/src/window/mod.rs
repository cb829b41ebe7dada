//! What was read and is not yet passed by the stored cursor: which messages wait, are on offer or are done. Pure.

mod line;
mod place;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use onceward_core::{Batch, Lane, Outgoing, Route};

use crate::pause::Allowance;
use line::{LineWindow, Taken};
pub(crate) use place::{EntryId, Line};

/// What the window may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Messages not done, all lanes together; each lane gets a third, and each detour as much.
    pub(crate) messages: usize,
    /// Bytes of messages not done, all lanes together; the detours may hold a quarter more.
    pub(crate) bytes: usize,
    /// Messages not done of one route in the lanes, and of one detour.
    pub(crate) per_route: usize,
}

/// How many times a lane's share is held at most, counting what is done behind a message that waits.
const HELD: usize = 10;

/// How many rows are read for a detour whose topic does not take messages now: one of them is what it is tried with.
const PROBE_ROWS: usize = 100;

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

/// The messages between the stored cursors and the last read, by line. `C` is the cursor behind a chunk.
#[derive(Debug)]
pub(crate) struct Window<C> {
    lines: Vec<(Line, LineWindow<C>)>,
    routes: HashMap<Route, Load>,
    turn: usize,
    bounds: Bounds,
}

/// How much of a route is in the window.
#[derive(Debug, Default, Clone, Copy)]
struct Load {
    open: usize,
    of_lanes: usize,
    offered: usize,
    suspects: usize,
}

impl<C> Window<C> {
    /// An empty window.
    #[must_use]
    pub(crate) fn new(bounds: Bounds) -> Self {
        let main = |lane| (Line::main(lane), LineWindow::new());
        Self {
            lines: Lane::ALL.map(main).into(),
            routes: HashMap::new(),
            turn: 0,
            bounds,
        }
    }

    /// Makes room for a line.
    pub(crate) fn open_line(&mut self, line: Line) {
        self.lines.push((line, LineWindow::new()));
    }

    /// Forgets a line, which must be empty.
    pub(crate) fn close_line(&mut self, line: Line) {
        self.lines.retain(|(known, _)| *known != line);
    }

    /// Takes a chunk in; `after` is the line's cursor once all of it is done. A chunk may be empty.
    pub(crate) fn push(&mut self, line: Line, messages: Vec<Outgoing>, after: C) {
        // Neighbours often go the same way.
        for same in messages.chunk_by(|one, next| one.route == next.route) {
            if let Some(first) = same.first() {
                let load = self.routes.entry(first.route.clone()).or_default();
                load.open += same.len();
                load.of_lanes += if line.is_main() { same.len() } else { 0 };
            }
        }
        if let Some(window) = self.line_mut(line) {
            window.push(messages, after);
        }
    }

    /// How many more messages a read of a main line may bring. A message that waits holds back what is done behind it; of that too
    /// only so much is held. While one route has filled its share, nothing is read: a cursor cannot pass what waits.
    #[must_use]
    pub(crate) fn room(&self, lane: Lane) -> usize {
        let crowded = |load: &Load| load.of_lanes >= self.bounds.per_route;
        if self.byte_room() == 0 || self.routes.values().any(crowded) {
            return 0;
        }
        self.share_left(Line::main(lane), self.share())
    }

    /// How many more messages a read of a detour may bring. One that does not `flow` needs a single message, to try its topic with.
    #[must_use]
    pub(crate) fn detour_room(&self, line: Line, flows: bool) -> usize {
        let empty = self.line(line).is_some_and(|window| window.open() == 0);
        if !flows {
            return if empty { PROBE_ROWS } else { 0 };
        }
        if !empty && self.detour_byte_room() == 0 {
            return 0;
        }
        self.share_left(line, self.share().min(self.bounds.per_route))
    }

    fn share(&self) -> usize {
        self.bounds.messages.div_ceil(Lane::ALL.len())
    }

    fn share_left(&self, line: Line, share: usize) -> usize {
        match self.line(line) {
            Some(window) if window.held() < share.saturating_mul(HELD) => {
                share.saturating_sub(window.open())
            }
            Some(_) | None => 0,
        }
    }

    /// How many bytes more a read of the main lines may bring.
    #[must_use]
    pub(crate) fn byte_room(&self) -> usize {
        self.bounds.bytes.saturating_sub(self.bytes(Line::is_main))
    }

    /// How many bytes more a read of the detours may bring.
    #[must_use]
    pub(crate) fn detour_byte_room(&self) -> usize {
        let held = self.bytes(|line| !line.is_main());
        (self.bounds.bytes / 4).saturating_sub(held)
    }

    fn bytes(&self, of: impl Fn(Line) -> bool) -> usize {
        let lines = self.lines.iter().filter(|(line, _)| of(*line));
        lines.map(|(_, window)| window.bytes()).sum()
    }

    /// The next messages to offer, at most `most` of them and about `bytes`; the lines take turns. `allowance` tells how many of a route
    /// may be on offer. A message is never taken before an earlier one of its line and route, and none of a route that has a suspect.
    pub(crate) fn offer(
        &mut self,
        most: usize,
        bytes: usize,
        allowance: impl Fn(Line, &Route) -> Allowance,
    ) -> Option<Offer> {
        let mut taken = Taken::new(most, bytes);
        let routes = &mut self.routes;
        let mut may = |line: Line, route: &Route| {
            let load = routes.entry(route.clone()).or_default();
            let allowed = load.suspects == 0
                && match allowance(line, route) {
                    Allowance::Any => true,
                    Allowance::One => load.offered == 0,
                    Allowance::None => false,
                };
            load.offered += usize::from(allowed);
            allowed
        };
        let lines = self.lines.len();
        self.turn = (self.turn + 1) % lines;
        for quota in [most.div_ceil(lines), most] {
            for step in 0..lines {
                let (line, window) = &mut self.lines[(self.turn + step) % lines];
                let line = *line;
                window.take(line, quota, &mut taken, &mut |route| may(line, route));
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
        for (line, window) in &mut self.lines {
            if window.suspects() > 0 {
                window.take(*line, 1, &mut taken, &mut |route| suspected.contains(route));
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
        let window = self.line_mut(id.line);
        let Some(finished) = window.and_then(|window| window.done(id.chunk, id.index)) else {
            return;
        };
        self.unload(&finished.route, |load| {
            load.open = load.open.saturating_sub(1);
            load.of_lanes = load.of_lanes.saturating_sub(usize::from(id.line.is_main()));
            load.offered = load.offered.saturating_sub(usize::from(finished.offered));
            load.suspects = load.suspects.saturating_sub(usize::from(finished.suspect));
        });
    }

    /// The entry waits again, at its place.
    pub(crate) fn again(&mut self, id: EntryId) {
        let window = self.line_mut(id.line);
        if let Some(route) = window.and_then(|window| window.again(id.chunk, id.index)) {
            self.unload(&route, |load| load.offered = load.offered.saturating_sub(1));
        }
    }

    /// The entry waits again and may be guilty.
    pub(crate) fn suspect(&mut self, id: EntryId) {
        self.again(id);
        let window = self.line_mut(id.line);
        if let Some(route) = window.and_then(|window| window.suspect(id.chunk, id.index)) {
            self.routes.entry(route).or_default().suspects += 1;
        }
    }

    /// Nothing of the line counts as suspect any more.
    pub(crate) fn acquit(&mut self, line: Line) {
        let window = self.line_mut(line);
        for route in window.map(LineWindow::acquit).unwrap_or_default() {
            self.unload(&route, |load| {
                load.suspects = load.suspects.saturating_sub(1)
            });
        }
    }

    /// The message of an entry that is not done.
    #[must_use]
    pub(crate) fn get(&self, id: EntryId) -> Option<&Outgoing> {
        self.line(id.line)?.get(id.chunk, id.index)
    }

    /// Routes that wait, the first ones and at most `most`, for asking a destination whether it is back.
    #[must_use]
    pub(crate) fn waiting_routes(&self, most: usize) -> Vec<Route> {
        let mut routes: Vec<Route> = Vec::new();
        let windows = self.lines.iter().map(|(_, window)| window);
        for outgoing in windows.flat_map(LineWindow::waiting) {
            if routes.len() >= most {
                break;
            }
            if !routes.contains(&outgoing.route) {
                routes.push(outgoing.route.clone());
            }
        }
        routes
    }

    /// The messages of a line that wait.
    pub(crate) fn waiting(&self, line: Line) -> impl Iterator<Item = &Outgoing> {
        self.line(line).into_iter().flat_map(LineWindow::waiting)
    }

    /// Whether a message of the route is not done.
    #[must_use]
    pub(crate) fn holds(&self, route: &Route) -> bool {
        self.routes.contains_key(route)
    }

    /// Whether messages of the route wait in main lines, and none of it is on offer.
    #[must_use]
    pub(crate) fn only_waits(&self, route: &Route) -> bool {
        let load = self.routes.get(route);
        load.is_some_and(|load| load.of_lanes > 0 && load.offered == 0)
    }

    /// Whether an entry of its line before this one is not done, and is so.
    pub(crate) fn any_before(&self, id: EntryId, so: impl Fn(&Outgoing) -> bool) -> bool {
        let window = self.line(id.line);
        window.is_some_and(|window| window.any_before(id.chunk, id.index, so))
    }

    /// Forgets what waits in a line and is another's: it counts as done here.
    pub(crate) fn leave_to_others(&mut self, line: Line, others: impl Fn(&Outgoing) -> bool) {
        let window = self.line(line);
        let ids = window.map(|window| window.waiting_ids(line, others));
        for id in ids.unwrap_or_default() {
            self.done(id);
        }
    }

    /// All lines.
    pub(crate) fn lines(&self) -> impl Iterator<Item = Line> {
        self.lines.iter().map(|(line, _)| *line)
    }

    /// Whether nothing of a line waits to be passed.
    #[must_use]
    pub(crate) fn is_line_empty(&self, line: Line) -> bool {
        self.line(line).is_none_or(LineWindow::is_empty)
    }

    /// Whether some message may be guilty, of a route that may be offered.
    #[must_use]
    pub(crate) fn searching(&self, allowance: impl Fn(&Route) -> Allowance) -> bool {
        let mut routes = self.routes.iter();
        routes.any(|(route, load)| load.suspects > 0 && allowance(route) != Allowance::None)
    }

    /// Passes every chunk that is done without a gap; for each line that moved the cursor behind the last one.
    pub(crate) fn advance(&mut self) -> Vec<(Line, C)> {
        let lines = self.lines.iter_mut();
        let passed = lines.filter_map(|(line, window)| Some((*line, window.advance()?)));
        passed.collect()
    }

    /// Messages not done.
    #[must_use]
    pub(crate) fn open(&self) -> usize {
        self.lines.iter().map(|(_, window)| window.open()).sum()
    }

    /// Whether nothing waits to be passed.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.lines.iter().all(|(_, window)| window.is_empty())
    }

    fn seal(&mut self, taken: Taken) -> Option<Offer> {
        let offer = taken.into_offer()?;
        for (at, id) in offer.entries.iter().enumerate() {
            if let Some(window) = self.line_mut(id.line) {
                window.offered(id.chunk, id.index, &offer.batch, at);
            }
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

    /// The cursors behind all chunks.
    pub(crate) fn cursors_mut(&mut self) -> impl Iterator<Item = &mut C> {
        let lines = self.lines.iter_mut();
        lines.flat_map(|(_, line)| line.cursors_mut())
    }

    fn line(&self, line: Line) -> Option<&LineWindow<C>> {
        let mut lines = self.lines.iter();
        lines.find_map(|(known, window)| (*known == line).then_some(window))
    }

    fn line_mut(&mut self, line: Line) -> Option<&mut LineWindow<C>> {
        let mut lines = self.lines.iter_mut();
        lines.find_map(|(known, window)| (*known == line).then_some(window))
    }
}

//! The stream's detours: opened around what waits, closed once they have come to where their parents stand.

use std::time::{Duration, Instant};

use onceward::{Detour, DetourCursor, NewDetour};
use onceward_core::{Lane, Outgoing, Route, Topic};
use tracing::{info, warn};

use super::holder::Holder;
use super::keeping::Kept;
use super::publishing::ToPark;
use crate::destination::Destination;
use crate::faults::{Bug, planted};
use crate::pause::Allowance;
use crate::settings::OnRefusal;
use crate::window::{EntryId, Line};

/// How often it is looked which held keys still wait.
const WAITING_EVERY: Duration = Duration::from_secs(1);

impl<D: Destination> Holder<D> {
    /// Takes note of detours that are stored.
    pub(super) fn add_detours(&mut self, opened: Vec<DetourCursor>) {
        for DetourCursor {
            lane,
            detour,
            cursor,
        } in opened
        {
            let line = self.detours.open(lane, detour);
            self.window.open_line(line);
            self.cursors.insert(line, cursor);
        }
        self.metrics.detours(self.detours.lines().count());
    }

    /// The detours to open now: around topics that have been paused for long and of which nothing is on its way.
    pub(super) fn to_open(&self, now: Instant) -> Vec<NewDetour> {
        if self.pauses.destination().is_some() || self.detours.room() == 0 {
            return Vec::new();
        }
        let long = |began: Instant| now >= began + self.settings.detour_after;
        let paused = self.pauses.topics();
        let routes: Vec<_> = paused
            .filter(|(route, pause)| long(pause.began()) && self.window.only_waits(route))
            .map(|(route, _)| route)
            .collect();
        if routes.is_empty() {
            return Vec::new();
        }
        let waiting = Lane::ALL.into_iter().flat_map(|lane| {
            let waiting = self.window.waiting(Line::main(lane));
            let of_paused = waiting.filter(|outgoing| routes.contains(&&outgoing.route));
            of_paused.map(move |outgoing| (lane, &outgoing.message.topic))
        });
        // Order holds per route: messages of a key that comes under two topics of one route must not go by two lines.
        self.detours
            .around(waiting.filter(|(_, topic)| !self.shares_its_route(topic)))
    }

    fn shares_its_route(&self, topic: &Topic) -> bool {
        let read = |name: &str| self.settings.topics.iter().any(|glob| glob.matches(name));
        self.settings.route.is_shared(topic, read)
    }

    /// When the next paused topic has been paused for long enough, if its messages hold a main line.
    pub(super) fn next_detour_at(&self) -> Option<Instant> {
        let paused = self.pauses.topics();
        let times = paused.map(|(_, pause)| pause.began() + self.settings.detour_after);
        times.filter(|at| *at > Instant::now()).min()
    }

    pub(super) fn open_detours(&mut self, detours: Vec<NewDetour>) {
        self.write(|mut keeper| async move {
            let opened = keeper.open_detours(&detours).await;
            (keeper, opened.map(Kept::Opened))
        });
    }

    pub(super) fn on_opened_detours(&mut self, mut opened: Vec<DetourCursor>) {
        if planted(Bug::DetourFromWhatWasRead) {
            for one in &mut opened {
                let read = self.cursors.get(&Line::main(one.lane));
                one.cursor = read.cloned().unwrap_or(one.cursor.clone());
            }
        }
        for DetourCursor { lane, detour, .. } in &opened {
            warn!(stream = %self.settings.name, %lane, topic = %detour.topic, "topic gets a detour; the stream goes on without it");
        }
        self.add_detours(opened);
        self.leave_to_detours();
        self.store_what_is_done();
    }

    /// Forgets what waits in one line and is now another's, which reads it again.
    pub(super) fn leave_to_detours(&mut self) {
        if self.detours.is_empty() {
            return;
        }
        let lines: Vec<Line> = self.window.lines().collect();
        let (detours, skip) = (&self.detours, &self.skip);
        for line in lines {
            self.window.leave_to_others(line, |outgoing| {
                let message = &outgoing.message;
                let parked = message.seq.is_some_and(|seq| skip.contains(&seq));
                parked || detours.owner(line.lane, &message.topic, message.key.as_ref()) != line
            });
        }
    }

    /// What is held is offered to nobody, so that it must not keep a search for guilty messages going.
    pub(super) fn acquit_what_is_held(&mut self) {
        let lines = self.detours.lines().map(|(line, _)| line);
        let held: Vec<Line> = lines.filter(|line| self.detours.is_held(*line)).collect();
        for line in held {
            self.window.acquit(line);
        }
    }

    /// The detours to open with what is set aside, so that the keys of it wait.
    pub(super) fn holds_for(&self, parks: &[ToPark]) -> Vec<NewDetour> {
        if self.settings.on_refusal == OnRefusal::GoOn {
            return Vec::new();
        }
        let mut holds: Vec<NewDetour> = Vec::new();
        for park in parks {
            let outgoing = self.window.get(park.entry);
            let hold = outgoing.and_then(|outgoing| self.hold_of(park.entry.line.lane, outgoing));
            holds.extend(hold.filter(|hold| !holds.contains(hold)));
        }
        holds
    }

    fn hold_of(&self, lane: Lane, outgoing: &Outgoing) -> Option<NewDetour> {
        let message = &outgoing.message;
        self.detours
            .hold(lane, &message.topic, message.key.as_ref()?)
    }

    /// Whether an earlier message of the key is not done: then that is to be confirmed first. Else it would wait behind the refused
    /// one, and come after it.
    pub(super) fn is_preceded(&self, id: EntryId) -> bool {
        self.settings.on_refusal == OnRefusal::Hold
            && self.window.get(id).is_some_and(|outgoing| {
                let of_key = |earlier: &Outgoing| {
                    let (this, earlier) = (&outgoing.message, &earlier.message);
                    this.key.is_some() && (&this.topic, &this.key) == (&earlier.topic, &earlier.key)
                };
                self.window.any_before(id, of_key)
            })
    }

    /// Whether there is room for what holds the key of a message that is set aside.
    pub(super) fn may_hold(&self, id: EntryId) -> bool {
        let outgoing = self.window.get(id);
        let hold = outgoing.and_then(|outgoing| self.hold_of(id.line.lane, outgoing));
        self.settings.on_refusal == OnRefusal::GoOn
            || hold.is_none()
            || self.holds_for(&self.to_park).len() < self.detours.room()
    }

    /// Whether a line may be published now, as far as its own state goes.
    pub(super) fn flows(&self, line: Line) -> bool {
        let free = |route: &Route| self.pauses.allowance(route) == Allowance::Any;
        let allowed = |detour: &Detour| {
            let routes = self.settings.route.routes(&detour.topic);
            match &detour.key {
                Some(key) => free(&routes.of_key(key)),
                None => routes.iter().all(free),
            }
        };
        let detour = self.detours.of(line);
        detour.is_none_or(|detour| allowed(detour) && !self.detours.is_held(line))
    }

    /// Whether a detour has read all that its parent has passed: then neither reads on until the detour is closed. What the
    /// detour has read beyond that the parent reads again.
    fn has_come(&self, line: Line) -> bool {
        let at = |line: Line| self.cursors.get(&line);
        let (own, parent) = (at(line), at(self.detours.parent(line)));
        let reached = own
            .zip(parent)
            .is_some_and(|(own, parent)| own.has_reached(parent));
        reached && self.flows(line)
    }

    /// The lines that must not read on now: detours that are to be closed, and the lines that will read for them.
    pub(super) fn to_stand(&self) -> Vec<Line> {
        let mut standing = Vec::new();
        for (line, _) in self.detours.lines() {
            if self.closing.contains(&line) || self.has_come(line) {
                standing.extend([line, self.detours.parent(line)]);
            }
        }
        standing
    }

    /// The detours that can be closed: come, and all they read is published. Neither they nor their parents are in a read under
    /// way, whose rows would be nobody's.
    pub(super) fn to_close(&self) -> Vec<Line> {
        let quiet = |line: &Line| !self.reading.contains(line);
        let lines = self.detours.lines().map(|(line, _)| line);
        lines
            .filter(|line| quiet(line) && quiet(&self.detours.parent(*line)))
            .filter(|line| self.window.is_line_empty(*line) && self.has_come(*line))
            .collect()
    }

    pub(super) fn close_detours(&mut self, come: Vec<Line>) {
        self.closing = come;
        let named = self.closing.iter().filter_map(|line| {
            let detour = self.detours.of(*line)?;
            Some((line.lane, detour.clone()))
        });
        let named: Vec<_> = named.collect();
        self.write(|mut keeper| async move {
            let closed = keeper.close_detours(&named).await;
            (keeper, closed.map(|()| Kept::Closed))
        });
    }

    pub(super) fn on_closed_detours(&mut self) {
        for line in std::mem::take(&mut self.closing) {
            if let Some(detour) = self.detours.of(line) {
                info!(stream = %self.settings.name, lane = %line.lane, topic = %detour.topic, of_a_key = detour.key.is_some(), "detour has caught up and is closed");
            }
            self.detours.close(line);
            self.window.close_line(line);
            self.cursors.remove(&line);
            self.to_store.remove(&line);
        }
        self.metrics.detours(self.detours.lines().count());
    }

    /// When it is looked which held keys still wait; none while no key is held.
    pub(super) fn waiting_at(&self) -> Option<Instant> {
        let holds = !self.detours.is_empty() && !self.detours.keys().is_empty();
        holds.then_some(self.due.waiting)
    }

    pub(super) fn load_waiting(&mut self, now: Instant) {
        self.due.waiting = now + WAITING_EVERY;
        let keys = self.detours.keys();
        self.write(|mut keeper| async move {
            let waiting = keeper.waiting_keys(&keys).await;
            (keeper, waiting.map(Kept::Waiting))
        });
    }
}

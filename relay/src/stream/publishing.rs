//! The stream's dealings with its destination: sessions, offers, receipts, checks.

use std::time::{Duration, Instant, SystemTime};

use onceward_core::{Fault, Publisher, Receipts, Route, TopicReport};
use tracing::{debug, info, warn};

use super::holder::{Holder, Session};
use super::jobs;
use super::session::{self, Ending, Facts, Next, Stage};
use crate::destination::Destination;
use crate::faults::{Bug, Failpoint, pass, planted};
use crate::pause::{Allowance, CHECKED_AT_A_TIME, Now, Stage as PauseStage};
use crate::plan::{self, Fate, Refusal};
use crate::window::{EntryId, Offer};

/// The most bytes of one offer.
const OFFER_BYTES: usize = 4 << 20;

/// How long a session may take to open.
const OPEN_DEADLINE: Duration = Duration::from_secs(15);

/// A message to set aside once its session has ended.
#[derive(Debug, Clone)]
pub(super) struct ToPark {
    pub(super) entry: EntryId,
    pub(super) refusal: Refusal,
}

impl<D: Destination> Holder<D> {
    /// Does what comes next with the session, until there is nothing to do now.
    pub(super) fn publish(&mut self, now: Instant) {
        loop {
            let went_on = match session::next(&self.session_facts(now)) {
                Next::Wait => false,
                Next::Open => self.open(),
                Next::End => self.end_session(),
                Next::CheckDestination => self.check_destination(),
                Next::CheckTopics => self.check_topics(now),
                Next::OfferReplay => self.offer_replay(),
                Next::OfferSuspect => self.offer_suspect() || self.offer_waiting(),
                Next::Offer => self.offer_waiting(),
            };
            if !went_on {
                return;
            }
        }
    }

    fn session_facts(&self, now: Instant) -> Facts {
        let destination = self.pauses.destination();
        Facts {
            stage: self.session.stage(),
            pending: self.pending,
            ending: self.ending,
            parks: (!self.to_park.is_empty() || self.parking) && !planted(Bug::FollowersBeforePark),
            draining: self.draining.is_some(),
            destination_due: self.pauses.destination_due(now),
            destination_unchecked: destination.is_some_and(|p| p.stage() == PauseStage::Waiting),
            topic_due: !self.pauses.due(now).is_empty(),
            replay: self.replays.any(|route| self.may_replay(route)),
            // Until its row knows how it ended, a replay is not over: loaded again it would be published again.
            replaying: self.replaying.is_some() || self.replayed.is_some(),
            searching: self.window.searching(|route| self.pauses.allowance(route)),
            wanted: self.window.open() > 0 || !self.replays.is_empty(),
        }
    }

    /// Whether something would be done if a pause ended now. Else its end must not wake anybody.
    pub(super) fn may_end_a_pause(&self) -> bool {
        let facts = self.session_facts(Instant::now());
        let unhindered = !facts.draining && !facts.parks && !facts.replaying;
        match facts.stage {
            Stage::Busy => false,
            Stage::Closed => unhindered && facts.pending == 0 && facts.wanted,
            Stage::Ready => unhindered && facts.ending.is_none(),
        }
    }

    fn open(&mut self) -> bool {
        let destination = self.destination.clone();
        self.session = Session::Busy;
        self.progress = false;
        // Nothing is on its way now: what came back to a line and is another's is left to that.
        self.leave_to_detours();
        self.acquit_what_is_held();
        self.store_what_is_done();
        self.pauses.set_destination_stage(PauseStage::Checking);
        self.jobs
            .spawn(async move { jobs::open(&*destination, OPEN_DEADLINE).await });
        false
    }

    fn end_session(&mut self) -> bool {
        let Some(publisher) = self.session.take() else {
            return false;
        };
        let within = match self.ending {
            Some(Ending::AtOnce) => Duration::ZERO,
            Some(Ending::Gently) | None => Duration::from_secs(1),
        };
        self.jobs.spawn(jobs::end(publisher, within));
        false
    }

    fn check_destination(&mut self) -> bool {
        let routes = self.window.waiting_routes(CHECKED_AT_A_TIME);
        if routes.is_empty() {
            // Nothing to ask about: the first message that comes tries the way.
            self.pauses.set_destination_stage(PauseStage::Probing);
            return true;
        }
        self.pauses.set_destination_stage(PauseStage::Checking);
        self.check(routes)
    }

    fn check_topics(&mut self, now: Instant) -> bool {
        let due = self.pauses.due(now);
        for route in &due {
            self.pauses.set_topic_stage(route, PauseStage::Checking);
        }
        self.check(due)
    }

    fn check(&mut self, routes: Vec<Route>) -> bool {
        let Some(publisher) = self.session.take() else {
            return false;
        };
        self.jobs.spawn(jobs::check(publisher, routes));
        false
    }

    fn offer_waiting(&mut self) -> bool {
        let most = self.settings.chunk;
        let (pauses, detours) = (&self.pauses, &self.detours);
        let offer = self.window.offer(most, OFFER_BYTES, |line, route| {
            if detours.is_held(line) {
                Allowance::None
            } else {
                pauses.allowance(route)
            }
        });
        offer.is_some_and(|offer| self.offer(offer))
    }

    fn offer_suspect(&mut self) -> bool {
        let pauses = &self.pauses;
        let offer = self.window.offer_suspect(|route| pauses.allowance(route));
        offer.is_some_and(|offer| self.offer(offer))
    }

    /// Hands an offer to the session. Nothing is offered on a lease that may have ended.
    pub(super) fn offer(&mut self, offer: Offer) -> bool {
        let Some(publisher) = self.session.take() else {
            return false;
        };
        self.pending += 1;
        let within = self.settings.offer_deadline;
        self.jobs.spawn(jobs::offer(publisher, offer, within));
        false
    }

    pub(super) fn on_opened(&mut self, opened: Result<D::Publisher, onceward_core::PublishError>) {
        self.ending = None;
        match opened {
            Ok(publisher) => {
                debug!(stream = %self.settings.name, "session opened");
                self.session = Session::Ready(publisher);
                self.pauses.set_destination_stage(PauseStage::Waiting);
            }
            Err(error) => {
                self.session = Session::Closed;
                self.pause_destination(Refusal::from(&error));
            }
        }
    }

    pub(super) fn on_offered(
        &mut self,
        publisher: D::Publisher,
        offer: Offer,
        pending: <D::Publisher as Publisher>::Pending,
    ) {
        pass(Failpoint::AfterOffer);
        self.session = Session::Ready(publisher);
        let within = self.settings.offer_deadline;
        self.jobs
            .spawn(jobs::receipts::<D::Publisher>(offer, pending, within));
    }

    /// The session took no more and was dropped with the offer: whatever of it was sent is not known.
    pub(super) fn on_stuck(&mut self, offer: &Offer) {
        self.pending -= 1;
        for id in &offer.entries {
            self.window.again(*id);
        }
        // A replay among them stays due, and is loaded again.
        if self.replaying.take().is_some() {
            self.put_off_replays(Instant::now());
        }
        self.session_gone();
        self.pause_destination(Refusal {
            kind: onceward_core::ErrorKind::Unavailable,
            what: format!(
                "the destination took nothing for {:?}",
                self.settings.offer_deadline
            ),
        });
    }

    pub(super) fn on_receipts(&mut self, offer: &Offer, receipts: Receipts, took: Duration) {
        pass(Failpoint::AfterConfirm);
        self.pending -= 1;
        self.metrics.answered(took);
        let now = Instant::now();
        let (outcomes, over) = receipts.into_parts();
        // An adapter that forgets a message makes a duplicate of it, never a loss.
        let forgotten = std::iter::repeat(Fate::Again);
        let mut fates = outcomes.iter().map(plan::fate).chain(forgotten);
        if self.replaying.is_some() {
            let fate = fates.next().unwrap_or(Fate::Again);
            self.on_replayed(offer, fate, now);
        } else {
            let at = self.clock.now();
            for ((id, outgoing), fate) in offer.entries.iter().zip(&offer.batch.messages).zip(fates)
            {
                if fate == Fate::Done {
                    self.metrics.published(id.line.lane, outgoing, at);
                }
                self.settle(*id, &outgoing.route, fate);
            }
            self.store_what_is_done();
        }
        if let Some(error) = over {
            let refusal = Refusal::from(&error);
            if self.ending.replace(Ending::AtOnce) != Some(Ending::AtOnce) {
                info!(stream = %self.settings.name, error = %refusal.what, "session over");
            }
            if error.kind.fault() == Fault::Destination {
                self.pause_destination(refusal);
            } else {
                self.over = Some(refusal);
            }
        }
    }

    /// Does to one message what was decided. Whatever is not confirmed ends the session: the adapter sends nothing
    /// more of that key in it.
    fn settle(&mut self, id: EntryId, route: &Route, fate: Fate) {
        self.progress |= !matches!(fate, Fate::Again | Fate::PauseDestination(_));
        if fate == Fate::Done {
            self.window.done(id);
            self.on_taken(route);
            return;
        }
        self.end_gently();
        match fate {
            Fate::Done => {}
            Fate::Again => self.window.again(id),
            Fate::Search => self.window.suspect(id),
            Fate::Park(_) if self.is_preceded(id) => self.window.again(id),
            // For want of room its topic waits instead.
            Fate::Park(refusal) if !self.may_hold(id) => {
                self.window.again(id);
                self.pause_topic(route, refusal);
            }
            Fate::Park(refusal) => {
                if !planted(Bug::FollowersBeforePark) {
                    self.window.again(id);
                }
                self.to_park.push(ToPark { entry: id, refusal });
                // Its topic answered: what was tried with it goes on.
                self.on_taken(route);
            }
            Fate::PauseTopic(refusal) => {
                self.window.again(id);
                self.pause_topic(route, refusal);
            }
            Fate::PauseDestination(refusal) => {
                self.window.again(id);
                self.pause_destination(refusal);
            }
        }
    }

    /// Lets the session end once its receipts are in.
    pub(super) fn end_gently(&mut self) {
        self.ending.get_or_insert(Ending::Gently);
    }

    /// The destination took a message: whatever was tried with it goes on.
    pub(super) fn on_taken(&mut self, route: &Route) {
        let stream = &self.settings.name;
        if let Some(pause) = self.pauses.resume_destination() {
            info!(%stream, paused_for = ?pause.began().elapsed(), "destination takes messages again");
        }
        if self.pauses.is_paused(route)
            && let Some(pause) = self.pauses.resume_topic(route, Instant::now())
        {
            info!(%stream, %route, paused_for = ?pause.began().elapsed(), "topic takes messages again");
            self.replays.answered(route);
        }
    }

    pub(super) fn on_checked(
        &mut self,
        publisher: D::Publisher,
        routes: &[Route],
        reports: Option<Vec<TopicReport>>,
    ) {
        self.session = Session::Ready(publisher);
        let Some(reports) = reports else {
            self.ending = Some(Ending::AtOnce);
            self.pause_destination(Refusal {
                kind: onceward_core::ErrorKind::Unavailable,
                what: "the destination did not answer a check".to_owned(),
            });
            return;
        };
        debug!(stream = %self.settings.name, routes = routes.len(), "destination checked");
        // If one of several can be reached, what keeps the others is their own.
        let reached = reports.iter().any(|report| match &report.state {
            Ok(_) => true,
            Err(error) => error.kind.fault() != Fault::Destination,
        });
        for report in reports {
            self.on_report(report, reached);
        }
        self.pauses.set_destination_checked();
    }

    fn on_report(&mut self, report: TopicReport, reached: bool) {
        let route = report.route;
        match report.state {
            Ok(state) => {
                let news = self.advice.news([(&route, &state)]);
                self.tell(&news);
                self.pauses.set_topic_stage(&route, PauseStage::Probing);
            }
            Err(error) => {
                let refusal = Refusal::from(&error);
                if !reached {
                    self.pause_destination(refusal.clone());
                }
                // A topic that was asked about is asked again in its time, whoever was to blame.
                if reached || self.pauses.is_paused(&route) {
                    self.pause_topic(&route, refusal);
                }
            }
        }
    }

    pub(super) fn on_ended(&mut self) {
        // Without this a session that ends before anything came of it would be opened again at once, for ever.
        if !self.progress && self.draining.is_none() {
            let known = self.pauses.destination().map(|p| p.refusal.clone());
            self.pause_destination(known.or(self.over.clone()).unwrap_or_else(|| Refusal {
                kind: onceward_core::ErrorKind::Unavailable,
                what: "a session ended before anything was confirmed".to_owned(),
            }));
        }
        self.session_gone();
    }

    fn session_gone(&mut self) {
        self.session = Session::Closed;
        self.ending = None;
        self.over = None;
        self.pauses.session_ended();
    }

    pub(super) fn pause_destination(&mut self, refusal: Refusal) {
        let (now, chance) = (now(), fastrand::f64());
        if self.pauses.pause_destination(refusal.clone(), now, chance) {
            warn!(
                stream = %self.settings.name, kind = refusal.kind.name(), error = %refusal.what,
                "destination paused; will try again"
            );
        }
    }

    pub(super) fn pause_topic(&mut self, route: &Route, refusal: Refusal) {
        let (now, chance) = (now(), fastrand::f64());
        if self.pauses.pause_topic(route, refusal.clone(), now, chance) {
            warn!(
                stream = %self.settings.name, %route, kind = refusal.kind.name(), error = %refusal.what,
                "topic paused; will try again"
            );
        }
    }
}

fn now() -> Now {
    Now {
        instant: Instant::now(),
        time: SystemTime::now(),
    }
}

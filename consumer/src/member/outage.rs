//! An outage of the database that lasts: what is held is given back, as other members may have a database that answers.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::Member;
use super::errands::Errand;

/// How long an outage lasts before what is held is given back. Shorter ones are waited out: each message that is given back is
/// received once more, which brokers count.
const PATIENCE: Duration = Duration::from_secs(5);

/// The outage of the moment. Pure: the loop brings the clock.
#[derive(Debug)]
pub(super) struct Outage {
    /// Whether what is given back may come to somebody else.
    helps: bool,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// There is none.
    Up,
    /// It may be a short one until then.
    Waits(Instant),
    GivenBack,
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Nothing,
    GiveBack,
    /// What was given back is wanted again.
    ReadAgain,
}

impl Outage {
    /// A broker that limits how long a delivery may be held gives each to one member alone, and then to another one. Of all
    /// others the owner of a partition would get it back, and nobody else.
    pub(super) fn new(hold_limit: Option<Duration>) -> Self {
        Self {
            helps: hold_limit.is_some(),
            stage: Stage::Up,
        }
    }

    /// Looks whether the database answers. Gives back once for each outage.
    pub(super) fn look(&mut self, is_up: bool, now: Instant) -> Step {
        let (stage, step) = match self.stage {
            Stage::Up | Stage::Waits(_) if is_up => (Stage::Up, Step::Nothing),
            Stage::GivenBack if is_up => (Stage::Up, Step::ReadAgain),
            Stage::Up if self.helps => (Stage::Waits(now + PATIENCE), Step::Nothing),
            Stage::Waits(until) if until <= now => (Stage::GivenBack, Step::GiveBack),
            Stage::Up | Stage::Waits(_) | Stage::GivenBack => (self.stage, Step::Nothing),
        };
        self.stage = stage;
        step
    }

    /// When to look by itself.
    pub(super) fn next(&self) -> Option<Instant> {
        match self.stage {
            Stage::Waits(until) => Some(until),
            Stage::Up | Stage::GivenBack => None,
        }
    }

    /// Whether what arrives now is to be given back too.
    pub(super) fn is_given_back(&self) -> bool {
        self.stage == Stage::GivenBack
    }
}

impl<T: Clone + Send + Sync + 'static> Member<T> {
    /// Gives back what is held once an outage lasts, and reads again when it is over.
    pub(super) fn look_at_outage(&mut self, now: Instant) {
        match self.outage.look(self.shop.health.is_up(), now) {
            Step::Nothing => {}
            Step::GiveBack => self.give_back_what_is_held(now),
            Step::ReadAgain => {
                info!("the outage is over; the consumer receives again");
                self.errands.run(Errand::Rest(false));
            }
        }
    }

    /// Of a key, what waits goes at once, and what is in work when its attempt has ended: until then the broker keeps the key
    /// from others, as it has a delivery of it that is neither settled nor given back.
    fn give_back_what_is_held(&mut self, now: Instant) {
        self.errands.run(Errand::Rest(true));
        self.dissolve_batches();
        // Due lines are in the database, and others take them when their lease ends.
        let flights = &self.flights;
        let waiting = self.keys.drop_waiting(|number| flights.has(number));
        let (waits, running) = (waiting.len(), self.keys.running());
        warn!(
            waits,
            running, "the outage of the database lasts; deliveries are given back"
        );
        self.give_back(&waiting);
        // It waits in vain for its next attempt; without an outcome it is given back.
        self.flights.leave(|_| true);
        self.release_finished(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Option<Duration> = Some(Duration::from_secs(60));

    #[test]
    fn a_short_outage_gives_nothing_back() {
        let (mut outage, now) = (Outage::new(LIMIT), Instant::now());
        let almost = now + PATIENCE - Duration::from_millis(1);

        assert_eq!(outage.look(true, now), Step::Nothing);
        assert_eq!(outage.look(false, now), Step::Nothing);
        assert_eq!(outage.next(), Some(now + PATIENCE));
        assert_eq!(outage.look(false, almost), Step::Nothing);
        assert_eq!(outage.look(true, almost), Step::Nothing);
        assert_eq!(outage.next(), None);

        // The next one is another one.
        assert_eq!(outage.look(false, almost), Step::Nothing);
        assert_eq!(outage.look(false, now + PATIENCE), Step::Nothing);
    }

    #[test]
    fn an_outage_that_lasts_gives_back_once_and_reads_again_at_its_end() {
        let (mut outage, now) = (Outage::new(LIMIT), Instant::now());
        outage.look(false, now);

        assert_eq!(outage.look(false, now + PATIENCE), Step::GiveBack);
        assert!(outage.is_given_back());
        assert_eq!(outage.next(), None);
        assert_eq!(outage.look(false, now + PATIENCE * 9), Step::Nothing);
        assert_eq!(outage.look(true, now + PATIENCE * 9), Step::ReadAgain);
        assert!(!outage.is_given_back());
        assert_eq!(outage.look(true, now + PATIENCE * 9), Step::Nothing);
    }

    #[test]
    fn nothing_is_given_back_to_a_broker_that_would_bring_it_to_the_same_member() {
        let (mut outage, now) = (Outage::new(None), Instant::now());

        assert_eq!(outage.look(false, now), Step::Nothing);
        assert_eq!(outage.look(false, now + PATIENCE * 9), Step::Nothing);
        assert_eq!(outage.next(), None);
        assert_eq!(outage.look(true, now + PATIENCE * 9), Step::Nothing);
    }
}

//! Lines that are due, and deliveries that were held: how they come to their turn.

use std::time::Instant;

use super::Member;
use crate::plan::PlaceKind;
use crate::transaction::{Due, DueLine};
use crate::trial::Trial;

impl<T: Clone + Send + Sync + 'static> Member<T> {
    /// Looks for messages that have waited, when some may be due and there is room for them.
    pub(super) fn look_for_due(&mut self) {
        if self.may_start()
            && let Some(room) = self.waiting.wants(Instant::now())
        {
            // Fails only when the poller has ended, which the loop sees by itself.
            self.looks.send(room).ok();
        }
    }

    pub(super) fn on_due(&mut self, due: Option<Due>) {
        let shop = self.shop.clone();
        let class_of = |kind: &str| shop.route_of(kind).unwrap_or(shop.routes.len());
        for (line, class) in self.waiting.told(due, Instant::now(), class_of) {
            self.take(line, class, None);
        }
    }

    pub(super) fn on_probe(&mut self, line: DueLine, trial: Trial) {
        let class = self.shop.route_of(&line.kind);
        // One that is worked on as it is need not be tried; if it fails, it waits for its type again.
        if !self.waiting.knows(&line) {
            let class = class.unwrap_or(self.shop.routes.len());
            self.take(line, class, Some(trial));
        }
    }

    /// A line whose first message has left it has the next one due, and is ours for a while. It goes behind the others in hand.
    pub(super) fn take_again(&mut self, line: DueLine) {
        if self.stopping.is_some() {
            // Others find it once it is nobody's any more.
            return;
        }
        // What came of a look meanwhile has it.
        if !self.waiting.knows(&line) {
            let class = self.shop.route_of(&line.kind);
            self.take(line, class.unwrap_or(self.shop.routes.len()), None);
        }
    }

    fn take(&mut self, line: DueLine, class: usize, trial: Option<Trial>) {
        let number = self.next_number();
        let place = if trial.is_some() {
            PlaceKind::Probe
        } else {
            PlaceKind::Due
        };
        self.waiting.arrive(number, line, class, trial);
        self.keys.arrive_due(number, class, place);
    }

    /// Deliveries that were held get another turn.
    pub(super) fn bring_back_held(&mut self) {
        for number in self.held.drain(..) {
            self.keys.bring_back(number);
        }
    }
}

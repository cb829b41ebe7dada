//! Messages that are sent and not reported, by the number that their report carries. Pure.

use std::collections::VecDeque;
use std::time::Instant;

/// What is on its way, oldest first. Numbers grow by one with each message.
#[derive(Debug)]
pub(crate) struct InFlight<T> {
    first: u64,
    sent: VecDeque<Option<(Instant, T)>>,
    unreported: usize,
}

impl<T> InFlight<T> {
    pub(crate) fn new() -> Self {
        Self {
            first: 0,
            sent: VecDeque::new(),
            unreported: 0,
        }
    }

    /// The number that the next message will have.
    pub(crate) fn next(&self) -> u64 {
        self.first + self.sent.len() as u64
    }

    /// Takes the next message.
    pub(crate) fn take(&mut self, now: Instant, message: T) {
        self.sent.push_back(Some((now, message)));
        self.unreported += 1;
    }

    /// Gives back the message that a report is about; none if it was reported before.
    pub(crate) fn reported(&mut self, number: u64) -> Option<T> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let (_, message) = self.sent.get_mut(index)?.take()?;
        self.unreported -= 1;
        while self.sent.front().is_some_and(Option::is_none) {
            self.sent.pop_front();
            self.first += 1;
        }
        Some(message)
    }

    /// When the oldest message that is not reported was sent.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        let front = self.sent.front()?.as_ref()?;
        Some(front.0)
    }

    /// The numbers of unreported messages of which this holds.
    pub(crate) fn numbers(&self, of: impl Fn(&T) -> bool) -> Vec<u64> {
        let sent = (self.first..).zip(&self.sent);
        sent.filter(|(_, slot)| slot.as_ref().is_some_and(|(_, message)| of(message)))
            .map(|(number, _)| number)
            .collect()
    }

    /// How many messages are not reported.
    pub(crate) fn len(&self) -> usize {
        self.unreported
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn reports_come_in_any_order_and_each_counts_once() {
        let begin = Instant::now();
        let mut in_flight = InFlight::new();
        for n in 0..3_u64 {
            assert_eq!(in_flight.next(), n);
            in_flight.take(begin + Duration::from_secs(n), n);
        }

        assert_eq!(in_flight.reported(1), Some(1));
        assert_eq!(in_flight.reported(1), None);
        assert_eq!(in_flight.oldest(), Some(begin));
        assert_eq!(in_flight.reported(0), Some(0));
        assert_eq!(in_flight.oldest(), Some(begin + Duration::from_secs(2)));
        assert_eq!(in_flight.numbers(|_| true), vec![2]);

        assert_eq!((in_flight.len(), in_flight.next()), (1, 3));
        assert_eq!(in_flight.reported(99), None);
    }
}

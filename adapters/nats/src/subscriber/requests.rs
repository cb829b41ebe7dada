//! What an owner has asked the server for and not received. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Requests in the order in which they were made, which is the order in which the server serves them.
#[derive(Debug)]
pub(crate) struct Requests {
    next: u64,
    open: VecDeque<Open>,
    last_sent: Option<Instant>,
}

#[derive(Debug)]
struct Open {
    number: u64,
    missing: usize,
    until: Instant,
}

impl Requests {
    pub(crate) fn new() -> Self {
        Self {
            next: 0,
            open: VecDeque::new(),
            last_sent: None,
        }
    }

    /// Notes a request for `batch` deliveries that must be answered by `until`, and gives its number. A request for none only
    /// shows that we live; whether it is answered does not matter.
    pub(crate) fn send(&mut self, now: Instant, batch: usize, until: Instant) -> u64 {
        let number = self.next;
        self.next += 1;
        self.last_sent = Some(now);
        if batch > 0 {
            self.open.push_back(Open {
                number,
                missing: batch,
                until,
            });
        }
        number
    }

    /// A delivery came.
    pub(crate) fn delivered(&mut self) {
        if let Some(open) = self.open.front_mut() {
            open.missing -= 1;
            if open.missing == 0 {
                self.open.pop_front();
            }
        }
    }

    /// The server ended a request.
    pub(crate) fn ended(&mut self, number: u64) {
        self.open.retain(|open| open.number != number);
    }

    /// How many deliveries are asked for and not here.
    pub(crate) fn missing(&self) -> usize {
        self.open.iter().map(|open| open.missing).sum()
    }

    /// When the server must have ended the oldest request.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.open.front().map(|open| open.until)
    }

    /// When the server must hear of us again, so that it does not take us for gone.
    pub(crate) fn next_sign_of_life(&self, now: Instant, every: Duration) -> Instant {
        self.last_sent.map_or(now, |sent| sent + every)
    }
}

/// How many deliveries to ask for: as many as fit, but not a few at a time.
pub(crate) fn batch(room: usize, capacity: usize, missing: usize) -> Option<usize> {
    let worth_it = room >= capacity.div_ceil(2) || (missing == 0 && room > 0);
    worth_it.then_some(room)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_served_in_order_and_ended_by_number() {
        let now = Instant::now();
        let mut requests = Requests::new();
        requests.send(now, 2, now);
        let second = requests.send(now, 3, now + Duration::from_secs(1));

        assert_eq!(requests.missing(), 5);
        requests.delivered();
        requests.delivered();
        assert_eq!(requests.until(), Some(now + Duration::from_secs(1)));
        requests.delivered();
        requests.ended(second);

        assert_eq!((requests.missing(), requests.until()), (0, None));
    }

    #[test]
    fn a_sign_of_life_asks_for_nothing() {
        let now = Instant::now();
        let mut requests = Requests::new();

        requests.send(now, 0, now);

        assert_eq!((requests.missing(), requests.until()), (0, None));
        let every = Duration::from_secs(2);
        assert_eq!(requests.next_sign_of_life(now, every), now + every);
    }

    #[test]
    fn small_requests_are_made_only_when_nothing_is_on_its_way() {
        assert_eq!(batch(10, 100, 0), Some(10));
        assert_eq!(batch(10, 100, 1), None);
        assert_eq!(batch(50, 100, 50), Some(50));
        assert_eq!(batch(0, 100, 0), None);
        assert_eq!(batch(1, 1, 0), Some(1));
    }
}

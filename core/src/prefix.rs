//! How far a sequence is done without a gap. Pure; used for broker positions and for chunks in flight.

use std::collections::VecDeque;

/// Items taken in one order and finished in any; tells the last one before which everything is finished.
///
/// "Contiguous" is in the order of taking, not in the numbers of the positions: a broker's
/// positions may have holes.
#[derive(Debug, Clone)]
pub struct Prefix<P> {
    first: u64,
    items: VecDeque<(P, bool)>,
}

/// One item of a [`Prefix`], to finish it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

impl<P> Prefix<P> {
    /// An empty sequence.
    #[must_use]
    pub fn new() -> Self {
        Self {
            first: 0,
            items: VecDeque::new(),
        }
    }

    /// Takes the next item.
    pub fn take(&mut self, position: P) -> Ticket {
        let ticket = Ticket(self.first + self.items.len() as u64);
        self.items.push_back((position, false));
        ticket
    }

    /// Finishes an item. One that was passed already, or never taken here, is ignored.
    pub fn finish(&mut self, ticket: Ticket) {
        let index = ticket.0.checked_sub(self.first);
        let item = index
            .and_then(|i| usize::try_from(i).ok())
            .and_then(|i| self.items.get_mut(i));
        if let Some(item) = item {
            item.1 = true;
        }
    }

    /// Passes everything that is finished without a gap, and gives the last position passed.
    pub fn advance(&mut self) -> Option<P> {
        let mut last = None;
        while self.items.front().is_some_and(|(_, done)| *done) {
            last = self.items.pop_front().map(|(position, _)| position);
            self.first += 1;
        }
        last
    }

    /// The oldest item that is not passed.
    #[must_use]
    pub fn oldest(&self) -> Option<&P> {
        self.items.front().map(|(position, _)| position)
    }

    /// How many items are taken and not passed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether everything taken is passed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

impl<P> Default for Prefix<P> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_gap_holds_back_what_lies_behind_it() {
        let mut prefix = Prefix::new();
        let tickets: Vec<_> = [10, 20, 30].into_iter().map(|p| prefix.take(p)).collect();

        prefix.finish(tickets[1]);
        assert_eq!(prefix.advance(), None);

        prefix.finish(tickets[0]);
        assert_eq!(prefix.advance(), Some(20));
        assert_eq!(prefix.oldest(), Some(&30));
    }

    proptest! {
        #[test]
        fn whatever_the_order_nothing_unfinished_is_passed(
            order in Just((0..20_usize).collect::<Vec<_>>()).prop_shuffle(), cut in 0..20_usize
        ) {
            let mut prefix = Prefix::new();
            let tickets: Vec<_> = (0..20).map(|p| prefix.take(p)).collect();
            let done = &order[..cut];

            let mut passed = None;
            for &item in done {
                prefix.finish(tickets[item]);
                passed = prefix.advance().or(passed);
            }

            let expected = (0..20).take_while(|p| done.contains(p)).last();
            prop_assert_eq!(passed, expected);
        }
    }
}

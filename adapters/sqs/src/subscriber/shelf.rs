//! What waits for the handle: filled by the member, emptied by `next`, and kept from running out meanwhile.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use onceward_core::{Arrival, Delivery, Partition, SubscribeError, SubscribeErrorKind};
use tokio::sync::Notify;

use super::acker::SqsToken;
use super::returns::Return;

/// What both ends look at.
#[derive(Debug, Default)]
struct State {
    notices: VecDeque<Partition>,
    deliveries: VecDeque<Delivery<SqsToken>>,
    /// The handle is told of an outage once, however long that lasts.
    failure: Option<SubscribeError>,
    paused: BTreeSet<Partition>,
    /// Whether nothing more is received.
    resting: bool,
    /// What goes back to SQS once nothing is being received.
    returns: Vec<Return>,
    ended: bool,
}

/// The way from the member's tasks to its handle.
#[derive(Debug)]
pub(super) struct Shelf {
    // Locked for a few moves at a time, by the member's tasks and by the handle; never across an await.
    state: Mutex<State>,
    /// Told when there may be something to take.
    filled: Notify,
    /// Told when there may be room or something to give back, or a partition was paused or resumed.
    changed: Notify,
}

impl Shelf {
    /// Nothing but the news that these partitions are read.
    pub(super) fn new(partitions: impl Iterator<Item = Partition>) -> Self {
        let state = State {
            notices: partitions.collect(),
            ..State::default()
        };
        Self {
            state: Mutex::new(state),
            filled: Notify::new(),
            changed: Notify::new(),
        }
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for arrivals, at most `room` of them deliveries, none of a paused partition.
    ///
    /// Cancel safe: it waits only while it holds nothing.
    pub(super) async fn take(&self, room: usize) -> Result<Vec<Arrival<SqsToken>>, SubscribeError> {
        loop {
            let filled = self.filled.notified();
            if let Some(taken) = self.try_take(room) {
                self.changed.notify_one();
                return taken;
            }
            filled.await;
        }
    }

    fn try_take(&self, room: usize) -> Option<Result<Vec<Arrival<SqsToken>>, SubscribeError>> {
        let mut state = self.locked();
        let mut taken: Vec<_> = state.notices.drain(..).map(Arrival::Assigned).collect();
        let most = taken.len() + room;
        let mut left = VecDeque::new();
        while let Some(delivery) = state.deliveries.pop_front() {
            if taken.len() < most && !state.paused.contains(&delivery.origin.partition) {
                taken.push(Arrival::Delivery(delivery));
            } else {
                left.push_back(delivery);
            }
        }
        state.deliveries = left;
        if !taken.is_empty() {
            return Some(Ok(taken));
        }
        if let Some(failure) = state.failure.take() {
            return Some(Err(failure));
        }
        state.ended.then(|| {
            let what = "the member has ended";
            Err(SubscribeError::new(SubscribeErrorKind::Unavailable, what))
        })
    }

    pub(super) fn put(&self, delivery: Delivery<SqsToken>) {
        let mut state = self.locked();
        if state.resting {
            state.returns.push(delivery.token.into());
            return;
        }
        state.deliveries.push_back(delivery);
        drop(state);
        self.filled.notify_one();
    }

    /// Nothing is wanted any more, and what waits goes back; or deliveries are wanted again.
    pub(super) fn rest(&self, resting: bool) {
        let mut state = self.locked();
        state.resting = resting;
        if resting {
            let waiting = std::mem::take(&mut state.deliveries);
            let returns = waiting.into_iter().map(|waiting| waiting.token.into());
            state.returns.extend(returns);
        }
        drop(state);
        self.changed.notify_one();
    }

    pub(super) fn is_resting(&self) -> bool {
        self.locked().resting
    }

    /// Keeps what is to go back until nothing is being received. Gives it again if that need not be waited for.
    pub(super) fn keep_returns(&self, tokens: Vec<SqsToken>) -> Vec<SqsToken> {
        let mut state = self.locked();
        if !state.resting {
            return tokens;
        }
        state.returns.extend(tokens.into_iter().map(Return::from));
        drop(state);
        self.changed.notify_one();
        Vec::new()
    }

    /// Keeps what could not be given back, to be given back with what is to go back by then.
    pub(super) fn put_back(&self, returns: Vec<Return>) {
        self.locked().returns.extend(returns);
    }

    /// What goes back now.
    pub(super) fn take_returns(&self, receiving: bool) -> Vec<Return> {
        let mut state = self.locked();
        if state.resting && receiving {
            return Vec::new();
        }
        let mut returns = std::mem::take(&mut state.returns);
        // The oldest of a group last: who gets it then finds the others behind it.
        returns.sort_by_key(|one| std::cmp::Reverse(one.token.number));
        returns
    }

    pub(super) fn fail(&self, failure: SubscribeError) {
        self.locked().failure.get_or_insert(failure);
        self.filled.notify_one();
    }

    /// The outage is over: a handle that has not heard of it need not.
    pub(super) fn well(&self) {
        self.locked().failure = None;
    }

    /// Nothing comes any more.
    pub(super) fn end(&self) {
        let mut state = self.locked();
        state.ended = true;
        state.deliveries.clear();
        drop(state);
        self.filled.notify_one();
    }

    pub(super) fn pause(&self, partition: &Partition, paused: bool) {
        let mut state = self.locked();
        if paused {
            state.paused.insert(partition.clone());
        } else {
            state.paused.remove(partition);
        }
        drop(state);
        self.filled.notify_one();
        self.changed.notify_one();
    }

    pub(super) fn is_paused(&self, partition: &Partition) -> bool {
        self.locked().paused.contains(partition)
    }

    /// How many deliveries wait.
    pub(super) fn len(&self) -> usize {
        self.locked().deliveries.len()
    }

    /// Waits until there may be room or something to give back, or a partition was paused or resumed.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Deliveries that wait.
    pub(super) fn tokens(&self) -> Vec<SqsToken> {
        let state = self.locked();
        state
            .deliveries
            .iter()
            .map(|waiting| waiting.token.clone())
            .collect()
    }

    /// Notes new deadlines, and drops what is no longer ours: it comes again. So does whatever waits behind it in its group.
    pub(super) fn extended(&self, deadlines: &[(SqsToken, Option<Instant>)], now: Instant) {
        let mut state = self.locked();
        let mut broken = HashSet::new();
        for mut waiting in std::mem::take(&mut state.deliveries) {
            let token = &waiting.token;
            let new = deadlines.iter().find(|(one, _)| one.number == token.number);
            if let Some((_, deadline)) = new {
                waiting.deadline = *deadline;
            }
            let group = token.group.clone().map(|group| (token.queue, group));
            if waiting.deadline.is_some_and(|deadline| deadline <= now) {
                broken.extend(group);
            } else if group.is_some_and(|group| broken.contains(&group)) {
                state.returns.push(waiting.token.into());
            } else {
                state.deliveries.push_back(waiting);
            }
        }
        drop(state);
        self.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onceward_core::{MAX_PAYLOAD, Message, Origin};

    fn delivery(number: u64) -> Delivery<SqsToken> {
        let draft = Message::bytes("orders.created", Vec::new());
        Delivery {
            message: Ok(draft.finish(MAX_PAYLOAD).unwrap().message),
            origin: Origin {
                broker: "sqs",
                partition: Partition::new("orders.fifo"),
                position: None,
                redelivered: None,
                sent_at: None,
            },
            deadline: None,
            token: SqsToken {
                number,
                queue: 0,
                group: None,
                receipt: "r".into(),
                received: Instant::now(),
            },
        }
    }

    fn taken(shelf: &Shelf, receiving: bool) -> Vec<u64> {
        let returns = shelf.take_returns(receiving);
        returns.iter().map(|one| one.token.number).collect()
    }

    #[tokio::test]
    async fn what_waits_while_nothing_is_wanted_goes_back_once_nothing_is_being_received() {
        let shelf = Shelf::new(std::iter::empty());
        shelf.put(delivery(1));

        shelf.rest(true);
        // A poll that was under way.
        shelf.put(delivery(2));
        let kept = shelf.keep_returns(vec![delivery(3).token]);

        assert_eq!(kept, []);
        assert_eq!(shelf.len(), 0);
        assert_eq!(taken(&shelf, true), [0; 0]);
        assert_eq!(taken(&shelf, false), [3, 2, 1]);
        assert_eq!(taken(&shelf, false), [0; 0]);
    }

    #[tokio::test]
    async fn what_could_not_be_given_back_goes_with_what_is_to_go_back_by_then() {
        let shelf = Shelf::new(std::iter::empty());
        shelf.rest(true);
        shelf.put(delivery(2));
        let failed = shelf.take_returns(false);

        shelf.put(delivery(1));
        shelf.put(delivery(3));
        shelf.put_back(failed);

        assert_eq!(taken(&shelf, true), [0; 0]);
        assert_eq!(taken(&shelf, false), [3, 2, 1]);
    }

    #[tokio::test]
    async fn what_is_wanted_again_is_handed_out_and_what_was_to_go_back_goes() {
        let shelf = Shelf::new(std::iter::empty());
        shelf.put(delivery(1));
        shelf.rest(true);

        shelf.rest(false);
        shelf.put(delivery(2));
        let kept = shelf.keep_returns(vec![delivery(3).token]);

        let kept: Vec<u64> = kept.iter().map(|token| token.number).collect();
        assert_eq!(kept, [3]);
        assert_eq!(taken(&shelf, true), [1]);
        assert_eq!(shelf.len(), 1);
    }

    /// A delivery of a group, with the time by which it runs out.
    fn of_group(number: u64, group: Option<&str>, deadline: Instant) -> Delivery<SqsToken> {
        let mut delivery = delivery(number);
        delivery.token.group = group.map(Into::into);
        delivery.deadline = Some(deadline);
        delivery
    }

    #[tokio::test]
    async fn what_waits_behind_a_delivery_of_its_group_that_ran_out_goes_back_with_it() {
        let shelf = Shelf::new(std::iter::empty());
        let now = Instant::now();
        let later = now + std::time::Duration::from_secs(30);
        for (number, group, deadline) in [
            (1, Some("a"), later),
            (2, Some("a"), now),
            (3, Some("b"), later),
            (4, Some("a"), later),
            (5, None, now),
            (6, None, later),
            (7, Some("a"), later),
        ] {
            shelf.put(of_group(number, group, deadline));
        }
        let extended = of_group(2, Some("a"), now).token;

        shelf.extended(&[(extended, Some(now))], now);

        assert_eq!(taken(&shelf, true), [7, 4]);
        let numbers = shelf.tokens().into_iter().map(|token| token.number);
        assert_eq!(numbers.collect::<Vec<_>>(), [1, 3, 6]);
    }
}

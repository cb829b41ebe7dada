//! The handle's end of the way from the member's tasks: takes from all partitions in turn.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use onceward_core::{Arrival, SubscribeError};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::mpsc::error::TryRecvError;

use super::acker::NatsToken;
use super::durable::unavailable;
use super::outbound::{Common, Item, Shared};

/// How many deliveries are taken from one partition before the next has its turn.
const TURN: usize = 64;

/// The handle's end.
#[derive(Debug)]
pub(crate) struct Inbound {
    common: Arc<Common>,
    lanes: Vec<Lane>,
    /// Whose turn it is.
    turn: usize,
    /// Taken while other things were given out.
    failure: Option<SubscribeError>,
}

/// What comes of one partition.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) shared: Arc<Shared>,
    pub(crate) receiver: UnboundedReceiver<Item>,
    /// Taken and not given out, as it did not fit.
    pub(crate) left: Option<Item>,
    pub(crate) paused: bool,
}

impl Inbound {
    pub(crate) fn new(common: Arc<Common>, lanes: Vec<Lane>) -> Self {
        Self {
            common,
            lanes,
            turn: 0,
            failure: None,
        }
    }

    /// Whether this member owns that durable.
    pub(crate) fn is_owner(&self, number: usize) -> bool {
        let lane = self.lanes.get(number);
        lane.is_some_and(|lane| lane.shared.owner.load(Ordering::Acquire))
    }

    /// Stops or resumes giving out deliveries of that durable. All else is told still.
    pub(crate) fn pause(&mut self, number: usize, paused: bool) {
        if let Some(lane) = self.lanes.get_mut(number) {
            lane.paused = paused;
        }
    }

    /// Waits for arrivals, at most `room` of them deliveries. A failure comes alone.
    ///
    /// Cancel safe: it waits only while it holds nothing.
    pub(crate) async fn take(
        &mut self,
        room: usize,
    ) -> Result<Vec<Arrival<NatsToken>>, SubscribeError> {
        loop {
            let arrivals = self.collect(room)?;
            if !arrivals.is_empty() {
                return Ok(arrivals);
            }
            self.common.moved.notified().await;
        }
    }

    fn collect(&mut self, room: usize) -> Result<Vec<Arrival<NatsToken>>, SubscribeError> {
        if let Some(error) = self.failure.take() {
            return Err(self.told(error));
        }
        let mut arrivals = Vec::new();
        // News first: nobody should wait to hear that a partition goes.
        for number in 0..self.lanes.len() {
            self.serve(number, 0, &mut arrivals);
        }
        let mut left = room;
        loop {
            let before = left;
            for _ in 0..self.lanes.len() {
                if left == 0 {
                    break;
                }
                left -= self.serve(self.turn, left.min(TURN), &mut arrivals);
                self.turn = (self.turn + 1) % self.lanes.len();
            }
            if left == 0 || left == before {
                break;
            }
        }
        match self.failure.take_if(|_| arrivals.is_empty()) {
            Some(error) => Err(self.told(error)),
            None => Ok(arrivals),
        }
    }

    /// From here on the handle is told of failures again.
    fn told(&self, error: SubscribeError) -> SubscribeError {
        self.common.failed.store(false, Ordering::Release);
        error
    }

    /// Takes from one partition, at most `limit` deliveries. Tells how many it took.
    fn serve(
        &mut self,
        number: usize,
        limit: usize,
        arrivals: &mut Vec<Arrival<NatsToken>>,
    ) -> usize {
        let Some(lane) = self.lanes.get_mut(number) else {
            return 0;
        };
        let limit = if lane.paused { 0 } else { limit };
        let mut taken = 0;
        while let Some(item) = lane.next(&mut self.failure) {
            match item {
                Item::Arrival(Arrival::Delivery(delivery)) => {
                    let current = lane.shared.ownership.load(Ordering::Acquire);
                    let live = delivery.token.ownership == current;
                    if live && taken == limit {
                        lane.left = Some(Item::Arrival(Arrival::Delivery(delivery)));
                        break;
                    }
                    lane.shared.count_taken(&self.common);
                    if live {
                        taken += 1;
                        arrivals.push(Arrival::Delivery(delivery));
                    }
                }
                Item::Arrival(arrival) => arrivals.push(arrival),
                Item::Failure(error) => self.failure = Some(error),
            }
        }
        taken
    }
}

impl Lane {
    fn next(&mut self, failure: &mut Option<SubscribeError>) -> Option<Item> {
        if let Some(item) = self.left.take() {
            return Some(item);
        }
        match self.receiver.try_recv() {
            Ok(item) => Some(item),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                failure.get_or_insert_with(|| unavailable("the member has ended".to_owned()));
                None
            }
        }
    }
}

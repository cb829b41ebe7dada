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
    ways: Vec<Way>,
    /// Whose turn it is.
    turn: usize,
    /// Taken while other things were given out.
    failure: Option<SubscribeError>,
}

/// What comes of one partition.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) shared: Arc<Shared>,
    pub(crate) receiver: UnboundedReceiver<Item>,
    /// Taken and not given out, as it did not fit.
    pub(crate) left: Option<Item>,
    pub(crate) paused: bool,
}

impl Inbound {
    pub(crate) fn new(common: Arc<Common>, ways: Vec<Way>) -> Self {
        Self {
            common,
            ways,
            turn: 0,
            failure: None,
        }
    }

    /// Whether this member owns that durable.
    pub(crate) fn is_owner(&self, number: usize) -> bool {
        let way = self.ways.get(number);
        way.is_some_and(|way| way.shared.owner.load(Ordering::Acquire))
    }

    /// Stops or resumes giving out deliveries of that durable. All else is told still.
    pub(crate) fn pause(&mut self, number: usize, paused: bool) {
        if let Some(way) = self.ways.get_mut(number) {
            way.paused = paused;
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
        for number in 0..self.ways.len() {
            self.serve(number, 0, &mut arrivals);
        }
        let mut left = room;
        loop {
            let before = left;
            for _ in 0..self.ways.len() {
                if left == 0 {
                    break;
                }
                left -= self.serve(self.turn, left.min(TURN), &mut arrivals);
                self.turn = (self.turn + 1) % self.ways.len();
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
        let Some(way) = self.ways.get_mut(number) else {
            return 0;
        };
        let limit = if way.paused { 0 } else { limit };
        let mut taken = 0;
        while let Some(item) = way.next(&mut self.failure) {
            match item {
                Item::Arrival(Arrival::Delivery(delivery)) => {
                    let current = way.shared.ownership.load(Ordering::Acquire);
                    let live = delivery.token.ownership == current;
                    if live && taken == limit {
                        way.left = Some(Item::Arrival(Arrival::Delivery(delivery)));
                        break;
                    }
                    way.shared.count_taken(&self.common);
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

impl Way {
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

#[cfg(test)]
mod tests {
    use onceward_core::{Delivery, Message, Origin, Partition};

    use super::super::acker::Acked;
    use super::super::outbound::{Outbound, channels};
    use super::*;

    fn deliver(outbounds: &[Outbound], number: usize, ownership: u64, count: usize) {
        for _ in 0..count {
            let message = Message::bytes("topic", "x").finish(100).unwrap().message;
            let delivery = Delivery {
                message: Ok(message),
                origin: Origin {
                    broker: "nats",
                    partition: Partition::new(&number.to_string()),
                    position: None,
                    redelivered: None,
                    sent_at: None,
                },
                deadline: None,
                token: NatsToken {
                    place: Acked::ByMember(1),
                    ownership,
                    number,
                },
            };
            outbounds[number].send(Item::Arrival(Arrival::Delivery(delivery)));
        }
    }

    /// How many deliveries of each partition these are.
    fn counts(arrivals: &[Arrival<NatsToken>]) -> [usize; 3] {
        let mut counts = [0; 3];
        for arrival in arrivals {
            if let Arrival::Delivery(delivery) = arrival {
                counts[delivery.token.number] += 1;
            }
        }
        counts
    }

    #[tokio::test]
    async fn a_full_partition_does_not_keep_the_others_waiting() {
        let (outbounds, mut inbound) = channels(3, 1_000);
        let owned: Vec<u64> = outbounds.iter().map(|o| o.set_owner(true)).collect();
        deliver(&outbounds, 0, owned[0], 300);
        deliver(&outbounds, 1, owned[1], 10);
        deliver(&outbounds, 2, owned[2], 70);

        assert_eq!(counts(&inbound.take(50).await.unwrap()), [50, 0, 0]);
        assert_eq!(counts(&inbound.take(50).await.unwrap()), [0, 10, 40]);
        assert_eq!(counts(&inbound.take(100).await.unwrap()), [70, 0, 30]);
        assert_eq!(counts(&inbound.take(1_000).await.unwrap()), [180, 0, 0]);
    }

    #[tokio::test]
    async fn a_paused_partition_tells_its_news_but_gives_out_nothing() {
        let (outbounds, mut inbound) = channels(3, 1_000);
        let owned: Vec<u64> = outbounds.iter().map(|o| o.set_owner(true)).collect();
        inbound.pause(1, true);
        deliver(&outbounds, 1, owned[1], 5);
        deliver(&outbounds, 2, owned[2], 1);
        assert_eq!(counts(&inbound.take(9).await.unwrap()), [0, 0, 1]);

        outbounds[1].silence();
        outbounds[1].send(Item::Arrival(Arrival::Lost(Partition::new("1"))));
        let told = inbound.take(9).await.unwrap();

        assert!(matches!(told.as_slice(), [Arrival::Lost(_)]), "{told:?}");
        assert_eq!(outbounds[1].waiting(), 0);
    }

    #[tokio::test]
    async fn an_outage_that_hits_all_partitions_is_told_once_and_alone() {
        let (outbounds, mut inbound) = channels(3, 1_000);
        let ownership = outbounds[2].set_owner(true);
        for outbound in &outbounds {
            outbound.send(Item::Failure(unavailable("an outage".to_owned())));
        }
        deliver(&outbounds, 2, ownership, 1);

        assert_eq!(counts(&inbound.take(9).await.unwrap()), [0, 0, 1]);
        assert_eq!(inbound.take(9).await.unwrap_err().what, "an outage");
        drop(outbounds);

        let ended = inbound.take(9).await.unwrap_err();
        assert_eq!(ended.what, "the member has ended");
    }

    #[test]
    fn partitions_share_the_capacity_and_each_may_have_one() {
        let (outbounds, _inbound) = channels(3, 10);
        let first = outbounds[0].set_owner(true);
        assert_eq!(outbounds[0].room(0), 10);
        deliver(&outbounds, 0, first, 8);

        let second = outbounds[1].set_owner(true);
        assert_eq!((outbounds[0].room(0), outbounds[1].room(0)), (0, 2));
        deliver(&outbounds, 1, second, 1);
        assert_eq!(outbounds[1].room(1), 0);
        deliver(&outbounds, 0, first, 1);
        outbounds[2].set_owner(true);

        assert_eq!(outbounds[2].room(0), 1);
        outbounds[2].set_owner(false);
        outbounds[1].set_owner(false);
        assert_eq!(outbounds[0].capacity(), 10);
    }
}

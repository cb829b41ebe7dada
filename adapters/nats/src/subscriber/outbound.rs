//! The way from the member's task to its handle: bounded by what the member asks the server for, and without the
//! deliveries of an ownership that is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use onceward_core::{Arrival, SubscribeError};
use tokio::sync::{Notify, mpsc};

use super::acker::NatsToken;
use super::durable::unavailable;

/// What a handle is told.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all items are deliveries; boxing them would cost an allocation each"
)]
pub(crate) enum Item {
    Arrival(Arrival<NatsToken>),
    Failure(SubscribeError),
}

/// What both ends look at.
#[derive(Debug, Default)]
struct Shared {
    /// Deliveries on the way.
    waiting: AtomicUsize,
    /// Counts the ownerships; deliveries of an earlier one are dropped, for they come again.
    ownership: AtomicU64,
    owner: AtomicBool,
    /// A failure waits for the handle: it is told of an outage once, however long that lasts.
    failed: AtomicBool,
    taken: Notify,
}

/// The member's end.
#[derive(Debug)]
pub(crate) struct Outbound {
    shared: Arc<Shared>,
    sender: mpsc::UnboundedSender<Item>,
    capacity: usize,
}

/// The handle's end.
#[derive(Debug)]
pub(crate) struct Inbound {
    shared: Arc<Shared>,
    receiver: mpsc::UnboundedReceiver<Item>,
    /// Taken and not given out, as it did not fit.
    left: Option<Item>,
}

pub(crate) fn channel(capacity: usize) -> (Outbound, Inbound) {
    let shared = Arc::<Shared>::default();
    let (sender, receiver) = mpsc::unbounded_channel();
    let outbound = Outbound {
        shared: shared.clone(),
        sender,
        capacity: capacity.max(1),
    };
    let inbound = Inbound {
        shared,
        receiver,
        left: None,
    };
    (outbound, inbound)
}

impl Outbound {
    /// How many more deliveries may be asked for when `asked` are on their way from the server.
    pub(crate) fn room(&self, asked: usize) -> usize {
        self.capacity.saturating_sub(self.waiting() + asked)
    }

    /// How many deliveries wait for the handle.
    pub(crate) fn waiting(&self) -> usize {
        self.shared.waiting.load(Ordering::Acquire)
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Waits until the handle has taken something since the last wait.
    pub(crate) async fn taken(&self) {
        self.shared.taken.notified().await;
    }

    /// Begins or ends an ownership. Deliveries of the one before are no longer given out.
    pub(crate) fn set_owner(&self, owner: bool) -> u64 {
        self.shared.owner.store(owner, Ordering::Release);
        self.shared.ownership.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Tells the handle. A handle that is gone does not want to know.
    pub(crate) fn send(&self, item: Item) {
        if matches!(item, Item::Arrival(Arrival::Delivery(_))) {
            self.shared.waiting.fetch_add(1, Ordering::AcqRel);
        }
        let failure = matches!(item, Item::Failure(_));
        if failure && self.shared.failed.swap(true, Ordering::AcqRel) {
            return;
        }
        self.sender.send(item).ok();
    }
}

impl Inbound {
    /// Whether this member owns the durable.
    pub(crate) fn is_owner(&self) -> bool {
        self.shared.owner.load(Ordering::Acquire)
    }

    /// Waits for items, at most `room` of them deliveries. A failure comes alone.
    ///
    /// Cancel safe: it waits only while it holds nothing.
    pub(crate) async fn take(&mut self, room: usize) -> Result<Vec<Item>, SubscribeError> {
        let mut items = Vec::new();
        let mut left = room;
        loop {
            let next = match self.left.take() {
                Some(item) => Some(item),
                None if items.is_empty() => {
                    let ended = || unavailable("the member has ended".to_owned());
                    Some(self.receiver.recv().await.ok_or_else(ended)?)
                }
                None => self.receiver.try_recv().ok(),
            };
            let Some(item) = next else {
                return Ok(items);
            };
            match &item {
                Item::Arrival(Arrival::Delivery(delivery)) => {
                    if left == 0 {
                        self.left = Some(item);
                        return Ok(items);
                    }
                    self.count_taken();
                    if delivery.token.ownership != self.shared.ownership.load(Ordering::Acquire) {
                        continue;
                    }
                    left -= 1;
                }
                Item::Failure(_) if !items.is_empty() => {
                    self.left = Some(item);
                    return Ok(items);
                }
                Item::Failure(_) => {
                    self.shared.failed.store(false, Ordering::Release);
                    return Ok(vec![item]);
                }
                Item::Arrival(
                    Arrival::Assigned(_)
                    | Arrival::Revoking { .. }
                    | Arrival::Lost(_)
                    | Arrival::Jumped { .. },
                ) => {}
            }
            items.push(item);
        }
    }

    fn count_taken(&self) {
        self.shared.waiting.fetch_sub(1, Ordering::AcqRel);
        self.shared.taken.notify_one();
    }
}

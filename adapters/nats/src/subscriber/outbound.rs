//! The way from the member's tasks to its handle, one per partition: bounded by what each task asks the server for, and
//! without the deliveries of an ownership that is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use onceward_core::{Arrival, SubscribeError};
use tokio::sync::{Notify, mpsc};

use super::acker::NatsToken;
use super::inbound::{Inbound, Way};

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

/// What all partitions share.
#[derive(Debug, Default)]
pub(crate) struct Common {
    /// How many deliveries may wait in all.
    capacity: usize,
    /// How many do.
    waiting: AtomicUsize,
    /// How many partitions are owned.
    owned: AtomicUsize,
    /// A failure waits for the handle: it is told of an outage once, however long that lasts and whomever it hits.
    pub(crate) failed: AtomicBool,
    /// Told when there may be something to take.
    pub(crate) moved: Notify,
}

/// What both ends of one partition look at.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Deliveries on the way.
    waiting: AtomicUsize,
    /// Counts the ownerships; deliveries of an earlier one are dropped, for they come again.
    pub(crate) ownership: AtomicU64,
    pub(crate) owner: AtomicBool,
    taken: Notify,
}

/// The end of the task of one partition.
#[derive(Debug)]
pub(crate) struct Outbound {
    common: Arc<Common>,
    shared: Arc<Shared>,
    sender: mpsc::UnboundedSender<Item>,
    // Behind the sender, as fields are dropped in order.
    _wake: Wake,
}

/// Lets the handle notice that nothing more comes.
#[derive(Debug)]
struct Wake(Arc<Common>);

impl Drop for Wake {
    fn drop(&mut self) {
        self.0.moved.notify_one();
    }
}

/// A way for each of so many partitions, with that capacity in all.
pub(crate) fn channels(partitions: usize, capacity: usize) -> (Vec<Outbound>, Inbound) {
    let common = Arc::new(Common {
        capacity: capacity.max(1),
        ..Common::default()
    });
    let ends = (0..partitions).map(|_| {
        let shared = Arc::<Shared>::default();
        let (sender, receiver) = mpsc::unbounded_channel();
        let outbound = Outbound {
            common: common.clone(),
            shared: shared.clone(),
            sender,
            _wake: Wake(common.clone()),
        };
        let way = Way {
            shared,
            receiver,
            left: None,
            paused: false,
        };
        (outbound, way)
    });
    let (outbounds, ways) = ends.unzip();
    (outbounds, Inbound::new(common, ways))
}

impl Outbound {
    /// How many more deliveries may be asked for when `asked` are on their way from the server.
    pub(crate) fn room(&self, asked: usize) -> usize {
        let held = self.waiting() + asked;
        let all = self.common.waiting.load(Ordering::Acquire) + asked;
        let room = self.capacity().saturating_sub(held);
        let room = room.min(self.common.capacity.saturating_sub(all));
        // One at least, so that nobody is stopped by what the others hold.
        if held == 0 { room.max(1) } else { room }
    }

    /// How many deliveries wait for the handle.
    pub(crate) fn waiting(&self) -> usize {
        self.shared.waiting.load(Ordering::Acquire)
    }

    /// What of the capacity falls to this partition.
    pub(crate) fn capacity(&self) -> usize {
        let owned = self.common.owned.load(Ordering::Acquire).max(1);
        (self.common.capacity / owned).max(1)
    }

    /// Waits until the handle has taken something since the last wait.
    pub(crate) async fn taken(&self) {
        self.shared.taken.notified().await;
    }

    /// Begins or ends an ownership. Deliveries of the one before are no longer given out.
    pub(crate) fn set_owner(&self, owner: bool) -> u64 {
        let was = self.shared.owner.swap(owner, Ordering::AcqRel);
        match (was, owner) {
            (false, true) => drop(self.common.owned.fetch_add(1, Ordering::AcqRel)),
            (true, false) => drop(self.common.owned.fetch_sub(1, Ordering::AcqRel)),
            (true, true) | (false, false) => {}
        }
        self.silence()
    }

    /// What waits is no longer given out, though the ownership may last for a while.
    pub(crate) fn silence(&self) -> u64 {
        self.shared.ownership.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Tells the handle. A handle that is gone does not want to know.
    pub(crate) fn send(&self, item: Item) {
        if matches!(item, Item::Arrival(Arrival::Delivery(_))) {
            self.shared.waiting.fetch_add(1, Ordering::AcqRel);
            self.common.waiting.fetch_add(1, Ordering::AcqRel);
        }
        let failure = matches!(item, Item::Failure(_));
        if failure && self.common.failed.swap(true, Ordering::AcqRel) {
            return;
        }
        self.sender.send(item).ok();
        self.common.moved.notify_one();
    }
}

impl Shared {
    /// The handle took a delivery.
    pub(crate) fn count_taken(&self, common: &Common) {
        self.waiting.fetch_sub(1, Ordering::AcqRel);
        common.waiting.fetch_sub(1, Ordering::AcqRel);
        self.taken.notify_one();
    }
}

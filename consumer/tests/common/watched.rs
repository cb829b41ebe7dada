//! A subscriber to the broker in memory that counts what is read through it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use onceward_core::{Arrival, Backlog, Capabilities, Partition, SubscribeError, Subscriber};
use onceward_memory::{MemoryAcker, MemorySubscriber, MemoryToken};

/// What a consumer has read. Clones are of the same counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reads {
    deliveries: Arc<AtomicUsize>,
    failures: Arc<AtomicUsize>,
}

impl Reads {
    /// How many deliveries came.
    pub(crate) fn deliveries(&self) -> usize {
        self.deliveries.load(Ordering::SeqCst)
    }

    /// How many calls failed.
    pub(crate) fn failures(&self) -> usize {
        self.failures.load(Ordering::SeqCst)
    }
}

pub(crate) struct Watched {
    pub(crate) subscriber: MemorySubscriber,
    pub(crate) reads: Reads,
}

impl Subscriber for Watched {
    type Token = MemoryToken;
    type Acker = MemoryAcker;

    fn capabilities(&self) -> Capabilities {
        self.subscriber.capabilities()
    }

    fn acker(&self) -> MemoryAcker {
        self.subscriber.acker()
    }

    async fn next(&mut self, room: usize) -> Result<Vec<Arrival<MemoryToken>>, SubscribeError> {
        let next = self.subscriber.next(room).await;
        match &next {
            Ok(arrivals) => {
                let came = arrivals.iter();
                let came = came.filter(|arrival| matches!(arrival, Arrival::Delivery(_)));
                let count = came.count();
                self.reads.deliveries.fetch_add(count, Ordering::SeqCst);
            }
            Err(_) => {
                self.reads.failures.fetch_add(1, Ordering::SeqCst);
            }
        }
        next
    }

    fn pause(&mut self, partition: &Partition, paused: bool) {
        self.subscriber.pause(partition, paused);
    }

    async fn backlog(&mut self) -> Result<Vec<Backlog>, SubscribeError> {
        self.subscriber.backlog().await
    }

    async fn close(self, within: Duration) {
        self.subscriber.close(within).await;
    }
}

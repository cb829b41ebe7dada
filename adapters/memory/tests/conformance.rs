//! The broker in memory passes the suite that every adapter passes.

#![expect(clippy::unwrap_used, reason = "a harness fails its test by panicking")]

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use onceward_conformance::{Control, Harness, Member, Offer, Record, Sharing};
use onceward_core::{Route, SubscribeError};
use onceward_memory::{MemoryBroker, MemoryPublisher, MemorySubscriber};

struct InMemory {
    broker: MemoryBroker,
    routes: AtomicU32,
}

impl Harness for InMemory {
    type Publisher = MemoryPublisher;
    type Subscriber = MemorySubscriber;

    async fn start(_sharing: Sharing) -> Self {
        let broker = MemoryBroker::new();
        broker.refuse_unknown_topics();
        Self {
            broker,
            routes: AtomicU32::new(0),
        }
    }

    async fn route(&self, _partitions: u16) -> Route {
        let name = format!("route-{}", self.routes.fetch_add(1, Ordering::Relaxed));
        self.broker.create_topic(&name);
        Route::new(&name)
    }

    async fn publisher(&self, deadline: Duration) -> MemoryPublisher {
        self.broker.publisher_with_deadline(deadline)
    }

    async fn subscriber(&self, member: &Member) -> Result<MemorySubscriber, SubscribeError> {
        let topics: Vec<&str> = member.routes.iter().map(Route::as_str).collect();
        Ok(self.broker.subscriber(&member.group, &topics))
    }

    async fn stored(&self, route: &Route) -> Vec<Record> {
        let stored = self.broker.stored(route.as_str()).into_iter();
        stored
            .map(|record| Record {
                key: None,
                headers: record.headers,
                payload: record.payload,
            })
            .collect()
    }

    async fn control(&self, control: Control<'_>) -> Offer {
        match control {
            Control::Stop => self.broker.stop(),
            Control::Start => self.broker.start(),
            Control::Limit { route, bytes } => self
                .broker
                .limit_message(route.as_str(), Some(bytes.into())),
            Control::Full { route, full } => self.broker.fill(route.as_str(), full),
            Control::Withhold(withheld) => self.broker.withhold_reports(withheld),
            Control::Forget { route, keep } => {
                self.broker
                    .forget(route.as_str(), usize::try_from(keep).unwrap());
            }
            Control::Put { route, record } => self
                .broker
                .put(
                    route.as_str(),
                    record.headers.clone(),
                    record.payload.clone(),
                )
                .unwrap(),
            Control::Misconfigure(_) => return Offer::NotOffered,
        }
        Offer::Done
    }
}

onceward_conformance::suite!(InMemory);

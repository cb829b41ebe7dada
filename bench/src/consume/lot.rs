//! Messages that lie in a broker and wait to be handled.

use std::sync::Arc;
use std::time::Duration;

use onceward_consumer::Message;
use onceward_core::{Batch, MAX_PAYLOAD, Outgoing, Publisher, Route, Source};
use onceward_kafka::{Kafka, KafkaConfig};
use onceward_nats::{NatsConfig, NatsPublisher};
use uuid::Uuid;

use crate::backlog::{KEYS, TOPIC, payload};
use crate::broker::Broker;
use crate::outcome::Outcome;
use crate::world::World;

/// Messages that are offered at a time.
pub(super) const CHUNK: u64 = 1_000;

/// Of which one is published twice, where there are copies.
pub(super) const COPIED: usize = 10;

/// Whether messages come more than once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Copies {
    None,
    /// A second copy of every tenth message, behind the thousand that it is of.
    EveryTenth,
}

impl Copies {
    pub(crate) const BOTH: [Self; 2] = [Self::None, Self::EveryTenth];

    /// The copies of so many messages.
    pub(crate) const fn of(self, messages: u64) -> u64 {
        match self {
            Self::None => 0,
            Self::EveryTenth => messages / COPIED as u64,
        }
    }

    /// Behind the name of a variant.
    pub(crate) const fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::EveryTenth => " duplicates",
        }
    }
}

/// Messages in a route of their own.
#[derive(Debug)]
pub(super) struct Lot {
    pub(super) broker: Broker,
    pub(super) route: String,
    pub(super) messages: u64,
    pub(super) copies: u64,
}

impl Lot {
    /// Puts them there.
    pub(super) async fn publish(
        world: &World,
        broker: Broker,
        messages: u64,
        copies: Copies,
    ) -> Outcome<Self> {
        let route = broker.route(world).await?;
        let batches = batches(&route, messages, copies)?;
        match broker {
            Broker::Kafka => {
                let kafka = Kafka::new(KafkaConfig::new(world.kafka.brokers()))?;
                offer(kafka.publisher(), batches).await?;
            }
            Broker::Nats => {
                let config = NatsConfig::new([world.nats_url()]);
                offer(NatsPublisher::connect(&config).await?, batches).await?;
            }
        }
        Ok(Self {
            broker,
            route,
            messages,
            copies: copies.of(messages),
        })
    }

    pub(super) async fn forget(self, world: &World) -> Outcome {
        self.broker.forget(world, &self.route).await
    }
}

/// Offers all, and waits until they are stored.
pub(crate) async fn offer<P: Publisher>(mut publisher: P, batches: Vec<Arc<Batch>>) -> Outcome {
    let mut pending = Vec::new();
    for batch in batches {
        pending.push(publisher.offer(batch).await);
    }
    for receipts in pending {
        if !receipts.await.all_confirmed() {
            return Err("a message was not confirmed".into());
        }
    }
    publisher.close(Duration::from_secs(5)).await;
    Ok(())
}

/// So many messages for a route, with the headers that a relay gives them, and their copies.
pub(crate) fn batches(route: &str, messages: u64, copies: Copies) -> Outcome<Vec<Arc<Batch>>> {
    let source = Source::try_from("/bench")?;
    let mut batches = Vec::new();
    for first in (0..messages).step_by(usize::try_from(CHUNK)?) {
        let mut batch = Batch::default();
        for n in first..messages.min(first + CHUNK) {
            let draft = Message::bytes(TOPIC, payload()).key(format!("k{}", n % KEYS));
            let mut message = draft.finish(MAX_PAYLOAD)?.message;
            message.source = Some(source.clone());
            message.seq = Some(i64::try_from(n)? + 1);
            batch.messages.push(Outgoing {
                route: Route::new(route),
                message,
                replay: None,
            });
        }
        let copied = copies_in(&batch);
        batches.push(Arc::new(batch));
        match copies {
            Copies::None => {}
            Copies::EveryTenth => batches.push(Arc::new(copied)),
        }
    }
    Ok(batches)
}

/// Every tenth once more, as a replay: JetStream and FIFO queues would drop what has the deduplication id of the first.
fn copies_in(batch: &Batch) -> Batch {
    let run = Some(Uuid::now_v7());
    let copies = batch.messages.iter().step_by(COPIED).cloned();
    let messages = copies.map(|copy| Outgoing {
        replay: run,
        ..copy
    });
    Batch {
        messages: messages.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_have_the_id_of_their_message_and_another_one_for_the_broker() {
        let batches = batches("route", 2_000, Copies::EveryTenth).unwrap();

        let (first, copies) = (&batches[0].messages, &batches[1].messages);
        assert_eq!((batches.len(), first.len(), copies.len()), (4, 1_000, 100));
        assert_eq!(copies[1].message.id, first[10].message.id);
        assert_ne!(copies[1].dedupe_id(), first[10].dedupe_id());
        assert_eq!(Copies::EveryTenth.of(2_000), 200);
    }

    #[test]
    fn without_copies_each_message_is_there_once() {
        let batches = batches("route", 1_500, Copies::None).unwrap();

        assert_eq!((batches.len(), batches[1].messages.len()), (2, 500));
    }
}
